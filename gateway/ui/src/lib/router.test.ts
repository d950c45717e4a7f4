import { expect, it } from 'vitest';

import { hostLink, link, placeOf } from './router.svelte';

it('knows every page by its path', () => {
  expect(placeOf('/')).toEqual({ page: 'fleet', id: '' });
  expect(placeOf('/vms')).toEqual({ page: 'vms', id: '' });
  expect(placeOf('/vms/abc/')).toEqual({ page: 'vm', id: 'abc' });
  expect(placeOf(hostLink('rack 1/node'))).toEqual({ page: 'host', id: 'rack 1/node' });
  expect(placeOf('/hosts/%ZZ')).toEqual({ page: 'host', id: '%ZZ' });
});

it('leaves out of an address what says nothing', () => {
  expect(link('/vms', { host: 'a', q: '' })).toBe('/vms?host=a');
  expect(link('/vms', {})).toBe('/vms');
});
