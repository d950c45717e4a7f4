/** What the contract's enums are called on the screen, and how good or bad each is. */

import { Severity } from '../gen/memharvest/collector/v1/collector_service_pb';
import { Quality, Signal, VmState } from '../gen/memharvest/collector/v1/reading_pb';
import { BreakerState, HostState, LimitedBy, TermName } from '../gen/memharvest/predictor/v1/forecast_pb';
import { AgentKind, AgentState } from '../gen/memharvest/registry/v1/agent_service_pb';
import { Fairness, HostBasis } from '../gen/memharvest/registry/v1/boundary_service_pb';
import { LeaseState } from '../gen/memharvest/registry/v1/lease_service_pb';
import { Role } from '../gen/memharvest/registry/v1/token_service_pb';
import { ViolationKind, ViolationState } from '../gen/memharvest/registry/v1/violation_service_pb';

/** How much attention something asks for. */
export type Tone = 'good' | 'plain' | 'warn' | 'bad';

/** A word with its tone. */
export interface Word {
  text: string;
  tone: Tone;
}

const NOT_SAID: Word = { text: 'not said', tone: 'plain' };
const word = (text: string, tone: Tone = 'plain'): Word => ({ text, tone });

const QUALITIES: Record<number, Word> = {
  [Quality.STUCK]: word('stuck', 'bad'),
  [Quality.UNKNOWN]: word('unknown', 'bad'),
  [Quality.PAUSED]: word('paused'),
  [Quality.MIGRATING]: word('migrating'),
  [Quality.STALE]: word('stale', 'warn'),
  [Quality.HUGEPAGES]: word('huge pages'),
  [Quality.PRIVATE_MEMORY]: word('private memory'),
  [Quality.NO_BALLOON]: word('no balloon', 'warn'),
  [Quality.NO_PERIOD]: word('no period', 'warn'),
  [Quality.LIVE]: word('live', 'good'),
};
const HOST_STATES: Record<number, Word> = {
  [HostState.LIVE]: word('live', 'good'),
  [HostState.STALE]: word('stale', 'warn'),
  [HostState.LOST]: word('lost', 'bad'),
};
const VM_STATES: Record<number, Word> = {
  [VmState.RUNNING]: word('running', 'good'),
  [VmState.PAUSED]: word('paused'),
  [VmState.SHUTDOWN]: word('shutting down'),
  [VmState.CRASHED]: word('crashed', 'bad'),
  [VmState.SUSPENDED]: word('suspended'),
  [VmState.MIGRATING]: word('migrating'),
};
const BREAKERS: Record<number, Word> = {
  [BreakerState.CLOSED]: word('closed', 'good'),
  [BreakerState.OPEN]: word('open', 'bad'),
  [BreakerState.HALF_OPEN]: word('half open', 'warn'),
};
const KINDS: Record<number, Word> = {
  [ViolationKind.FORECAST]: word('forecast'),
  [ViolationKind.PROMISE]: word('promise', 'bad'),
  [ViolationKind.BOUNDARY]: word('boundary', 'warn'),
};
const VIOLATION_STATES: Record<number, Word> = {
  [ViolationState.OPEN]: word('open', 'bad'),
  [ViolationState.CLOSED]: word('closed'),
};
const LEASE_STATES: Record<number, Word> = {
  [LeaseState.LIVE]: word('live', 'good'),
  [LeaseState.REVOKING]: word('revoking', 'warn'),
  [LeaseState.REVOKED]: word('revoked'),
  [LeaseState.RELEASED]: word('released'),
  [LeaseState.EXPIRED]: word('expired'),
};
const AGENT_STATES: Record<number, Word> = {
  [AgentState.LIVE]: word('live', 'good'),
  [AgentState.LATE]: word('late', 'warn'),
  [AgentState.LOST]: word('lost', 'bad'),
  [AgentState.DECOMMISSIONED]: word('decommissioned'),
};
const SEVERITIES: Record<number, Word> = {
  [Severity.INFO]: word('info'),
  [Severity.WARNING]: word('warning', 'warn'),
  [Severity.ERROR]: word('error', 'bad'),
};

export const quality = (value: Quality): Word => QUALITIES[value] ?? NOT_SAID;
export const hostState = (value: HostState): Word => HOST_STATES[value] ?? NOT_SAID;
export const vmState = (value: VmState): Word => VM_STATES[value] ?? NOT_SAID;
export const breaker = (value: BreakerState): Word => BREAKERS[value] ?? NOT_SAID;
export const kind = (value: ViolationKind): Word => KINDS[value] ?? NOT_SAID;
export const violationState = (value: ViolationState): Word => VIOLATION_STATES[value] ?? NOT_SAID;
export const leaseState = (value: LeaseState): Word => LEASE_STATES[value] ?? NOT_SAID;
export const agentState = (value: AgentState): Word => AGENT_STATES[value] ?? NOT_SAID;
export const severity = (value: Severity): Word => SEVERITIES[value] ?? NOT_SAID;

