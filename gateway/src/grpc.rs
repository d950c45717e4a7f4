//! gRPC and grpc-web on the port: `FleetService` from the live state, the rest handed on.

mod fleet_service;
mod forward;
mod watch_fleet;

pub(crate) use fleet_service::FleetApi;
pub(crate) use forward::{Forward, services};
