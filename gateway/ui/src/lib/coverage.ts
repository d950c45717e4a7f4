/** What was promised, and what held. */

import type { Coverage } from '../gen/memharvest/predictor/v1/forecast_pb';
import { span } from './format';
import { seconds } from './wire';
import { signal } from './words';

export interface Promised {
  name: string;
  signal: number;
  horizon: string;
  /** Share that was to hold. */
  promised: number;
  /** Share that held. */
  held: number;
  judged: number;
}

/** What stands in the CSV. */
export const PROMISE_COLUMNS = [
  { label: 'Forecast of', text: (one: Promised) => signal(one.signal) },
  { label: 'Horizon', text: (one: Promised) => one.horizon },
  { label: 'Promised', text: (one: Promised) => String(one.promised) },
  { label: 'Held', text: (one: Promised) => String(one.held) },
  { label: 'Judged', text: (one: Promised) => String(one.judged) },
];

/** One line for every signal, horizon and target of which forecasts were judged; most judged first. */
export function promises(coverage: Coverage[]): Promised[] {
  return coverage
    .filter((part) => part.judged > 0n)
    .map((part) => ({
      name: `${part.signal} ${seconds(part.horizon)} ${part.targetViolationRate}`,
      signal: part.signal,
      horizon: span(seconds(part.horizon) ?? 0),
      promised: 1 - part.targetViolationRate,
      held: Number(part.held) / Number(part.judged),
      judged: Number(part.judged),
    }))
    .sort((a, b) => b.judged - a.judged || a.name.localeCompare(b.name));
}
