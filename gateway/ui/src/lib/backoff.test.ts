import { expect, it } from 'vitest';

import { pause } from './backoff';

it('waits longer with every failure, never longer than ten seconds, never all at once', () => {
  expect(pause(1, 1)).toBe(500);
  expect(pause(2, 1)).toBe(1000);
  expect(pause(50, 1)).toBe(10_000);
  expect(pause(1, 0)).toBe(375);
});
