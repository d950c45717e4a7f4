/** Boundaries: edited, tried on history, saved, and what happens when two people edit the same one. */

import { accessible, callMe, expect, fits, picture, test } from './fixtures';
import { json, until } from './mesh';

interface Set {
  etag: string;
  version: number;
  floor_bytes: number;
}

test('a boundary is edited, simulated and saved, and its versions tell who and why', async ({ page, mesh }) => {
  test.setTimeout(180_000);
  await callMe(page, 'ann');
  await page.goto(`${mesh.url}/boundaries`);
  await expect(page.getByRole('row', { name: /Horizon/ })).toContainText('15 min');
  await expect(page.getByRole('row', { name: /Horizon/ })).toContainText('default');
  await page.getByRole('button', { name: 'Set', exact: true }).click();
  const dialog = page.getByRole('dialog');
  await expect(dialog.getByRole('button', { name: 'Save' })).toBeDisabled();
  await dialog.getByLabel('Floor').fill('2 gallons');
  await expect(dialog.getByText('write a size')).toBeVisible();
  await dialog.getByLabel('Floor').fill('2 GiB');
  await dialog.getByLabel('Headroom, share').fill('7.5');
  await dialog.getByRole('button', { name: '1 day' }).click();
  const simulation = dialog.getByRole('region', { name: 'Simulation' });
  await until('harvest', async () => ((await json(`${mesh.url}/api/v1/fleet`)) as { harvestable_bytes: number }).harvestable_bytes > 0 || undefined, 120);
  // As soon as there is history of it.
  await expect(async () => {
    await dialog.getByRole('button', { name: 'Simulate' }).click();
    await expect(simulation).toContainText(/[+−][\d.]+ [KMGT]iB, .* in a day/, { timeout: 3_000 });
  }).toPass({ timeout: 120_000 });
  await expect(simulation).toContainText(/on .* of stored history of \d+ machines/);
  await accessible(page);
  await picture(page, 'boundary-edit');
  await dialog.getByLabel('Reason').fill('databases need room');
  await dialog.getByRole('button', { name: 'Save' }).click();
  await expect(dialog).toBeHidden();
  await expect(page.getByRole('row', { name: /^Floor/ })).toContainText('2.0 GiB');
  await expect(page.getByRole('row', { name: /^Floor/ })).toContainText('here');
  await expect(page.getByRole('listitem').filter({ hasText: 'v1' }).filter({ hasText: 'databases need room' }).first()).toBeVisible();
  const stored = (await json(`${mesh.url}/api/v1/boundaries/fleet`)) as Set & { author: string };
  expect([stored.floor_bytes, stored.author]).toEqual([2 * 2 ** 30, 'ann']);
  await accessible(page);
  await fits(page);
  await picture(page, 'boundaries');
});

test('what another person saved meanwhile is shown and not lost', async ({ page, mesh }) => {
  await callMe(page, 'ann');
  const scope = `${mesh.url}/api/v1/boundaries/host:replay-1`;
  const put = (body: object, etag?: string) =>
    fetch(scope, { method: 'PUT', headers: { 'content-type': 'application/json', ...(etag ? { 'if-match': etag } : {}) }, body: JSON.stringify(body) });
  expect((await put({ floor_bytes: 2 ** 30, author: 'bob', reason: 'first' })).ok).toBe(true);
  await page.goto(`${mesh.url}/boundaries?scope=host:replay-1`);
  await page.getByRole('button', { name: 'Edit' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('Harvest at most').fill('40');
  const { etag } = (await json(scope)) as Set;
  expect((await put({ floor_bytes: 3 * 2 ** 30, author: 'bob', reason: 'more room' }, etag)).ok).toBe(true);
  await dialog.getByRole('button', { name: 'Save' }).click();
  await expect(dialog.getByText('bob changed it meanwhile')).toBeVisible();
  await expect(dialog.getByText('Floor 1.0 GiB → 3.0 GiB')).toBeVisible();
  await picture(page, 'boundary-conflict');
  await dialog.getByRole('button', { name: 'Take theirs in, keep mine' }).click();
  await expect(dialog.getByLabel('Floor')).toHaveValue('3 GiB');
  await expect(dialog.getByLabel('Harvest at most')).toHaveValue('40');
  await dialog.getByRole('button', { name: 'Save' }).click();
  await expect(dialog).toBeHidden();
  await expect(page.getByRole('row', { name: /^Harvest at most/ })).toContainText('40 %');
  expect(((await json(scope)) as Set).version).toBe(3);
  await page.getByRole('button', { name: 'Remove' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
  await expect(page.getByText('nothing is set here')).toBeVisible();
  await expect(page.getByText('removed')).toBeVisible();
});
