/** Figures and times as people read them: the same everywhere. What is not known is a dash. */

export const UNKNOWN = '–';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;

/** Bytes in binary units: three digits at least from a gibibyte on, none after the point below. */
export function bytes(value: bigint | number | undefined): string {
  if (value === undefined) return UNKNOWN;
  let size = Number(value);
  const sign = size < 0 ? '−' : '';
  size = Math.abs(size);
  let unit = 0;
  while (size >= 1024 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  // 1023.97 GiB is written 1.00 TiB, never 1024.0 GiB.
  if (unit < UNITS.length - 1 && Number(size.toFixed(digits(unit))) >= 1024) {
    size /= 1024;
    unit += 1;
  }
  return `${sign}${size.toFixed(digits(unit))} ${UNITS[unit]}`;
}

function digits(unit: number): number {
  return unit >= 4 ? 2 : unit === 3 ? 1 : 0;
}

/** Bytes with their sign, as a change. */
export function bytesChange(value: bigint | number): string {
  const size = Number(value);
  return size > 0 ? `+${bytes(size)}` : bytes(size);
}

/** What somebody wrote as a size: `512 MiB`, `1.5G`, `4096`. `undefined`: it is none. */
export function parseBytes(text: string): bigint | undefined {
  const found = /^\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?\s*$/i.exec(text);
  if (!found) return undefined;
  const power = ' kmgtp'.indexOf((found[2] || ' ').toLowerCase());
  const size = Number(found[1]) * 1024 ** power;
  return Number.isSafeInteger(Math.round(size)) ? BigInt(Math.round(size)) : undefined;
}

/** A whole number with its thousands apart. */
export function count(value: bigint | number | undefined): string {
  return value === undefined ? UNKNOWN : Number(value).toLocaleString('en-GB');
}

/** A share as a percentage. */
export function percent(ratio: number | undefined, decimals = 1): string {
  return ratio === undefined || !Number.isFinite(ratio) ? UNKNOWN : `${(ratio * 100).toFixed(decimals)} %`;
}

const SPANS: [number, string][] = [
  [86_400, 'd'],
  [3600, 'h'],
  [60, 'min'],
  [1, 's'],
];

/** A length of time in its two largest units. */
export function span(seconds: number): string {
  let rest = Math.round(Math.abs(seconds));
  if (rest < 1) return '0 s';
  const parts: string[] = [];
  for (const [size, name] of SPANS) {
    if (rest >= size && parts.length < 2) {
      parts.push(`${Math.floor(rest / size)} ${name}`);
      rest %= size;
    } else if (parts.length > 0) {
      break;
    }
  }
  return parts.join(' ');
}

/** A time by the distance from now, both in milliseconds since 1970. `tick`: how far behind `now` may be by the clock that it was read from. */
export function relative(at: number, now: number, tick = 0): string {
  const seconds = (now - at) / 1000;
  if (Math.abs(seconds) < 1.5 || (at > now && at - now <= tick)) return 'now';
  const largest = SPANS.find(([size]) => Math.abs(seconds) >= size) ?? [1, 's'];
  const text = `${Math.floor(Math.abs(seconds) / largest[0])} ${largest[1]}`;
  return seconds > 0 ? `${text} ago` : `in ${text}`;
}

const ABSOLUTE = new Intl.DateTimeFormat('en-GB', {
  year: 'numeric',
  month: 'short',
  day: 'numeric',
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  timeZoneName: 'short',
});

/** A time in full, in the reader's own zone. */
export function absolute(at: number): string {
  return ABSOLUTE.format(at);
}

/** The first part of a UUID: enough to tell machines apart on a screen. */
export function shortId(id: string): string {
  return /^[0-9a-f]{8}-/.test(id) ? id.slice(0, 8) : id;
}
