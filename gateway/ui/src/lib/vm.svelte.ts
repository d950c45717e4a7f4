/** One machine as it is now, with what was seen of it since the page was opened. */

import { UNTIL_ABORTED, aborted, failure, fleetApi } from './api';
import { pause } from './backoff';
import type { Vm, Waterfall } from '../gen/memharvest/predictor/v1/forecast_pb';
import { Signal } from '../gen/memharvest/collector/v1/reading_pb';
import type { Point } from './series';
import { millis, num } from './wire';

/** Points that are kept. */
const KEPT = 2000;
/** How often the reasons are asked for at most. */
const PACE = 1000;

export class VmWatch {
  vm = $state.raw<Vm | undefined>(undefined);
  points = $state.raw<Point[]>([]);
  waterfalls = $state.raw<Waterfall[]>([]);
  /** Why nothing is known; empty: something is. */
  reason = $state('');
  missing = $state(false);
  /** When the machine was last seen here, by the wall clock: for the bench. */
  seenAt = $state(0);
  #askedAt = 0;
  #asking = false;

  /** Follows until the signal. */
  async follow(id: string, signal: AbortSignal): Promise<void> {
    let failures = 0;
    while (!signal.aborted) {
      try {
        const { vm } = await fleetApi.getVm({ vmId: id }, { signal });
        if (vm) this.#take(vm, signal);
        this.reason = '';
        const hostId = vm?.hostId ?? '';
        const events = fleetApi.watchFleet({ includeHosts: true, hostId }, { ...UNTIL_ABORTED, signal });
        for await (const event of events) {
          failures = 0;
          const found = event.updates.flatMap((update) => update.vms).find((one) => one.vmId === id);
          if (found) this.#take(found, signal);
          // It may have moved to another host.
          else if (event.updates.length > 0 || event.goneHostIds.length > 0) break;
        }
      } catch (error) {
        if (signal.aborted || aborted(error)) return;
        const told = failure(error);
        this.missing = !told.away && this.vm === undefined;
        this.reason = told.text;
        failures += 1;
      }
      await new Promise((resolve) => setTimeout(resolve, pause(Math.max(1, failures), Math.random())));
    }
  }

  #take(vm: Vm, signal: AbortSignal): void {
    this.vm = vm;
    this.missing = false;
    this.seenAt = Date.now();
    const at = millis(vm.readAt);
    const last = this.points.at(-1)?.at ?? -Infinity;
    if (at !== undefined && at > last) {
      const values = [vm.allocatedBytes, vm.rssBytes, vm.demandBytes, vm.predictedRssBytes, vm.harvestableBytes].map(num);
      this.points = [...this.points.slice(1 - KEPT), { at, values }];
    }
    void this.#explain(vm.vmId, signal);
  }

  async #explain(vmId: string, signal: AbortSignal): Promise<void> {
    if (this.#asking || Date.now() - this.#askedAt < PACE) return;
    this.#asking = true;
    try {
      const answers = await Promise.all(
        [Signal.RSS, Signal.DEMAND].map((one) => fleetApi.explainVm({ vmId, signal: one }, { signal })),
      );
      this.waterfalls = answers.flatMap(({ waterfall }) => waterfall ?? []);
    } catch {
      // The figures themselves are there; the reasons come with the next reading.
    }
    this.#askedAt = Date.now();
    this.#asking = false;
  }
}
