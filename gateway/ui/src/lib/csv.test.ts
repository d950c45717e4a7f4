import { expect, it } from 'vitest';

import { csv } from './csv';

it('quotes what needs it and defuses formulas', () => {
  expect(csv(['name', 'bytes'], [['a,"b"', '1'], ['=cmd()', '-5'], ['line\nbreak', '']])).toBe(
    'name,bytes\r\n"a,""b""",1\r\n\'=cmd(),-5\r\n"line\nbreak",\r\n',
  );
});
