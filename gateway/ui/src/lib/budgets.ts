/** Error budgets, as the registry works them out from its ledger. */

import type { ErrorBudgetStanding } from '../gen/memharvest/registry/v1/violation_service_pb';

export interface Budget {
  scope: string;
  violations: number;
  allowed: number;
  /** Share that is left, 0 to 1. */
  remaining: number;
}

/** Those that are spent most come first. */
export function budgetsOf(standings: Pick<ErrorBudgetStanding, 'scope' | 'violations' | 'allowed' | 'remainingRatio'>[]): Budget[] {
  return standings
    .map(({ scope, violations, allowed, remainingRatio }) => ({ scope, violations: Number(violations), allowed, remaining: remainingRatio }))
    .sort((a, b) => a.remaining - b.remaining || a.scope.localeCompare(b.scope));
}
