/** Who is let in, what a viewer sees, how a session ends; and a gateway that goes away and comes back. */

import { accessible, expect, fits, picture, test } from './fixtures';
import { freePort, json, lease, until } from './mesh';
import { startProvider } from './provider';

test('a gateway that goes away is told, and regained by itself', async ({ page, mesh }) => {
  const address = `127.0.0.1:${await freePort()}`;
  const first = await mesh.gateway([], address);
  await page.goto(`http://${address}/`);
  await expect(page.getByRole('status').getByText(/^Live/)).toBeVisible();
  const sums = page.getByRole('group', { name: 'Sums over the fleet' });
  await expect(sums).toContainText('GiB');
  await first.stop();
  await expect(page.getByText('The gateway is not reached: what you see is old')).toBeVisible();
  await expect(page.getByRole('status').getByText('Disconnected')).toBeVisible();
  await expect(sums).toContainText('GiB');
  await picture(page, 'disconnected');
  const second = await mesh.gateway([], address);
  await expect(page.getByText('The gateway is not reached: what you see is old')).toBeHidden();
  await expect(page.getByRole('status').getByText(/^Live/)).toBeVisible();
  await second.stop();
});

test('a token lets in, a viewer sees no button that would fail, and a session that ends is said so', async ({ page, mesh }) => {
  const violation = await until('a violation', async () => ((await json(`${mesh.url}/api/v1/violations?page_size=1`)) as { violations: { id: string }[] }).violations[0]?.id, 120);
  await until('a lease', () => lease(mesh.url, 'a-job'), 120);
  const gateway = await mesh.gateway(['--auth-tokens']);
  const [viewer, operator] = [await mesh.token('vera', 'viewer'), await mesh.token('otto', 'operator')];
  await page.goto(`${gateway.url}/boundaries?scope=host:replay-1`);
  await expect(page).toHaveURL(/\/sign-in\?next=/);
  await accessible(page);
  await fits(page);
  await picture(page, 'sign-in');
  await page.getByLabel('Token').fill('mh_wrong');
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  await expect(page.getByText('Not signed in')).toBeVisible();

  await page.getByLabel('Token').fill(viewer);
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  await expect(page).toHaveURL(/\/boundaries\?scope=host/);
  await expect(page.getByText('vera')).toBeVisible();
  await expect(page.getByRole('row', { name: /Horizon/ })).toContainText('15 min');
  for (const name of ['Edit', 'Set', 'Remove', 'New scope']) await expect(page.getByRole('button', { name, exact: true })).toHaveCount(0);
  await page.goto(`${gateway.url}/agents`);
  await expect(page.getByRole('row', { name: /predictor/ }).first()).toBeVisible();
  await expect(page.getByRole('button', { name: 'Decommission' })).toHaveCount(0);
  await page.goto(`${gateway.url}/violations/${encodeURIComponent(violation)}`);
  await expect(page.getByText('What stood at the time')).toBeVisible();
  await expect(page.getByText('Peak usage')).toBeVisible();
  for (const name of ['Acknowledge', 'Explain']) await expect(page.getByRole('button', { name })).toHaveCount(0);
  await page.goto(`${gateway.url}/leases`);
  await expect(page.getByRole('row', { name: /a-job/ }).first()).toContainText('live');
  await expect(page.getByRole('button', { name: 'Release' })).toHaveCount(0);
  // The gateway refuses what the page does not offer.
  const refused = await fetch(`${gateway.url}/api/v1/boundaries/fleet`, {
    method: 'DELETE',
    headers: { authorization: `Bearer ${viewer}` },
  });
  expect(refused.status).toBe(403);

  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByLabel('Token').fill(operator);
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  await expect(page.getByText('otto')).toBeVisible();
  await page.goto(`${gateway.url}/boundaries?scope=host:replay-2`);
  await expect(page.getByRole('button', { name: 'Set', exact: true })).toBeVisible();
  await page.goto(`${gateway.url}/agents`);
  await expect(page.getByRole('row', { name: /predictor/ }).first()).toBeVisible();
  await expect(page.getByRole('button', { name: 'Decommission' })).toHaveCount(0);

  const { tokens } = (await (await fetch(`${mesh.url}/api/v1/tokens`)).json()) as { tokens: { id: string; name: string }[] };
  const id = tokens.find((one) => one.name === 'otto')?.id;
  await fetch(`${mesh.url}/api/v1/tokens/${id}`, { method: 'DELETE', headers: { 'x-memharvest-author': 'tests' } });
  await expect(page.getByText('Your session has ended')).toBeVisible();
  await expect(page).toHaveURL(/next=%2Fagents/);
  await gateway.stop();
});

test('an identity provider signs in and brings back to where one was going', async ({ page, mesh }) => {
  const provider = await startProvider();
  const gateway = await mesh.gateway([`--oidc-issuer=${provider.url}`, '--oidc-audience=memharvest', '--oidc-client-id=dashboard', '--oidc-client-secret=s3cret']);
  await until('the provider to be known', async () => (provider.asked() > 0 ? true : undefined));
  await page.goto(`${gateway.url}/violations?kind=promise`);
  await page.getByRole('button', { name: 'Sign in with your identity provider' }).click();
  await expect(page).toHaveURL(`${gateway.url}/violations?kind=promise`);
  await expect(page.getByText('olga')).toBeVisible();
  expect(provider.redeemed()).toEqual({ clientSecret: 's3cret', verified: true });
  await gateway.stop();
  await provider.stop();
});
