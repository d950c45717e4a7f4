/** The fleet as it is now: one stream feeds every page, and comes back by itself. */

import { Code, ConnectError } from '@connectrpc/connect';

import type { Fleet, WatchFleetResponse } from '../gen/memharvest/gateway/v1/fleet_service_pb';
import type { Host } from '../gen/memharvest/predictor/v1/forecast_pb';
import { UNTIL_ABORTED, failure, fleetApi } from './api';
import { pause } from './backoff';
import { session } from './session.svelte';
import { num } from './wire';

/** Where the stream stands. */
export type Link = 'connecting' | 'live' | 'lost';

/** The sums at one moment, for the chart of what happens while the page is open. */
export interface Moment {
  /** Mesh time, in milliseconds. */
  at: number;
  allocated: number | undefined;
  rss: number | undefined;
  harvestable: number | undefined;
  reclaimable: number | undefined;
}

/** Moments that are kept: a quarter of an hour of one a second; older ones are in the history. */
const KEPT = 900;

class FleetState {
  sums = $state.raw<Fleet | undefined>(undefined);
  hosts = $state.raw<Host[]>([]);
  moments = $state.raw<Moment[]>([]);
  link = $state<Link>('connecting');
  /** Why the stream is lost. */
  reason = $state('');
  /** When it is tried again, by the wall clock. */
  retryAt = $state(0);
  /** When the last event came, by the wall clock. */
  heardAt = $state(0);
  /** Of which hosts `hosts` tells: see `want`. */
  told = $state('');

  #known = new Map<string, Host>();
  #failures = 0;
  #running: AbortController | undefined;
  #asking: AbortController | undefined;
  #wanted = '';
  #wake: (() => void) | undefined;
  #flushing = false;
  #begins = '';
  #changed = false;

  /** Follows the fleet until `stop`. */
  start(): void {
    if (this.#running) return;
    this.#running = new AbortController();
    void this.#follow(this.#running.signal);
  }

  stop(): void {
    this.#running?.abort();
    this.#running = undefined;
    this.#wake?.();
  }

  /** Tries again at once. */
  retry(): void {
    this.#wake?.();
  }

  /** Of which hosts to be told: of one by its id, of all by `*`, of none by nothing; the sums always come. A thousand hosts that nobody
   * looks at would cost a page more than everything that is looked at. */
  want(hosts: string): void {
    if (hosts === this.#wanted) return;
    this.#wanted = hosts;
    this.#asking?.abort();
  }

  /** Whether `hosts` has this one, if it is known at all. */
  knows(id: string): boolean {
    return this.told === '*' || this.told === id;
  }

  host(id: string): Host | undefined {
    return this.hosts.find((host) => host.hostId === id);
  }

  async #follow(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const asking = new AbortController();
      this.#asking = asking;
      const wanted = this.#wanted;
      try {
        let first = true;
        // The mesh's clock may have begun anew with its processes.
        if (this.#failures > 0) session.learn(await fleetApi.getSession({}, { signal }));
        const request = { includeHosts: wanted !== '', withoutVms: true, hostId: wanted === '*' ? '' : wanted };
        const events = fleetApi.watchFleet(request, { ...UNTIL_ABORTED, signal: AbortSignal.any([signal, asking.signal]) });
        for await (const event of events) {
          // What a restarted gateway no longer knows is not shown any longer.
          if (first && wanted !== '') this.#known.clear();
          this.#take(event, first ? wanted : undefined);
          first = false;
        }
        throw new ConnectError('the gateway ended the stream', Code.Unavailable);
      } catch (error) {
        if (signal.aborted) return;
        // Somebody looks at something else.
        if (asking.signal.aborted) continue;
        this.#failures += 1;
        this.link = 'lost';
        this.reason = failure(error).text;
        const wait = pause(this.#failures, Math.random());
        this.retryAt = Date.now() + wait;
        await this.#sleep(wait);
      }
    }
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #take(event: WatchFleetResponse, begins: string | undefined): void {
    if (begins !== undefined) {
      this.#begins = begins;
      this.#changed = true;
    }
    for (const { host } of event.updates) if (host) this.#known.set(host.hostId, host);
    for (const id of event.goneHostIds) this.#known.delete(id);
    this.#changed ||= event.updates.length > 0 || event.goneHostIds.length > 0;
    if (event.fleet) this.#note(event.fleet);
    this.#failures = 0;
    // A large fleet comes in parts, which are drawn together.
    if (!this.#flushing) {
      this.#flushing = true;
      setTimeout(() => this.#flush(), 16);
    }
  }

  #flush(): void {
    this.#flushing = false;
    this.heardAt = Date.now();
    this.link = 'live';
    if (!this.#changed) return;
    this.#changed = false;
    this.told = this.#begins;
    this.hosts = [...this.#known.values()];
  }

  #note(sums: Fleet): void {
    const at = session.meshTime(Date.now());
    const last = this.moments.at(-1);
    this.sums = sums;
    if (last && at - last.at < 900 * session.meshSpeed && at > last.at) return;
    const moment = {
      at,
      allocated: num(sums.allocatedBytes),
      rss: num(sums.rssBytes),
      harvestable: num(sums.harvestableBytes),
      reclaimable: num(sums.reclaimableBytes),
    };
    this.moments = [...this.moments.filter((known) => known.at < at).slice(1 - KEPT), moment];
  }
}

export const fleet = new FleetState();
