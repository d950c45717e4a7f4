import { expect, it } from 'vitest';

import { columns, joined, whole } from './series';

it('a gap is not bridged, and what is not known is null', () => {
  const points = [
    { at: 0, values: [1, undefined] },
    { at: 1000, values: [2, 5] },
    { at: 9000, values: [3, 6] },
  ];
  expect(columns(points, 2, 2000)).toEqual([
    [0, 1, 5, 9],
    [1, 2, null, 3],
    [null, 5, null, 6],
  ]);
});

it('times only grow', () => {
  const points = [3, 1, 4].map((at) => ({ at: at * 1000, values: [at] }));
  expect(columns(points, 1, 10_000)).toEqual([
    [3, 4],
    [3, 4],
  ]);
});

it('live points follow the history', () => {
  const point = (at: number) => ({ at, values: [at] });
  expect(joined([point(1), point(5)], [point(4), point(6)]).map(({ at }) => at)).toEqual([1, 5, 6]);
  expect(joined([], [point(4)])).toEqual([point(4)]);
});

it('a window that goes on is left out', () => {
  const windows = [0, 300, 600].map((start) => ({ start, length: 300 }));
  expect(whole(windows, 700)).toHaveLength(2);
});
