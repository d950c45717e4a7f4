/** An identity provider of a page: discovery, keys, the authorization code flow with PKCE, one person who is signed in already. */

import { createHash, generateKeyPairSync, randomUUID, sign } from 'node:crypto';
import { createServer } from 'node:http';

export interface Provider {
  url: string;
  /** How often its keys were asked for. */
  asked: () => number;
  /** How the last code was redeemed. */
  redeemed: () => { clientSecret: string | null; verified: boolean } | undefined;
  stop: () => Promise<void>;
}

export async function startProvider(): Promise<Provider> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'one', alg: 'ES256', use: 'sig' };
  const challenges = new Map<string, string>();
  let asked = 0;
  let redeemed: ReturnType<Provider['redeemed']>;
  let url = '';

  const token = () => {
    const now = Math.floor(Date.now() / 1000);
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const text = `${part({ alg: 'ES256', kid: 'one', typ: 'JWT' })}.${part({ iss: url, aud: 'memharvest', sub: 'olga', roles: ['operator'], exp: now + 600, nbf: now - 10 })}`;
    return `${text}.${sign('sha256', Buffer.from(text), { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
  };

  const server = createServer(async (request, response) => {
    const asking = new URL(request.url ?? '/', url);
    const answer = (body: object) => response.setHeader('content-type', 'application/json').end(JSON.stringify(body));
    if (asking.pathname === '/.well-known/openid-configuration') {
      answer({ issuer: url, jwks_uri: `${url}/keys`, authorization_endpoint: `${url}/authorize`, token_endpoint: `${url}/token` });
    } else if (asking.pathname === '/keys') {
      asked += 1;
      answer({ keys: [jwk] });
    } else if (asking.pathname === '/authorize') {
      const code = randomUUID();
      challenges.set(code, asking.searchParams.get('code_challenge') ?? '');
      const back = new URL(asking.searchParams.get('redirect_uri') ?? '');
      back.searchParams.set('code', code);
      back.searchParams.set('state', asking.searchParams.get('state') ?? '');
      response.writeHead(302, { location: back.href }).end();
    } else if (asking.pathname === '/token') {
      let text = '';
      for await (const chunk of request) text += String(chunk);
      const form = new URLSearchParams(text);
      const challenge = createHash('sha256').update(form.get('code_verifier') ?? '').digest('base64url');
      const verified = challenges.get(form.get('code') ?? '') === challenge;
      redeemed = { clientSecret: form.get('client_secret'), verified };
      // The access token is for somebody else, as with providers whose access tokens nobody else can read.
      if (verified) answer({ access_token: 'opaque', id_token: token(), token_type: 'Bearer' });
      else response.writeHead(400).end('{}');
    } else {
      response.writeHead(404).end();
    }
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const address = server.address();
  url = `http://127.0.0.1:${address && typeof address === 'object' ? address.port : 0}`;
  return {
    url,
    asked: () => asked,
    redeemed: () => redeemed,
    stop: () => new Promise((done) => server.close(() => done())),
  };
}
