import { create } from '@bufbuild/protobuf';
import { expect, it } from 'vitest';

import { LimitedBy, TermName, WaterfallSchema } from '../gen/memharvest/predictor/v1/forecast_pb';
import { steps } from './waterfall';

it('ends at the result and leaves out what takes nothing', () => {
  const waterfall = create(WaterfallSchema, {
    startBytes: 100n,
    terms: [
      { name: TermName.PREDICTED, bytes: 60n, limitedBy: LimitedBy.PREDICTION, detail: 'peak' },
      { name: TermName.GROWTH, bytes: 0n },
      { name: TermName.HEADROOM, bytes: 15n, limitedBy: LimitedBy.HEADROOM_BYTES },
    ],
    resultBytes: 25n,
  });
  const found = steps(waterfall);
  expect(found.map((step) => [step.name, step.size, step.left])).toEqual([
    ['Forecast', 60, 40],
    ['Headroom', 15, 25],
  ]);
  expect(found.at(-1)?.left).toBe(Number(waterfall.resultBytes));
  expect(found[1]?.why).toBe('The least safety margin that is kept');
});
