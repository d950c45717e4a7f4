/** What was promised, and what held. */

import type { Coverage } from '../gen/memharvest/predictor/v1/forecast_pb';
import { span } from './format';
import { seconds } from './wire';

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
