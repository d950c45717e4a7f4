/** The gateway's services over grpc-web, and what their errors mean to a reader. */

import { Code, ConnectError, createClient, type Interceptor } from '@connectrpc/connect';
import { createGrpcWebTransport } from '@connectrpc/connect-web';

import { FleetService } from '../gen/memharvest/gateway/v1/fleet_service_pb';
import { PredictorService } from '../gen/memharvest/predictor/v1/predictor_service_pb';
import { AgentService } from '../gen/memharvest/registry/v1/agent_service_pb';
import { AuditService } from '../gen/memharvest/registry/v1/audit_service_pb';
import { BoundaryService } from '../gen/memharvest/registry/v1/boundary_service_pb';
import { HarvestService } from '../gen/memharvest/registry/v1/harvest_service_pb';
import { LeaseService } from '../gen/memharvest/registry/v1/lease_service_pb';
import { ViolationService } from '../gen/memharvest/registry/v1/violation_service_pb';
import { session } from './session.svelte';

const identify: Interceptor = (next) => async (request) => {
  const shown = session.token;
  if (shown) request.header.set('authorization', `Bearer ${shown}`);
  try {
    return await next(request);
  } catch (error) {
    // Only of the token that is still the one in use: another may have been shown since.
    if (ConnectError.from(error).code === Code.Unauthenticated && shown === session.token) session.ended = true;
    throw error;
  }
};

const transport = createGrpcWebTransport({
  baseUrl: globalThis.location?.origin ?? 'http://localhost',
  interceptors: [identify],
  defaultTimeoutMs: 30_000,
});

export const fleetApi = createClient(FleetService, transport);
export const harvestApi = createClient(HarvestService, transport);
export const violationApi = createClient(ViolationService, transport);
export const boundaryApi = createClient(BoundaryService, transport);
export const predictorApi = createClient(PredictorService, transport);
export const leaseApi = createClient(LeaseService, transport);
export const agentApi = createClient(AgentService, transport);
export const auditApi = createClient(AuditService, transport);

/** Streams have no deadline. */
export const UNTIL_ABORTED = { timeoutMs: 0 };

/** Why something failed, and whether trying again may help. */
export interface Failure {
  text: string;
  code: Code;
  away: boolean;
}

/** What to say about an error. */
export function failure(error: unknown): Failure {
  const found = ConnectError.from(error);
  const away = [Code.Unavailable, Code.DeadlineExceeded, Code.Unknown, Code.Internal].includes(found.code);
  const text = found.rawMessage || 'something went wrong';
  const fetchFailed = found.code === Code.Unknown || /fetch|network/i.test(text);
  return {
    code: found.code,
    away,
    text: fetchFailed && away ? 'The gateway does not answer' : text.charAt(0).toUpperCase() + text.slice(1),
  };
}

/** Whether a request was given up by the page itself. */
export function aborted(error: unknown): boolean {
  return ConnectError.from(error).code === Code.Canceled;
}
