import { create } from '@bufbuild/protobuf';
import { expect, it } from 'vitest';

import { Quality } from '../gen/memharvest/collector/v1/reading_pb';
import { CoverageSchema, LimitedBy, TermName } from '../gen/memharvest/predictor/v1/forecast_pb';
import { budgetsOf } from './budgets';
import { promises } from './coverage';
import { key, limit, quality, term, valueOf } from './words';

it('a promise of which nothing was judged is none', () => {
  const horizon = { seconds: 900n, nanos: 0 };
  const of = (signal: number, judged: bigint, held: bigint) => create(CoverageSchema, { signal, horizon, targetViolationRate: 0.01, judged, held });
  const found = promises([of(1, 0n, 0n), of(2, 200n, 197n)]);
  expect(found).toHaveLength(1);
  expect(found[0]).toMatchObject({ promised: 0.99, held: 0.985, judged: 200, horizon: '15 min' });
});

it('the budget that is spent most comes first', () => {
  const standing = (scope: string, remainingRatio: number) => ({ scope, violations: 1n, allowed: 2, remainingRatio });
  const found = budgetsOf([standing('fleet', 0.5), standing('host:a', 0.9), standing('group:a=b', 0)]);
  expect(found.map((one) => one.scope)).toEqual(['group:a=b', 'fleet', 'host:a']);
});

it('every value of the contract has words of its own', () => {
  const values = (names: object) => Object.values(names).filter((value): value is number => typeof value === 'number' && value > 0);
  for (const [names, say] of [
    [LimitedBy, limit],
    [TermName, term],
    [Quality, (value: number) => quality(value).text],
  ] as [object, (value: number) => string][]) {
    const texts = values(names).map(say);
    expect(new Set(texts).size).toBe(texts.length);
    expect(texts.some((text) => /not said|^other$/i.test(text))).toBe(false);
  }
});

it('a filter in an address is the wire’s own word', () => {
  expect(key(Quality, Quality.NO_BALLOON)).toBe('no_balloon');
  expect(valueOf(Quality, 'no_balloon')).toBe(Quality.NO_BALLOON);
  expect(valueOf(Quality, 'nothing')).toBe(0);
  expect(key(Quality, 0)).toBe('');
});
