/** A clock that the screen reads: it ticks once a second, while anybody looks. */

import { session } from './session.svelte';

class Clock {
  #wall = $state(Date.now());

  constructor() {
    if (typeof document === 'undefined') return;
    setInterval(() => {
      if (!document.hidden) this.#wall = Date.now();
    }, 1000);
    document.addEventListener('visibilitychange', () => (this.#wall = Date.now()));
  }

  /** Now by the wall clock, in milliseconds since 1970. */
  get wall(): number {
    return this.#wall;
  }

  /** Now by the mesh's clock, on which readings run. */
  get mesh(): number {
    return session.meshTime(this.#wall);
  }
}

export const clock = new Clock();
