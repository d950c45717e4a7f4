/** What a browser has to load. */

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

import { expect, test } from '@playwright/test';

import { ROOT } from './mesh';

test('the dashboard is at most 150 kB, compressed', () => {
  const folder = join(ROOT, 'gateway/ui/dist');
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((file) => file.isFile() && !file.name.startsWith('.'));
  const size = files.reduce((sum, file) => sum + gzipSync(readFileSync(join(file.parentPath, file.name))).length, 0);
  expect(files.length).toBeGreaterThan(2);
  expect(size).toBeLessThanOrEqual(150_000);
});
