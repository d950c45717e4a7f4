/** Boundaries as people read and write them: fields, scopes, and the differences between two sets of values. */

import { Signal } from '../gen/memharvest/collector/v1/reading_pb';
import { type BoundaryValues, Fairness, HostBasis } from '../gen/memharvest/registry/v1/boundary_service_pb';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { BoundaryValuesSchema } from '../gen/memharvest/registry/v1/boundary_service_pb';
import { bytes, parseBytes, percent, span } from './format';
import { duration, seconds } from './wire';
import { fairness, hostBasis, key, signal } from './words';

export type Values = MessageInitShape<typeof BoundaryValuesSchema>;
type Name = Exclude<keyof BoundaryValues, '$typeName' | '$unknown'>;

export interface Field {
  name: Name;
  /** As the contract calls it. */
  wire: string;
  label: string;
  help: string;
  kind: 'ratio' | 'bytes' | 'span' | 'number' | 'choice';
  options?: [value: string, text: string][];
  /** What holds where nobody has set it. */
  unset: string;
}

const UNSET: Partial<Record<Name, string>> = { signal: 'both', errorBudgetPer1000VmDays: 'none', excluded: 'no' };

const field = (name: Name, kind: Field['kind'], label: string, help: string, options?: Field['options']): Field => ({
  name,
  wire: name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`).replace(/1000/, '_1000'),
  label,
  help,
  kind,
  unset: UNSET[name] ?? 'no limit',
  ...(options ? { options } : {}),
});

export const FIELDS: Field[] = [
  field('headroomRatio', 'ratio', 'Headroom, share', 'Kept above the forecast, as a share of it'),
  field('headroomBytes', 'bytes', 'Headroom, at least', 'Kept above the forecast whatever the share comes to'),
  field('floorBytes', 'bytes', 'Floor', 'Never leave a machine less than this'),
  field('maxHarvestRatio', 'ratio', 'Harvest at most', 'Greatest share of the allocation that may be harvested'),
  field('upperUsageBytes', 'bytes', 'Usage above', 'Usage above this is a violation of the boundary'),
  field('lowerUsageBytes', 'bytes', 'Usage below', 'Usage below this is a violation of the boundary'),
  field('targetViolationRate', 'ratio', 'Forecasts exceeded', 'Share of forecasts that may be exceeded'),
  field('horizon', 'span', 'Horizon', 'How far ahead forecasts reach, such as 15m'),
  field('fairness', 'choice', 'Fairness', 'How the share that may be exceeded is spread over machines', [1, 2, 3].map((value) => [key(Fairness, value), fairness(value)])),
  field('signal', 'choice', 'Signal', 'Only this one is harvested', [1, 2].map((value) => [key(Signal, value), signal(value)])),
  field('hostBasis', 'choice', 'Host’s harvest', 'What leases draw on', [[key(HostBasis, 1), 'sum of its machines'], [key(HostBasis, 2), 'pooled forecast']]),
  field('errorBudgetPer1000VmDays', 'number', 'Error budget', 'Promise violations in 1,000 machine-days; spent: harvest pauses'),
  field('excluded', 'choice', 'Excluded', 'Nothing is harvested', [['yes', 'yes'], ['no', 'no']]),
];

const ENUMS: Partial<Record<Name, Record<number, string>>> = { fairness: Fairness, signal: Signal, hostBasis: HostBasis } as never;

/** How a value reads; `undefined`: the boundary says nothing of it. */
export function shown(values: Partial<BoundaryValues> | undefined, of: Field): string | undefined {
  const value = values?.[of.name] as never as number | bigint | boolean | BoundaryValues['horizon'] | undefined;
  if (value === undefined) return undefined;
  if (of.kind === 'ratio') return percent(Number(value), 2).replace(/\.?0+ %$/, ' %');
  if (of.kind === 'bytes') return bytes(value as bigint);
  if (of.kind === 'span') return span(seconds(value as BoundaryValues['horizon']) ?? 0);
  if (of.kind === 'number') return String(value);
  if (of.name === 'excluded') return value ? 'yes' : 'no';
  return of.name === 'hostBasis' ? hostBasis(value as number) : of.name === 'signal' ? signal(value as number) : fairness(value as number);
}

/** What stands in a form for a value: what is read back as the same value. */
export function written(values: Partial<BoundaryValues> | undefined, of: Field): string {
  const value = values?.[of.name] as never as number | bigint | boolean | BoundaryValues['horizon'] | undefined;
  if (value === undefined) return '';
  if (of.kind === 'ratio') return String(Number((Number(value) * 100).toPrecision(12)));
  if (of.kind === 'bytes') return exactBytes(value as bigint);
  if (of.kind === 'span') return `${seconds(value as BoundaryValues['horizon']) ?? 0}s`.replace(/^(\d+)s$/, (_, text: string) => shortSpan(Number(text)));
  if (of.kind === 'number') return String(value);
  if (of.name === 'excluded') return value ? 'yes' : 'no';
  return key(ENUMS[of.name] ?? {}, value as number);
}

function exactBytes(value: bigint): string {
  const units: [bigint, string][] = [[1n << 40n, 'TiB'], [1n << 30n, 'GiB'], [1n << 20n, 'MiB'], [1n << 10n, 'KiB']];
  const unit = units.find(([size]) => value >= size && value % size === 0n);
  return unit ? `${value / unit[0]} ${unit[1]}` : String(value);
}

function shortSpan(total: number): string {
  const units: [number, string][] = [[86_400, 'd'], [3600, 'h'], [60, 'm']];
  const unit = units.find(([size]) => total >= size && total % size === 0);
  return unit ? `${total / unit[0]}${unit[1]}` : `${total}s`;
}

/** Seconds of a length of time such as `15m`; `undefined`: it is none. */
export function parseSpan(text: string): number | undefined {
  const sizes: Record<string, number> = { s: 1, m: 60, min: 60, h: 3600, d: 86_400 };
  const parts = [...text.trim().matchAll(/(\d+(?:\.\d+)?)\s*(min|[smhd])\s*/g)];
  if (parts.length === 0 || parts.map(([whole]) => whole).join('') !== text.trim()) return undefined;
  return parts.reduce((sum, [, number, unit]) => sum + Number(number) * (sizes[unit ?? ''] ?? 0), 0);
}

/** A form's texts as values, and what is wrong with which field. */
export function read(texts: Record<string, string>): { values: Values; errors: Record<string, string> } {
  const values: Record<string, unknown> = {};
  const errors: Record<string, string> = {};
  for (const of of FIELDS) {
    const text = (texts[of.name] ?? '').trim();
    if (text === '') continue;
    const value = parsed(of, text);
    if (value === undefined) errors[of.name] = EXAMPLES[of.kind];
    else values[of.name] = value;
  }
  return { values: values as Values, errors };
}

const EXAMPLES: Record<Field['kind'], string> = {
  ratio: 'write a percentage, such as 5 or 0.5',
  bytes: 'write a size, such as 512 MiB or 2 GiB',
  span: 'write a length of time, such as 15m or 1h',
  number: 'write a number, such as 2.5',
  choice: 'choose one',
};

function parsed(of: Field, text: string): unknown {
  if (of.kind === 'bytes') return parseBytes(text);
  if (of.kind === 'span') {
    const total = parseSpan(text);
    return total === undefined ? undefined : duration(total);
  }
  if (of.name === 'excluded') return text === 'yes' ? true : text === 'no' ? false : undefined;
  if (of.kind === 'choice') {
    const found = Object.entries(ENUMS[of.name] ?? {}).find(([, name]) => typeof name === 'string' && name.toLowerCase() === text);
    return found ? Number(found[0]) : undefined;
  }
  const number = Number(text.replace(/\s*%$/, ''));
  if (!Number.isFinite(number) || number < 0) return undefined;
  return of.kind === 'ratio' ? number / 100 : number;
}

export interface Difference {
  field: Field;
  before: string | undefined;
  after: string | undefined;
}

/** Fields that read otherwise. */
export function differences(before: Partial<BoundaryValues> | undefined, after: Partial<BoundaryValues> | undefined): Difference[] {
  return FIELDS.map((of) => ({ field: of, before: shown(before, of), after: shown(after, of) })).filter((one) => one.before !== one.after);
}

/** What a scope is called. */
export function scopeName(scope: string): string {
  if (scope === 'fleet') return 'The whole fleet';
  const [kind = '', rest = ''] = [scope.slice(0, scope.indexOf(':')), scope.slice(scope.indexOf(':') + 1)];
  return { group: `Group ${rest}`, host: `Host ${rest}`, vm: `Machine ${rest}` }[kind] ?? scope;
}

/** What is wrong with a scope; empty: nothing. */
export function scopeError(scope: string): string {
  if (scope === 'fleet' || /^host:.+/.test(scope) || /^group:[^=]+=.*$/.test(scope)) return '';
  if (/^vm:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(scope)) return '';
  return 'write fleet, group:<label>=<value>, host:<id> or vm:<uuid>';
}

/** From the widest to the narrowest. */
export function scopeRank(scope: string): number {
  return ['fleet', 'group', 'host', 'vm'].indexOf(scope.split(':')[0] ?? '');
}
