/** What every test has: the mesh, and a page that asks nobody else and breaks no rule of its policy. */

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

import { type Page, test as base, expect } from '@playwright/test';
import type { AxeResults } from 'axe-core';

import { type Mesh, ROOT, startMesh } from './mesh';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
/** Where pictures are written. */
const PICTURES = join(ROOT, 'target/dashboard/pictures');

export const test = base.extend<{ page: Page }, { mesh: Mesh }>({
  mesh: [
    async ({}, use) => {
      const trace = join(ROOT, 'trace/data/demo.csv.gz');
      const mesh = await startMesh(['--trace', trace, '--speed', '600']);
      await use(mesh);
      await mesh.stop();
    },
    { scope: 'worker', timeout: 120_000 },
  ],
  page: async ({ page, mesh }, use) => {
    const foreign: string[] = [];
    const complaints: string[] = [];
    page.on('request', (request) => {
      const { hostname, protocol } = new URL(request.url());
      if (protocol !== 'data:' && protocol !== 'blob:' && hostname !== '127.0.0.1') foreign.push(request.url());
    });
    page.on('console', (message) => {
      // A gateway that is stopped or refuses is part of some tests; the browser notes it, and so it should.
      if (message.type() === 'error' && !/ERR_CONNECTION|ERR_INCOMPLETE|ERR_EMPTY|status of 4|Failed to fetch|network error/i.test(message.text())) complaints.push(message.text());
    });
    page.on('pageerror', (error) => complaints.push(error.stack ?? error.message));
    void mesh;
    await use(page);
    expect(foreign, 'requests to other hosts').toEqual([]);
    expect(complaints, 'errors in the console').toEqual([]);
  },
});

export { expect };

/** The name under which a test makes changes. */
export async function callMe(page: Page, name: string): Promise<void> {
  await page.addInitScript((author) => localStorage.setItem('memharvest.author', author), name);
}

/** Nothing that keeps people out, by axe. */
export async function accessible(page: Page): Promise<void> {
  await page.evaluate(AXE);
  const found = (await page.evaluate('axe.run(document, { resultTypes: ["violations"] })')) as AxeResults;
  const serious = found.violations.filter((one) => one.impact === 'serious' || one.impact === 'critical');
  expect(
    serious.map((one) => `${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map((node) => node.html).join(' | ')}`),
    `axe on ${page.url()}`,
  ).toEqual([]);
}

/** Pictures of a page in light, dark and on a phone. */
export async function picture(page: Page, name: string): Promise<void> {
  const shots = [
    ['light', { width: 1440, height: 900 }, 'light'],
    ['dark', { width: 1440, height: 900 }, 'dark'],
    ['phone', { width: 390, height: 844 }, 'light'],
  ] as const;
  for (const [suffix, size, colorScheme] of shots) {
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme });
    // Charts are drawn anew for another width or scheme.
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    await page.screenshot({ path: join(PICTURES, `${name}-${suffix}.png`) });
  }
  await page.setViewportSize({ width: 1440, height: 900 });
  await page.emulateMedia({ colorScheme: 'light' });
}

/** Nothing of the page is wider than the screen. */
export async function fits(page: Page): Promise<void> {
  await page.setViewportSize({ width: 390, height: 844 });
  const beyond = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  expect(beyond, `${page.url()} is wider than a phone`).toBeLessThanOrEqual(0);
  await page.setViewportSize({ width: 1440, height: 900 });
}
