/** How far back charts look. */

export interface Range {
  key: string;
  /** Seconds. */
  length: number;
  /** Windows are merged to so many seconds; 0: as they are stored. */
  step: number;
}

export const RANGES: Range[] = [
  { key: '1h', length: 3600, step: 0 },
  { key: '6h', length: 6 * 3600, step: 0 },
  { key: '24h', length: 86_400, step: 0 },
  { key: '7d', length: 7 * 86_400, step: 3600 },
  { key: '30d', length: 30 * 86_400, step: 6 * 3600 },
];

/** The range of that name; a day where there is none. */
export function rangeOf(key: string): Range {
  return RANGES.find((range) => range.key === key) ?? { key: '24h', length: 86_400, step: 0 };
}
