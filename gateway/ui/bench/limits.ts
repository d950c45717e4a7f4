/** The dashboard before 1,000 hosts with 30 machines each: when it can be used, how smoothly it scrolls, how old a reading is on the screen, and
 * what an open page costs. Prints, and writes docs/benchmarks/dashboard.md. */

import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

import { type Page, chromium } from '@playwright/test';

import { ROOT, json, startMesh, until } from '../tests/mesh.ts';

const HOSTS = Number(process.env.DASHBOARD_BENCH_HOSTS ?? 1000);
const VMS = Number(process.env.DASHBOARD_BENCH_VMS ?? 30);
/** How long the page stays open for the heap, in seconds. */
const OPEN_S = Number(process.env.DASHBOARD_BENCH_OPEN ?? 3600);
/** When its heap is weighed first: what a page keeps by design, a quarter of an hour of sums, has filled then. */
const FILLED_S = Math.min(900, OPEN_S / 4);
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const ARGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--js-flags=--expose-gc', '--enable-precise-memory-info'];

const median = (values: number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
const worst = (values: number[]): number => Math.max(...values);

/** Time from the first byte asked for until the fleet's sums are on the screen and the page takes input, in milliseconds. */
async function interactive(url: string, pages: number): Promise<number[]> {
  const found: number[] = [];
  for (let turn = 0; turn < pages; turn += 1) {
    const browser = await chromium.launch({ executablePath: CHROMIUM, args: ARGS });
    const page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
    await page.goto('about:blank');
    await page.goto(url, { waitUntil: 'commit' });
    found.push(
      await page.evaluate(
        () =>
          new Promise<number>((done) => {
            const look = () => {
              const rows = document.querySelectorAll('[aria-label="Hosts"] [role="row"] a').length;
              const sums = /[GTP]iB/.test(document.querySelector('[aria-label="Sums over the fleet"]')?.textContent ?? '');
              if (sums && rows > 5) setTimeout(() => done(performance.now()), 0);
              else requestAnimationFrame(look);
            };
            look();
          }),
      ),
    );
    await browser.close();
  }
  return found;
}

/** Times between frames while the table of all machines is scrolled, in milliseconds. */
async function scrolled(page: Page, url: string): Promise<{ frames: number[]; rows: number }> {
  await page.goto(`${url}/vms`);
  const scroller = page.locator('[role="region"]');
  await until('all machines to be counted', async () => (Number(await page.getByRole('table').getAttribute('aria-rowcount')) > HOSTS * VMS * 0.99 ? true : undefined));
  const frames = await scroller.evaluate(
    (element) =>
      new Promise<number[]>((done) => {
        const times: number[] = [];
        let last = performance.now();
        let top = 0;
        let down = true;
        const end = element.scrollHeight - element.clientHeight;
        const step = () => {
          const now = performance.now();
          times.push(now - last);
          last = now;
          // Wheel-like at first, then leaps through the whole list and back: a frame in which nothing moves costs nothing.
          if (top >= end || top <= 0) down = top <= 0;
          const leap = times.length < 240 ? 160 : 9_000;
          top = Math.min(end, Math.max(0, top + (down ? leap : -leap)));
          element.scrollTop = top;
          if (times.length >= 480) done(times);
          else requestAnimationFrame(step);
        };
        requestAnimationFrame(step);
      }),
  );
  const rows = Number(await page.getByRole('table').getAttribute('aria-rowcount')) - 1;
  return { frames: frames.slice(2), rows };
}

/** How old a reading is when the page of its machine shows it, in seconds. Mesh and browser share one clock. */
async function age(page: Page, url: string, readings: number): Promise<number[]> {
  const { vms } = (await json(`${url}/api/v1/vms?page_size=1`)) as { vms: { vm: string }[] };
  await page.goto(`${url}/vms/${vms[0]?.vm}`);
  await page.waitForSelector('h1');
  return page.evaluate(
    (wanted) =>
      new Promise<number[]>((done) => {
        const ages: number[] = [];
        let before = '';
        const look = () => {
          const shown = document.querySelector('main time')?.getAttribute('datetime') ?? '';
          if (shown !== '' && shown !== before) {
            // The first one may have been there for a while.
            if (before !== '') ages.push((Date.now() - Date.parse(shown)) / 1000);
            before = shown;
          }
          if (ages.length >= wanted) done(ages);
          else requestAnimationFrame(look);
        };
        look();
      }),
    readings,
  );
}

/** Bytes of the page's heap after a collection. */
async function heap(page: Page): Promise<number> {
  return page.evaluate(() => {
    (globalThis as unknown as { gc: () => void }).gc();
    return (performance as unknown as { memory: { usedJSHeapSize: number } }).memory.usedJSHeapSize;
  });
}

// Whoever looks at a dashboard does not run a thousand hosts on the processors of his browser: these give way.
const mesh = await startMesh(['--simulate', `${HOSTS}x${VMS}`, '--cold-start', '0s'], ['nice', '-n', '19']);
try {
  await until('all hosts to be live', async () => {
    const fleet = (await json(`${mesh.url}/api/v1/fleet`)) as { hosts: number; vms: number };
    return (fleet.hosts === HOSTS && fleet.vms >= HOSTS * VMS * 0.95) || undefined;
  }, 300);
  await new Promise((done) => setTimeout(done, 15_000));
  const before = loadavg()[0] ?? 0;
  const loads = await interactive(mesh.url, 7);
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ARGS });
  const page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
  const { frames, rows } = await scrolled(page, mesh.url);
  const ages = await age(page, mesh.url, 20);
  await page.goto(mesh.url);
  await page.waitForSelector('[aria-label="Hosts"] [role="row"] a');
  process.stdout.write(`frames: worst ${worst(frames).toFixed(1)} ms; ages: worst ${worst(ages).toFixed(2)} s; now the page stays open for ${OPEN_S} s\n`);
  await new Promise((done) => setTimeout(done, FILLED_S * 1000));
  const first = await heap(page);
  await new Promise((done) => setTimeout(done, (OPEN_S - FILLED_S) * 1000));
  const last = await heap(page);
  await browser.close();

  const folder = join(ROOT, 'gateway/ui/dist');
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((file) => file.isFile() && !file.name.startsWith('.'));
  const size = files.reduce((sum, file) => sum + gzipSync(readFileSync(join(file.parentPath, file.name))).length, 0);
  const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  const text = `# The dashboard with ${rows.toLocaleString('en-GB')} machines

Written by \`make bench-ui\`, ${new Date().toISOString().slice(0, 10)}: headless Chromium, the whole mesh (\`memharvest up --simulate ${HOSTS}x${VMS}\`, a reading every 5 s) and the browser
on one machine with ${cpus().length} processors (${cpus()[0]?.model.trim() ?? 'unknown'}), load ${before.toFixed(1)} before the first page. The mesh gives way to the browser (\`nice\`).

| what | limit | measured |
| --- | --- | --- |
| all that is loaded, compressed | 150 kB | ${(size / 1000).toFixed(1)} kB |
| fleet page: sums and hosts on the screen, input taken; new browser, empty cache | 1 s | median ${(median(loads) / 1000).toFixed(2)} s, worst of ${loads.length} ${(worst(loads) / 1000).toFixed(2)} s |
| longest frame while the table of all machines is scrolled, ${frames.length} frames | 50 ms | ${worst(frames).toFixed(1)} ms (median ${median(frames).toFixed(1)} ms; ${frames.filter((frame) => frame > 50).length} above 50 ms) |
| age of a reading when the page of its machine shows it, ${ages.length} readings | 1 s | median ${median(ages).toFixed(2)} s, worst ${worst(ages).toFixed(2)} s |
| heap of the fleet page after collection, from its minute ${Math.round(FILLED_S / 60)} to its minute ${Math.round(OPEN_S / 60)} | +10 % | ${mib(first)} to ${mib(last)} (${(((last - first) / first) * 100).toFixed(1)} %) |
`;
  writeFileSync(join(ROOT, 'docs/benchmarks/dashboard.md'), text);
  process.stdout.write(text);
} finally {
  await mesh.stop();
}
