import { expect, it, vi } from 'vitest';

import { ForwardRows, PlacedRows } from './rows.svelte';

const numbers = (from: number, size: number) => Array.from({ length: size }, (_, index) => from + index);

it('only what is in sight or near is fetched, and once', async () => {
  const fetch = vi.fn((skip: number, size: number) => Promise.resolve({ rows: numbers(skip, size), total: 30_000 }));
  const rows = new PlacedRows<number>(fetch);
  rows.restart();
  await vi.waitFor(() => expect(rows.length).toBe(30_000));
  rows.need(25_000, 25_040);
  rows.need(25_001, 25_041);
  expect(rows.at(25_010)).toBeUndefined();
  await vi.waitFor(() => expect(rows.at(25_010)).toBe(25_010));
  expect(fetch.mock.calls.map(([skip]) => skip)).toEqual([0, 24_900, 25_000, 25_100]);
  // What is near waits until it is in sight.
  rows.refresh();
  await vi.waitFor(() => expect(fetch).toHaveBeenCalledTimes(5));
  expect(fetch.mock.calls.at(-1)?.[0]).toBe(25_000);
  expect([rows.at(0), rows.at(25_110)]).toEqual([undefined, 25_110]);
});

it('what flies past is not fetched', async () => {
  const fetch = vi.fn((skip: number, size: number) => Promise.resolve({ rows: numbers(skip, size), total: 30_000 }));
  const rows = new PlacedRows<number>(fetch);
  rows.restart();
  await vi.waitFor(() => expect(rows.length).toBe(30_000));
  for (const first of [5_000, 10_000, 15_000, 25_000]) rows.need(first, first + 40);
  await vi.waitFor(() => expect(rows.at(25_010)).toBe(25_010));
  expect(fetch.mock.calls.map(([skip]) => skip)).toEqual([0, 24_900, 25_000, 25_100]);
});

it('an answer to an earlier question is not shown', async () => {
  let answer: ((part: { rows: string[]; total: number }) => void)[] = [];
  const rows = new PlacedRows<string>(() => new Promise((done) => answer.push(done)));
  rows.restart();
  const [late] = answer;
  answer = [];
  rows.restart();
  late?.({ rows: ['old'], total: 1 });
  answer[0]?.({ rows: ['new', 'newer'], total: 2 });
  await vi.waitFor(() => expect(rows.length).toBe(2));
  expect(rows.at(0)).toBe('new');
});

it('a list that goes forward grows at its end, and a fresh first page goes on top', async () => {
  let newest = 0;
  const rows = new ForwardRows<number>((token, size) => {
    const from = token === '' ? newest : Number(token);
    // Pages of two; what is read anew comes whole.
    const rows = size === 100 && token === '' && newest === 1 ? [1, 0, -1, -2] : [from, from - 1];
    return Promise.resolve({ rows, next: from > -4 ? String((rows.at(-1) ?? 0) - 1) : '' });
  });
  rows.restart();
  await vi.waitFor(() => expect(rows.length).toBe(3));
  rows.need(0, 2);
  await vi.waitFor(() => expect(rows.known.count).toBe(4));
  newest = 1;
  await rows.refresh((a, b) => a === b);
  expect([0, 1, 2, 3].map((index) => rows.at(index))).toEqual([1, 0, -1, -2]);
  rows.need(0, 4);
  await vi.waitFor(() => expect(rows.at(4)).toBe(-3));
});

it('what fits no longer is gone with the next look', async () => {
  let open = [5, 4, 3, 2, 1];
  const rows = new ForwardRows<number>(() => Promise.resolve({ rows: open, next: '' }));
  rows.restart();
  await vi.waitFor(() => expect(rows.known.count).toBe(5));
  open = [5, 3, 1];
  await rows.refresh((a, b) => a === b);
  expect([0, 1, 2, 3].map((index) => rows.at(index))).toEqual([5, 3, 1, undefined]);
});
