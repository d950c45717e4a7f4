/** The steps of a waterfall as they are drawn. */

import type { Waterfall } from '../gen/memharvest/predictor/v1/forecast_pb';
import { limit, term } from './words';

export interface Step {
  name: string;
  size: number;
  /** What is left after it: where its bar begins. */
  left: number;
  why: string;
  detail: string;
}

/** The steps that take something, in order. */
export function steps(waterfall: Pick<Waterfall, 'startBytes' | 'terms'>): Step[] {
  let left = Number(waterfall.startBytes);
  const found: Step[] = [];
  for (const { name, bytes, limitedBy, detail } of waterfall.terms) {
    if (bytes === 0n) continue;
    left -= Number(bytes);
    found.push({ name: term(name), size: Number(bytes), left, why: limit(limitedBy), detail });
  }
  return found;
}
