import { create } from '@bufbuild/protobuf';
import { expect, it } from 'vitest';

import { SimulateBoundaryResponseSchema } from '../gen/memharvest/predictor/v1/predictor_service_pb';
import { effects, verdict } from './simulation';

const GIB = 1n << 30n;

it('gain and cost are one sentence', () => {
  const result = create(SimulateBoundaryResponseSchema, {
    total: { harvestBeforeBytes: 10n * GIB, harvestAfterBytes: 48n * GIB, violationsBefore: 3n, violationsAfter: 5n },
  });
  expect(verdict(result, 30)).toEqual({ harvest: Number(38n * GIB), violations: 2, text: '2 more violations in 30 days' });
  expect(verdict(create(SimulateBoundaryResponseSchema), 1).text).toBe('no change of violations in a day');
  const better = create(SimulateBoundaryResponseSchema, { total: { violationsBefore: 1n } });
  expect(verdict(better, 7).text).toBe('1 fewer violation in 7 days');
});

it('machines with more violations come first, those without a change not at all', () => {
  const { vms } = create(SimulateBoundaryResponseSchema, {
    vms: [
      { vmId: 'same', harvestBeforeBytes: GIB, harvestAfterBytes: GIB },
      { vmId: 'gains', harvestBeforeBytes: GIB, harvestAfterBytes: 3n * GIB },
      { vmId: 'breaks', violationsAfter: 1n },
      { vmId: 'loses', harvestBeforeBytes: 9n * GIB, harvestAfterBytes: GIB },
    ],
  });
  expect(effects(vms).map((one) => one.vmId)).toEqual(['breaks', 'loses', 'gains']);
});
