/** Every page: it shows what the mesh knows, keeps nobody out, and fits a phone. */

import { accessible, callMe, expect, fits, picture, test } from './fixtures';
import { json, until } from './mesh';

interface Vms {
  vms: { vm: string; name: string; host: string; harvestable_bytes: number | null }[];
}
interface Violations {
  violations: { id: string; vm: string }[];
}

/** Something is harvested, and something was broken. */
async function busy(url: string): Promise<{ vm: Vms['vms'][number]; violation: string }> {
  const violation = await until('a violation', async () => ((await json(`${url}/api/v1/violations?page_size=1`)) as Violations).violations[0]?.id, 120);
  const vm = await until('harvest', async () => ((await json(`${url}/api/v1/vms?page_size=1000`)) as Vms).vms.find((one) => (one.harvestable_bytes ?? 0) > 0), 120);
  return { vm, violation };
}

test('the fleet page tells the sums and moves by itself', async ({ page, mesh }) => {
  await busy(mesh.url);
  await page.goto(mesh.url);
  const live = page.getByRole('status').getByText(/^Live/);
  await expect(live).toBeVisible();
  const sums = page.getByRole('group', { name: 'Sums over the fleet' });
  await expect(sums).toContainText(/Allocated\s*[\d.]+ [GT]iB/);
  await expect(page.getByRole('table', { name: 'Hosts' }).getByRole('row')).not.toHaveCount(1);
  const before = await sums.innerText();
  await expect.poll(() => sums.innerText(), { message: 'a new reading changes the sums' }).not.toBe(before);
  await expect(page.getByText('Did the promise hold?')).toBeVisible();
  await accessible(page);
  await fits(page);
  await picture(page, 'fleet');
});

