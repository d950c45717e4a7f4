/** One request of a page: asked when what it depends on changes, and again at a pace, with what was there last kept on the screen. */

import { type Failure, aborted, failure } from './api';

export class Query<T> {
  data = $state.raw<T | undefined>(undefined);
  failure = $state.raw<Failure | undefined>(undefined);
  loading = $state(true);
  #running: AbortController | undefined;
  #ask: (signal: AbortSignal) => Promise<T>;

  /** Must be made while a component is. `ask` reads what it depends on before it waits for the first time. */
  constructor(ask: (signal: AbortSignal) => Promise<T>, everyMs = 0) {
    this.#ask = ask;
    $effect(() => {
      this.data = undefined;
      void this.again();
      const timer = everyMs > 0 ? setInterval(() => document.hidden || void this.again(), everyMs) : 0;
      return () => {
        clearInterval(timer);
        this.#running?.abort();
      };
    });
  }

  /** Asks now; what is on its way is given up. */
  async again(): Promise<void> {
    this.#running?.abort();
    const running = new AbortController();
    this.#running = running;
    const asked = this.#ask(running.signal);
    this.loading = true;
    try {
      this.data = await asked;
      this.failure = undefined;
    } catch (error) {
      if (running.signal.aborted || aborted(error)) return;
      this.failure = failure(error);
    }
    if (this.#running === running) this.loading = false;
  }
}
