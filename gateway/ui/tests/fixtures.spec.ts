/** What the other tests rest on can fail. */

import { type Page, expect } from '@playwright/test';

import { test } from './fixtures';

test.fail('a page that jumps about fails its test', async ({ page, mesh }) => {
  await page.goto(mesh.url);
  await expect(page.getByRole('status').getByText(/^Live/)).toBeVisible();
  await jump(page);
});

async function jump(page: Page): Promise<void> {
  await page.evaluate(async () => {
    const wedge = document.createElement('div');
    wedge.style.height = '400px';
    // Half a second after the page came, nothing counts as somebody's input any more.
    await new Promise((done) => setTimeout(done, 600));
    document.querySelector('main')?.prepend(wedge);
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  });
}
