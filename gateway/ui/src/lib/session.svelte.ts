/** Who looks, what he may do, and what time it is in the mesh. */

import type { GetSessionResponse } from '../gen/memharvest/gateway/v1/fleet_service_pb';
import { Role } from '../gen/memharvest/registry/v1/token_service_pb';
import { millis } from './wire';

const TOKEN = 'memharvest.token';
const AUTHOR = 'memharvest.author';

function stored(storage: Storage | undefined, name: string): string {
  return storage?.getItem(name) ?? '';
}

class Session {
  /** What is shown with every request; empty: nothing. It lives as long as the tab. */
  #token = stored(globalThis.sessionStorage, TOKEN);
  #told = $state.raw<GetSessionResponse | undefined>(undefined);
  #toldAt = 0;
  #author = $state(stored(globalThis.localStorage, AUTHOR));
  /** The gateway no longer takes the token. */
  ended = $state(false);

  get token(): string {
    return this.#token;
  }

  set token(token: string) {
    this.#token = token;
    if (token === '') sessionStorage.removeItem(TOKEN);
    else sessionStorage.setItem(TOKEN, token);
  }

  get told(): GetSessionResponse | undefined {
    return this.#told;
  }

  /** Takes over what the gateway says. */
  learn(told: GetSessionResponse): void {
    this.#told = told;
    this.#toldAt = Date.now();
    if (this.signedIn) this.ended = false;
  }

  /** Whether pages can be shown. */
  get signedIn(): boolean {
    return this.#told !== undefined && this.#told.role !== Role.UNSPECIFIED;
  }

  get asks(): boolean {
    return this.#told?.authenticationRequired ?? false;
  }

  get role(): Role {
    return this.#told?.role ?? Role.UNSPECIFIED;
  }

  get isOperator(): boolean {
    return this.role >= Role.OPERATOR;
  }

  get isAdmin(): boolean {
    return this.role >= Role.ADMIN;
  }

  /** Who makes changes: by his token, or as he calls himself where nobody is asked. */
  get author(): string {
    return this.#told?.name || this.#author;
  }

  set author(name: string) {
    this.#author = name;
    localStorage.setItem(AUTHOR, name);
  }

  /** Whether somebody has to be asked for his name before he changes something. */
  get needsName(): boolean {
    return !this.asks;
  }

  /** Mesh time at a time of the wall clock, in milliseconds since 1970. */
  meshTime(wall: number): number {
    const told = millis(this.#told?.meshTime);
    return told === undefined ? wall : told + (wall - this.#toldAt) * (this.#told?.meshSpeed || 1);
  }

  /** Mesh seconds in a second. */
  get meshSpeed(): number {
    return this.#told?.meshSpeed || 1;
  }
}

export const session = new Session();
