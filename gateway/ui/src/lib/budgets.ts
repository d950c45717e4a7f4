/** Error budgets, as the predictors have counted them. */

import type { Host } from '../gen/memharvest/predictor/v1/forecast_pb';

export interface Budget {
  scope: string;
  violations: number;
  allowed: number;
  /** Share that is left, 0 to 1. */
  remaining: number;
}

/** One line a scope. Hosts of one predictor tell the same numbers, so of each scope the one that is spent most is shown. */
export function budgetsOf(hosts: Pick<Host, 'errorBudgets'>[]): Budget[] {
  const found = new Map<string, Budget>();
  for (const { scope, violations, allowed, remainingRatio } of hosts.flatMap((host) => host.errorBudgets)) {
    const known = found.get(scope);
    if (!known || remainingRatio < known.remaining) {
      found.set(scope, { scope, violations: Number(violations), allowed, remaining: remainingRatio });
    }
  }
  return [...found.values()].sort((a, b) => a.remaining - b.remaining || a.scope.localeCompare(b.scope));
}
