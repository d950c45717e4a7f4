import { create } from '@bufbuild/protobuf';
import { expect, it } from 'vitest';

import { BoundaryValuesSchema, Fairness } from '../gen/memharvest/registry/v1/boundary_service_pb';
import { FIELDS, differences, parseSpan, read, scopeError, scopeRank, shown, written } from './boundaries';

const values = create(BoundaryValuesSchema, {
  headroomRatio: 0.07,
  floorBytes: 3n << 29n,
  targetViolationRate: 0.005,
  horizon: { seconds: 900n, nanos: 0 },
  fairness: Fairness.CAPPED,
  excluded: false,
  errorBudgetPer1000VmDays: 2.5,
});

it('what a form shows is read back as the same values', () => {
  const texts = Object.fromEntries(FIELDS.map((field) => [field.name, written(values, field)]));
  const back = read(texts);
  expect(back.errors).toEqual({});
  expect(create(BoundaryValuesSchema, back.values)).toEqual(values);
});

it('fields are called as in the contract', () => {
  const names = BoundaryValuesSchema.fields.map((field) => field.name).sort();
  expect(FIELDS.map((field) => field.wire).sort()).toEqual(names);
});

it('every wrong text is told with an example', () => {
  const { errors } = read({ headroomRatio: 'much', floorBytes: '2 gallons', horizon: 'soon', fairness: 'fair', excluded: 'perhaps' });
  expect(Object.keys(errors).sort()).toEqual(['excluded', 'fairness', 'floorBytes', 'headroomRatio', 'horizon']);
  expect(errors.floorBytes).toContain('512 MiB');
});

it('absent and no are two things', () => {
  const excluded = FIELDS.find((field) => field.name === 'excluded');
  expect(excluded && shown(values, excluded)).toBe('no');
  expect(excluded && shown({}, excluded)).toBeUndefined();
  expect(differences({}, values).map((one) => one.field.name)).toContain('excluded');
  expect(differences(values, values)).toEqual([]);
});

it('spans and scopes are checked before they are sent', () => {
  expect(parseSpan('1h 30m')).toBe(5400);
  expect(parseSpan('15')).toBeUndefined();
  expect(scopeError('fleet')).toBe('');
  expect(scopeError('group:rack=1')).toBe('');
  expect(scopeError('vm:web-1')).not.toBe('');
  expect(['vm:x', 'fleet', 'host:a', 'group:a=b'].sort((a, b) => scopeRank(a) - scopeRank(b))).toEqual(['fleet', 'group:a=b', 'host:a', 'vm:x']);
});
