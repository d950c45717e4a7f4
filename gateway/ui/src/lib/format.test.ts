import { describe, expect, it } from 'vitest';

import { UNKNOWN, bytes, bytesChange, parseBytes, percent, relative, shortId, span } from './format';

describe('bytes', () => {
  it('are binary, and never 1024 of a unit', () => {
    expect(bytes(0)).toBe('0 B');
    expect(bytes(64n << 20n)).toBe('64 MiB');
    expect(bytes(3n << 29n)).toBe('1.5 GiB');
    expect(bytes((1n << 40n) - 1n)).toBe('1.00 TiB');
    expect(bytes(290.5 * 2 ** 30)).toBe('290.5 GiB');
  });

  it('that are not known are no zero', () => {
    expect(bytes(undefined)).toBe(UNKNOWN);
    expect(percent(undefined)).toBe(UNKNOWN);
  });

  it('as a change have a sign', () => {
    expect(bytesChange(38n << 30n)).toBe('+38.0 GiB');
    expect(bytesChange(-(1n << 30n))).toBe('−1.0 GiB');
    expect(bytesChange(0)).toBe('0 B');
  });

  it('are read as people write them', () => {
    expect(parseBytes('512 MiB')).toBe(512n << 20n);
    expect(parseBytes('1.5g')).toBe(3n << 29n);
    expect(parseBytes('4096')).toBe(4096n);
    expect(parseBytes('64mb')).toBe(64n << 20n);
    for (const wrong of ['', 'much', '-1', '1 GiB 2', '9999999 PiB']) expect(parseBytes(wrong)).toBeUndefined();
  });

  it('are the same after being written and read', () => {
    for (const size of [0n, 1n << 20n, 3n << 29n, 7n << 30n]) expect(parseBytes(bytes(size))).toBe(size);
  });
});

describe('times', () => {
  it('are told by their distance', () => {
    const now = Date.UTC(2026, 0, 1);
    expect(relative(now - 500, now)).toBe('now');
    expect(relative(now - 90_000, now)).toBe('1 min ago');
    expect(relative(now + 7_200_000, now)).toBe('in 2 h');
    expect(relative(now + 420_000, now, 1_200_000)).toBe('now');
    expect(relative(now - 420_000, now, 1_200_000)).toBe('7 min ago');
  });

  it('have two units at most', () => {
    expect(span(0.2)).toBe('0 s');
    expect(span(90)).toBe('1 min 30 s');
    expect(span(86_400 + 30)).toBe('1 d');
    expect(span(3 * 86_400 + 7200)).toBe('3 d 2 h');
  });
});

it('a UUID is shortened and a name is not', () => {
  expect(shortId('0c5f6d1e-0000-4000-8000-000000000000')).toBe('0c5f6d1e');
  expect(shortId('replay-1')).toBe('replay-1');
});
