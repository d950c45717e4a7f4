/** What pages say while not all is well: machines that are cold or badly measured, hosts that fall silent, a registry that does not answer. */

import { accessible, expect, fits, picture, test } from './fixtures';
import { type Mesh, json, startMesh, until } from './mesh';

interface Vms {
  vms: { vm: string; name: string; quality: string; limited_by: string }[];
}

test.describe.configure({ mode: 'serial' });

let mesh: Mesh;
test.beforeAll(async () => {
  mesh = await startMesh(['--simulate', '2x12', '--cold-start', '30d']);
});
test.afterAll(() => mesh.stop());

async function vmWhere(what: string, fits: (vm: Vms['vms'][number]) => boolean): Promise<Vms['vms'][number]> {
  return until(what, async () => ((await json(`${mesh.url}/api/v1/vms?page_size=100`)) as Vms).vms.find(fits));
}

test('a cold machine says when it is warm, and the doctor what to do', async ({ page }) => {
  const cold = await vmWhere('a machine that is only cold', (one) => one.limited_by === 'cold');
  await page.goto(`${mesh.url}/vms/${cold.vm}`);
  await expect(page.getByText('It is still cold')).toBeVisible();
  await expect(page.getByText(/Something can be harvested in \d+ d/)).toBeVisible();
  await expect(page.getByRole('row', { name: /^Cold start/ })).toContainText('There is not enough history yet');
  await accessible(page);
  await fits(page);
  await picture(page, 'cold');
  const vm = await vmWhere('a machine without a statistics period', (one) => one.quality === 'no_period');
  await page.goto(`${mesh.url}/vms/${vm.vm}`);
  await expect(page.getByText(`virsh dommemstat ${vm.name} --period 10 --live --config`)).toBeVisible();
  await page.goto(`${mesh.url}/agents`);
  await page.getByRole('button', { name: /findings of/ }).first().click();
  await expect(page.getByRole('dialog')).toContainText(/virsh dommemstat .* --period 10/);
});

test('hosts that fall silent are stale, and are live again by themselves', async ({ page }) => {
  const thaw = mesh.freeze('memharvest-collector');
  try {
    await page.goto(mesh.url);
    await expect(page.getByText('2 hosts send no fresh figures')).toBeVisible({ timeout: 60_000 });
    await page.getByText('2 hosts send no fresh figures').click();
    await expect(page.getByRole('table', { name: 'Hosts' }).getByText('stale').first()).toBeVisible();
    await accessible(page);
    await picture(page, 'stale');
    await page.getByRole('table', { name: 'Hosts' }).getByRole('link').first().click();
    await expect(page.locator('strong', { hasText: 'There are no fresh figures' })).toBeVisible();
  } finally {
    thaw();
  }
  await expect(page.locator('strong', { hasText: 'There are no fresh figures' })).toBeHidden({ timeout: 60_000 });
});

test('a registry that does not answer is named, and pages come back by themselves', async ({ page }) => {
  const thaw = mesh.freeze('memharvest-registry');
  try {
    await page.goto(`${mesh.url}/violations`);
    await expect(page.getByText('The ledger cannot be read')).toBeVisible({ timeout: 60_000 });
    await accessible(page);
    await picture(page, 'registry-away');
  } finally {
    thaw();
  }
  await expect(page.getByText('The ledger cannot be read')).toBeHidden({ timeout: 60_000 });
  await expect(page.getByText('Nothing was broken')).toBeVisible();
});
