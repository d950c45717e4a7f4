import { expect, it } from 'vitest';

import { changes } from './audit';

it('tells the fields that differ, however deep', () => {
  const beforeJson = '{"version":1,"values":{"floor_bytes":5,"excluded":null},"same":"x"}';
  const afterJson = '{"version":2,"values":{"excluded":true},"same":"x"}';
  expect(changes({ beforeJson, afterJson })).toEqual([
    { field: 'values.excluded', before: '', after: 'true' },
    { field: 'values.floor_bytes', before: '5', after: '' },
    { field: 'version', before: '1', after: '2' },
  ]);
});

it('what was made has no before, and what is no JSON is shown as it is', () => {
  expect(changes({ beforeJson: '', afterJson: '{"a":1}' })).toEqual([{ field: 'a', before: '', after: '1' }]);
  expect(changes({ beforeJson: 'odd', afterJson: '' })).toEqual([{ field: 'value', before: 'odd', after: '' }]);
});