/** The wire's own word for a value of an enum, as filters in addresses have it. */
export function key(names: Record<number, string>, value: number): string {
  return value === 0 ? '' : (names[value] ?? '').toLowerCase();
}

/** The value that a word in an address stands for; 0: none. */
export function valueOf(names: Record<number, string>, text: string): number {
  const found = Object.entries(names).find(([, name]) => typeof name === 'string' && name.toLowerCase() === text);
  return found ? Number(found[0]) : 0;
}

export const signal = (value: Signal): string => (value === Signal.DEMAND ? 'demand' : 'rss');
export const agentKind = (value: AgentKind): string => key(AgentKind, value);
export const role = (value: Role): string => key(Role, value);
export const fairness = (value: Fairness): string => key(Fairness, value).replace('_', ' ');
export const hostBasis = (value: HostBasis): string => key(HostBasis, value);

const TERMS: Record<number, string> = {
  [TermName.PREDICTED]: 'Forecast',
  [TermName.HEADROOM]: 'Headroom',
  [TermName.GROWTH]: 'Growth',
  [TermName.FLOOR]: 'Floor',
  [TermName.COLD_START]: 'Cold start',
  [TermName.QUALITY]: 'Quality',
  [TermName.BACKOFF]: 'Backoff',
  [TermName.BUDGET]: 'Error budget',
  [TermName.BREAKER]: 'Circuit breaker',
  [TermName.CAP]: 'Cap',
  [TermName.EXCLUDED]: 'Excluded',
  [TermName.SLOW_RAISE]: 'Slow raise',
  [TermName.QUANTUM]: 'Rounding',
};

/** A step of a waterfall. */
export const term = (value: TermName): string => TERMS[value] ?? 'Other';

const LIMITS: Record<number, string> = {
  [LimitedBy.PREDICTION]: 'It is expected to be used within the horizon',
  [LimitedBy.HEADROOM_RATIO]: 'A safety margin, as a share of the forecast',
  [LimitedBy.HEADROOM_BYTES]: 'The least safety margin that is kept',
  [LimitedBy.GROWTH]: 'Usage grows faster than the forecast knows',
  [LimitedBy.FLOOR]: 'An operator set a floor for this machine',
  [LimitedBy.COLD]: 'There is not enough history yet',
  [LimitedBy.WARMING]: 'History is still growing: only a part is given',
  [LimitedBy.STUCK]: 'Its monitor does not answer',
  [LimitedBy.UNKNOWN]: 'Its state or memory is not known',
  [LimitedBy.PAUSED]: 'It is paused',
  [LimitedBy.MIGRATING]: 'It is migrating',
  [LimitedBy.STALE]: 'There are no fresh figures',
  [LimitedBy.HUGEPAGES]: 'Huge pages: the resident set says nothing',
  [LimitedBy.PRIVATE_MEMORY]: 'Private memory: the resident set says nothing',
  [LimitedBy.NO_BALLOON]: 'No balloon driver answers',
  [LimitedBy.NO_PERIOD]: 'The balloon has no statistics period',
  [LimitedBy.PINNED]: 'Its memory is pinned',
  [LimitedBy.SWAP_UNKNOWN]: 'The host swaps and the machine’s swap is not known',
  [LimitedBy.VIOLATION_RATE]: 'It broke too many forecasts in the last day',
  [LimitedBy.BROKEN_PROMISE]: 'It broke a promise again within a day',
  [LimitedBy.ERROR_BUDGET]: 'The error budget is spent',
  [LimitedBy.HOST_VIOLATION_RATE]: 'The host’s forecasts are exceeded too often',
  [LimitedBy.HOST_PRESSURE]: 'The host is under memory pressure',
  [LimitedBy.HOST_SWAP_IN]: 'The host swaps in',
  [LimitedBy.HOST_RESERVE]: 'The host’s available memory is below its reserve',
  [LimitedBy.MAX_HARVEST_RATIO]: 'An operator caps the share that may be harvested',
  [LimitedBy.EXCLUDED]: 'An operator excluded it',
  [LimitedBy.SIGNAL]: 'An operator chose the other signal',
  [LimitedBy.SLOW_RAISE]: 'Harvest rises by at most 5 % of the allocation a minute',
  [LimitedBy.QUANTUM]: 'Rounded down to a multiple of 64 MiB',
};

/** Why, in plain words. */
export const limit = (value: LimitedBy): string => LIMITS[value] ?? 'Not said';
