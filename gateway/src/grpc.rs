//! gRPC and grpc-web on the port: `FleetService` from the live state, the rest handed on.

mod author;
mod fleet_service;
mod forward;
mod session;
mod vm_list;
mod watch_fleet;

pub(crate) use fleet_service::FleetApi;
#[cfg(test)]
pub(crate) use forward::is_handed_on;
pub(crate) use forward::{Forward, services};
