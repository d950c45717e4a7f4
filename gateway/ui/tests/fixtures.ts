/** What every test has: the mesh, and a page that asks nobody else and breaks no rule of its policy. */

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

import { type Locator, type Page, test as base, expect } from '@playwright/test';
import type { AxeResults } from 'axe-core';

import { type Mesh, ROOT, startMesh } from './mesh';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
/** What may jump about on a page, as the field measures it: the worst five seconds, input aside. */
const LAYOUT_SHIFT = 0.1;
/** Where pictures are written. */
const PICTURES = join(ROOT, 'target/dashboard/pictures');

const [SCREEN, PHONE] = [{ width: 1440, height: 900 }, { width: 390, height: 844 }];
/** How pages are looked at. */
const LOOKS = [
  ['light', SCREEN, 'light'],
  ['dark', SCREEN, 'dark'],
  ['phone', PHONE, 'light'],
] as const;
const AS_BEFORE = [SCREEN, 'light'] as const;

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
    await page.addInitScript(watchShifts, [LAYOUT_SHIFT] as [number]);
    const jumps: string[] = [];
    await page.exposeBinding('jumped', (_, told: string) => jumps.push(told));
    await use(page);
    expect(jumps, 'what jumped on the page').toEqual([]);
    expect(foreign, 'requests to other hosts').toEqual([]);
    expect(complaints, 'errors in the console').toEqual([]);
  },
});

export { expect };

/** Runs in every page: tells when it jumps about by more than is right. */
function watchShifts([most]: [number]): void {
  interface Shift extends PerformanceEntry {
    value: number;
    hadRecentInput: boolean;
    sources: { node: Node | null }[];
  }
  let [begin, last, sum] = [-Infinity, -Infinity, 0];
  new PerformanceObserver((list) => {
    for (const shift of list.getEntries() as Shift[]) {
      if (shift.hadRecentInput) continue;
      // Shifts less than a second apart belong together, for five seconds.
      if (shift.startTime - last > 1000 || shift.startTime - begin > 5000) [begin, sum] = [shift.startTime, 0];
      last = shift.startTime;
      sum += shift.value;
      const nodes = shift.sources.map(({ node }) => (node instanceof Element ? node : node?.parentElement)?.outerHTML.slice(0, 120));
      if (sum > most) void (globalThis as unknown as { jumped: (told: string) => void }).jumped(`${location.href}: ${sum.toFixed(3)}: ${nodes.join(' | ')}`);
    }
  }).observe({ type: 'layout-shift', buffered: true });
}

/** The name under which a test makes changes. */
export async function callMe(page: Page, name: string): Promise<void> {
  await page.addInitScript((author) => localStorage.setItem('memharvest.author', author), name);
}

/** Nothing that keeps people out, by axe: in light, in dark and on a phone. */
export async function accessible(page: Page): Promise<void> {
  await page.evaluate(AXE);
  for (const [name, size, colorScheme] of LOOKS) {
    await look(page, size, colorScheme);
    await inspect(page, name);
  }
  await look(page, ...AS_BEFORE);
}

async function inspect(page: Page, name: string): Promise<void> {
  const found = (await page.evaluate('axe.run(document, { resultTypes: ["violations"] })')) as AxeResults;
  const serious = found.violations.filter((one) => one.impact === 'serious' || one.impact === 'critical');
  expect(
    serious.map((one) => `${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map((node) => node.html).join(' | ')}`),
    `axe on ${page.url()} (${name})`,
  ).toEqual([]);
}

/** Pictures of a page in light, dark and on a phone. */
export async function picture(page: Page, name: string): Promise<void> {
  for (const [suffix, size, colorScheme] of LOOKS) {
    await look(page, size, colorScheme);
    await page.screenshot({ path: join(PICTURES, `${name}-${suffix}.png`) });
  }
  await look(page, ...AS_BEFORE);
}

async function look(page: Page, size: { width: number; height: number }, colorScheme: 'light' | 'dark'): Promise<void> {
  await page.setViewportSize(size);
  await page.emulateMedia({ colorScheme });
  // Charts are drawn anew for another width or scheme.
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
}

/** The lines of the CSV that a button of this part of the page gives. */
export async function csv(page: Page, part: Page | Locator = page): Promise<string[]> {
  const saved = page.waitForEvent('download');
  await part.getByRole('button', { name: 'CSV' }).click();
  return readFileSync(await (await saved).path(), 'utf8').trimEnd().split('\r\n');
}

/** Nothing of the page is wider than the screen. */
export async function fits(page: Page): Promise<void> {
  await page.setViewportSize(PHONE);
  const beyond = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  expect(beyond, `${page.url()} is wider than a phone`).toBeLessThanOrEqual(0);
  await page.setViewportSize(SCREEN);
}