test('from the fleet to a host, to a machine, to the reason of its harvest', async ({ page, mesh }) => {
  const { vm } = await busy(mesh.url);
  await page.goto(mesh.url);
  await page.getByRole('table', { name: 'Hosts' }).getByRole('link', { name: vm.host }).first().click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText(vm.host);
  await accessible(page);
  await fits(page);
  await picture(page, 'host');
  await page.getByLabel('Search machines').fill(vm.name);
  await page.getByRole('table').getByRole('link', { name: vm.name, exact: true }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText(vm.name);
  await expect(page.getByText('Why this number?')).toBeVisible();
  await expect(page.getByRole('row', { name: /^Forecast It is expected/ })).toBeVisible();
  await page.getByRole('button', { name: 'Reclaimable' }).click();
  await expect(page).toHaveURL(/signal=demand/);
  await expect(page.getByRole('row', { name: /^Reclaimable/ })).toBeVisible();
  await page.getByRole('button', { name: 'Zoom in' }).click();
  await page.getByRole('button', { name: 'Whole' }).click();
  await page.getByRole('button', { name: '24h' }).click();
  await expect(page).toHaveURL(/range=24h/);
  await accessible(page);
  await fits(page);
  await picture(page, 'machine');
});

test('machines are searched, filtered and ordered by the server, and the address keeps it all', async ({ page, mesh }) => {
  await busy(mesh.url);
  await page.goto(`${mesh.url}/vms`);
  const table = page.getByRole('table');
  await expect(table.getByRole('row')).not.toHaveCount(1);
  await table.getByRole('button', { name: 'Allocated' }).click();
  await expect(page).toHaveURL(/sort=-allocated/);
  await expect(table.getByRole('columnheader', { name: 'Allocated' })).toHaveAttribute('aria-sort', 'descending');
  const largest = await table.getByRole('row').nth(1).getByRole('link').first().innerText();
  await page.keyboard.press('/');
  await page.keyboard.type(largest);
  await expect(page).toHaveURL(new RegExp(`q=${largest}`));
  await expect(table.getByRole('row').nth(1).getByRole('link').first()).toHaveText(largest);
  await page.reload();
  await expect(page.getByLabel('Search machines')).toHaveValue(largest);
  await expect(table.getByRole('row').nth(1).getByRole('link').first()).toHaveText(largest);
  await page.getByLabel('Search machines').fill('nobody is called so');
  await expect(page.getByText('No machine fits')).toBeVisible();
  await page.getByRole('button', { name: 'Show all' }).click();
  await expect(table.getByRole('row')).not.toHaveCount(1);
  const saved = page.waitForEvent('download');
  await page.getByRole('button', { name: 'CSV' }).click();
  const stream = await (await saved).createReadStream();
  let text = '';
  for await (const chunk of stream) text += String(chunk);
  const { vms } = (await json(`${mesh.url}/api/v1/vms?page_size=1000`)) as Vms;
  expect(text.trim().split('\r\n')).toHaveLength(vms.length + 1);
  await accessible(page);
  await fits(page);
  await picture(page, 'machines');
});

test('a violation is filtered, opened, acknowledged and explained', async ({ page, mesh }) => {
  const { violation } = await busy(mesh.url);
  await callMe(page, 'ann');
  await page.goto(`${mesh.url}/violations`);
  await expect(page.getByRole('table', { name: 'Ledger' }).getByRole('row')).not.toHaveCount(1);
  await page.getByLabel('Kind', { exact: true }).selectOption('forecast');
  await expect(page).toHaveURL(/kind=forecast/);
  await accessible(page);
  await fits(page);
  await picture(page, 'violations');
  await page.goto(`${mesh.url}/violations/${encodeURIComponent(violation)}`);
  await page.getByRole('button', { name: 'Acknowledge' }).click();
  await page.getByLabel('Note').fill('seen, looking at it');
  await page.getByRole('dialog').getByRole('button', { name: 'Acknowledge' }).click();
  await expect(page.getByText('ann acknowledged it')).toBeVisible();
  await expect(page.getByText('seen, looking at it')).toBeVisible();
  await page.getByRole('button', { name: 'Explain' }).click();
  await page.getByLabel('Why it happened').fill('a nightly import');
  await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click();
  await expect(page.getByText('a nightly import')).toBeVisible();
  await accessible(page);
  await fits(page);
  await picture(page, 'violation');
});

test('hosts, leases, agents and the audit log', async ({ page, mesh }) => {
  await busy(mesh.url);
  await callMe(page, 'ann');
  await page.goto(`${mesh.url}/hosts?sort=name`);
  await expect(page.getByRole('table', { name: 'Hosts' }).getByRole('row')).not.toHaveCount(1);
  await accessible(page);
  await fits(page);
  await picture(page, 'hosts');

  const host = await until('a host with harvest', async () => {
    const { hosts } = (await json(`${mesh.url}/api/v1/hosts`)) as { hosts: { host: string; harvestable_bytes: number | null }[] };
    return hosts.find((one) => (one.harvestable_bytes ?? 0) > 128 * 2 ** 20)?.host;
  });
  const reserved = await until('a lease', async () => {
    const answer = await fetch(`${mesh.url}/api/v1/leases`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ host, bytes: 64 * 2 ** 20, ttl: '30m', holder: 'scheduler-7' }),
    });
    return answer.ok || undefined;
  });
  expect(reserved).toBe(true);
  await page.goto(`${mesh.url}/leases`);
  await expect(page.getByRole('row', { name: /scheduler-7/ })).toBeVisible();
  await accessible(page);
  await fits(page);
  await picture(page, 'leases');
  await page.getByRole('row', { name: /scheduler-7/ }).getByRole('button', { name: 'Release' }).click();
  await page.getByLabel('Reason').fill('the job is done');
  await page.getByRole('dialog').getByRole('button', { name: 'Release' }).click();
  await expect(page.getByRole('row', { name: /scheduler-7/ })).toContainText('released');

  await page.goto(`${mesh.url}/agents`);
  await expect(page.getByRole('row', { name: /predictor/ }).first()).toBeVisible();
  await accessible(page);
  await fits(page);
  await picture(page, 'agents');

  await page.goto(`${mesh.url}/audit`);
  await expect(page.getByRole('row', { name: /lease/ }).first()).toBeVisible();
  await page.getByRole('row', { name: /lease/ }).first().getByRole('button').click();
  await expect(page.getByRole('dialog')).toBeVisible();
  await page.keyboard.press('Escape');
  await accessible(page);
  await fits(page);
  await picture(page, 'audit');
});

test('the palette finds pages, hosts and machines by keyboard', async ({ page, mesh }) => {
  const { vm } = await busy(mesh.url);
  await page.goto(mesh.url);
  await expect(page.getByRole('status').getByText(/^Live/)).toBeVisible();
  await page.keyboard.press('Control+k');
  await page.keyboard.type(vm.name);
  await expect(page.getByRole('option', { name: new RegExp(vm.name) }).first()).toBeVisible();
  await accessible(page);
  await picture(page, 'palette');
  await page.getByRole('combobox', { name: 'A page, host' }).fill('audit');
  await page.keyboard.press('Enter');
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Audit log');
  await page.goto(`${mesh.url}/hosts/nobody`);
  await expect(page.getByText('There is no such host')).toBeVisible();
});
