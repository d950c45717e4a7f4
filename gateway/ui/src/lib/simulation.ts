/** What a simulation says, in a sentence and machine by machine. */

import type { SimulateBoundaryResponse, SimulatedEffect } from '../gen/memharvest/predictor/v1/predictor_service_pb';

type Effect = Pick<SimulatedEffect, 'vmId' | 'vmName' | 'hostId' | 'harvestBeforeBytes' | 'harvestAfterBytes' | 'violationsBefore' | 'violationsAfter'>;

/** The whole effect: bytes gained, violations more, and these in words. */
export function verdict(result: Pick<SimulateBoundaryResponse, 'total'>, days: number): { harvest: number; violations: number; text: string } {
  const { total } = result;
  const harvest = Number((total?.harvestAfterBytes ?? 0n) - (total?.harvestBeforeBytes ?? 0n));
  const violations = Number((total?.violationsAfter ?? 0n) - (total?.violationsBefore ?? 0n));
  const number = Math.abs(violations);
  const noun = number === 1 ? 'violation' : 'violations';
  const text = violations === 0 ? 'no change of violations' : `${number} ${violations > 0 ? 'more' : 'fewer'} ${noun}`;
  return { harvest, violations, text: `${text} in ${days === 1 ? 'a day' : `${days} days`}` };
}

export interface MachineEffect {
  vmId: string;
  name: string;
  hostId: string;
  after: number;
  change: number;
  violations: number;
}

/** Machines that something changes for: those with more violations first, then by how much their harvest changes. */
export function effects(vms: Effect[]): MachineEffect[] {
  return vms
    .map((one) => ({
      vmId: one.vmId,
      name: one.vmName || one.vmId,
      hostId: one.hostId,
      after: Number(one.harvestAfterBytes),
      change: Number(one.harvestAfterBytes - one.harvestBeforeBytes),
      violations: Number(one.violationsAfter - one.violationsBefore),
    }))
    .filter((one) => one.change !== 0 || one.violations !== 0)
    .sort((a, b) => b.violations - a.violations || Math.abs(b.change) - Math.abs(a.change) || a.vmId.localeCompare(b.vmId));
}
