import { createHash } from 'node:crypto';

import { expect, it } from 'vitest';

import { challengeOf } from './oidc';

it('the challenge is the hash of the verifier, as RFC 7636 writes it', async () => {
  const verifier = 'a-verifier-of-some-length_and~kind.0123456789';
  expect(await challengeOf(verifier)).toBe(createHash('sha256').update(verifier).digest('base64url'));
});
