/** Every page: it shows what the mesh knows, keeps nobody out, and fits a phone. */

import { accessible, callMe, csv, expect, fits, picture, test } from './fixtures';
import { json, lease, until } from './mesh';

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
  const machines = page.getByRole('table', { name: 'Machines' });
  // By name, so that no reading puts another machine where the pointer is.
  await machines.getByRole('button', { name: 'Machine' }).click();
  await page.getByLabel('Search machines').fill(vm.name);
  await expect(machines.getByRole('row').filter({ hasNotText: vm.name })).toHaveCount(1);
  await machines.getByRole('link', { name: vm.name, exact: true }).click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText(vm.name);
  await expect(page.getByText('Why this number?')).toBeVisible();
  await expect(page.getByRole('row', { name: /^Forecast It is expected/ })).toBeVisible();
  await page.getByRole('button', { name: 'Reclaimable' }).click();
  await expect(page).toHaveURL(/signal=demand/);
  await expect(page.getByRole('row', { name: /^Reclaimable/ })).toBeVisible();
  const why = page.locator('section', { hasText: 'Why this number?' });
  expect((await csv(page, why))[0]).toBe('Step,Takes,Leaves,Why,Detail');
  expect((await csv(page, page.locator('section', { hasText: 'Peak at most' }))).length).toBeGreaterThan(1);
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
  const { vms } = (await json(`${mesh.url}/api/v1/vms?page_size=1000`)) as Vms;
  expect(await csv(page)).toHaveLength(vms.length + 1);
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
  const [header, first] = await csv(page);
  expect(header).toBe('Id,Opened,State,Broken,Machine,Host,Above by,Of allocation,Predicted,Peak,Lasted,Closed,Acknowledged');
  expect(first).toMatch(/,forecast (rss|demand),/);
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
  const { hosts: all } = (await json(`${mesh.url}/api/v1/hosts`)) as { hosts: unknown[] };
  expect(await csv(page)).toHaveLength(all.length + 1);
  await accessible(page);
  await fits(page);
  await picture(page, 'hosts');

  await until('a lease', () => lease(mesh.url, 'scheduler-7'));
  await page.goto(`${mesh.url}/leases`);
  await expect(page.getByRole('row', { name: /scheduler-7/ })).toBeVisible();
  await page.getByLabel('Search leases').fill('scheduler-8');
  await expect(page.getByText('No lease fits')).toBeVisible();
  expect(await csv(page)).toHaveLength(1);
  await page.getByLabel('Search leases').fill('scheduler-7');
  await expect(page.getByRole('row', { name: /scheduler-7/ })).toBeVisible();
  expect((await csv(page))[1]).toContain('scheduler-7');
  await accessible(page);
  await fits(page);
  await picture(page, 'leases');
  await page.getByRole('row', { name: /scheduler-7/ }).getByRole('button', { name: 'Release' }).click();
  await page.getByLabel('Reason').fill('the job is done');
  await page.getByRole('dialog').getByRole('button', { name: 'Release' }).click();
  await expect(page.getByRole('row', { name: /scheduler-7/ })).toContainText('released');

  await page.goto(`${mesh.url}/agents`);
  await expect(page.getByRole('row', { name: /predictor/ }).first()).toBeVisible();
  expect((await csv(page)).length).toBeGreaterThan(2);
  await accessible(page);
  await fits(page);
  await picture(page, 'agents');

  await page.goto(`${mesh.url}/audit`);
  await expect(page.getByRole('row', { name: /lease/ }).first()).toBeVisible();
  expect((await csv(page))[0]).toBe('When,Who,What,To what,Why,Change');
  await page.getByRole('row', { name: /lease/ }).first().getByRole('button').click();
  expect((await csv(page, page.getByRole('dialog')))[0]).toBe('Field,Before,After');
  await page.keyboard.press('Escape');
  await accessible(page);
  await fits(page);
  await picture(page, 'audit');
});

test('a violation is marked in the chart of its machine', async ({ page, mesh }) => {
  await busy(mesh.url);
  const { violations } = (await json(`${mesh.url}/api/v1/violations?page_size=1`)) as Violations;
  await page.goto(`${mesh.url}/vms/${violations[0]?.vm}`);
  await expect(page.getByRole('img', { name: /with [1-9]\d* violations? marked/ })).toBeVisible();
});

test('an agent that is gone is taken out of service, on a phone too', async ({ page, mesh }) => {
  const gateways = async () => {
    const { agents } = (await json(`${mesh.url}/api/v1/agents?kind=gateway`)) as { agents: { id: string }[] };
    return agents.map(({ id }) => id);
  };
  await callMe(page, 'ann');
  const known = await gateways();
  const another = await mesh.gateway(['--gateway-id=gateway-of-old']);
  const id = await until('another gateway', async () => (await gateways()).find((one) => !known.includes(one)));
  await another.stop();
  await page.setViewportSize({ width: 390, height: 844 });
  await page.goto(`${mesh.url}/agents`);
  await page.getByRole('row', { name: id }).getByRole('button', { name: 'Decommission' }).click();
  const dialog = page.getByRole('dialog');
  const done = dialog.getByRole('button', { name: 'Decommission' });
  await dialog.getByLabel('Reason').fill('its rack was sold');
  await dialog.getByLabel(/to make sure/).fill('another');
  await expect(done).toBeDisabled();
  await dialog.getByLabel(/to make sure/).fill(id);
  await done.click();
  await expect(dialog).toBeHidden();
  await expect(page.getByRole('row', { name: id })).toHaveCount(0);
  await page.setViewportSize({ width: 1440, height: 900 });
  await page.goto(`${mesh.url}/audit?action=agent`);
  const event = page.getByRole('row', { name: /decommission/ }).first();
  await expect(event).toContainText(id);
  await expect(event).toContainText('its rack was sold');
  await expect(event).toContainText('ann');
  expect(await gateways()).not.toContain(id);
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
