/** Signing in at an identity provider: the authorization code flow with PKCE. The gateway redeems the code. */

import type { OpenIdProvider } from '../gen/memharvest/gateway/v1/fleet_service_pb';

const KEPT = 'memharvest.sign-in';

interface Kept {
  state: string;
  verifier: string;
  next: string;
}

function base64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

const random = (): string => base64url(crypto.getRandomValues(new Uint8Array(32)));
const callback = (): string => `${location.origin}/sign-in`;

/** What the provider is shown of a verifier. */
export async function challengeOf(verifier: string): Promise<string> {
  return base64url(new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier))));
}

/** Sends the browser to the provider; it comes back to `/sign-in`, and from there to `next`. */
export async function leave(provider: OpenIdProvider, next: string): Promise<void> {
  const kept: Kept = { state: random(), verifier: random(), next };
  sessionStorage.setItem(KEPT, JSON.stringify(kept));
  const url = new URL(provider.authorizationEndpoint);
  const query = {
    response_type: 'code',
    client_id: provider.clientId,
    redirect_uri: callback(),
    scope: provider.scope,
    state: kept.state,
    code_challenge: await challengeOf(kept.verifier),
    code_challenge_method: 'S256',
  };
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  location.assign(url);
}

/** The token that a browser that came back gets, and where it was to go. Throws with a reason for the reader. */
export async function arrive(query: URLSearchParams): Promise<{ token: string; next: string }> {
  const text = sessionStorage.getItem(KEPT);
  sessionStorage.removeItem(KEPT);
  const refused = query.get('error_description') ?? query.get('error');
  if (refused) throw new Error(`The identity provider says: ${refused}`);
  const kept = text ? (JSON.parse(text) as Kept) : undefined;
  if (!kept || kept.state !== query.get('state')) throw new Error('This sign-in was not begun in this tab; begin again');
  const answer = await fetch('/oidc/token', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ code: query.get('code') ?? '', code_verifier: kept.verifier, redirect_uri: callback() }),
  });
  const told = (await answer.json()) as { token?: string; detail?: string };
  if (!answer.ok || !told.token) throw new Error(told.detail ?? 'The sign-in failed');
  return { token: told.token, next: kept.next };
}
