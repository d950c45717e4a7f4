//! What every service process shares; knows no domain.
//!
//! A service's `main.rs` is one call of [`process::main`]; its `run(settings, stop)` binds its addresses, then
//! serves with [`rpc_server::RpcServer`] beside an [`admin_server::AdminServer`] until [`shutdown::Stop`] is asked.

pub mod admin_server;
pub mod caller;
pub mod healthcheck;
pub mod listener;
pub mod membership;
pub mod mesh_clock;
mod mesh_policy;
pub mod metrics;
pub mod page_writer;
pub mod process;
pub mod proto_time;
pub mod readiness;
mod rpc_body;
pub mod rpc_client;
pub mod rpc_error;
pub mod rpc_methods;
pub mod rpc_server;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod trace_context;

/// Who a process is: the name of its binary and its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// Name of the binary, such as `memharvest-registry`.
    pub name: &'static str,
    /// Version of the package.
    pub version: &'static str,
    /// Threads for its tasks; absent: one for every processor.
    threads: Option<usize>,
}

impl Service {
    /// Usually `Service::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))`.
    #[must_use]
    pub const fn new(name: &'static str, version: &'static str) -> Self {
        Self { name, version, threads: None }
    }

    /// A process with little to do, and that seldom: what one thread hands to another costs it more than the work.
    #[must_use]
    pub const fn on_one_thread(self) -> Self {
        Self { threads: Some(1), ..self }
    }

    /// The name without the project's prefix: `registry` for `memharvest-registry`.
    #[must_use]
    pub fn short_name(&self) -> &'static str {
        self.name.strip_prefix("memharvest-").unwrap_or(self.name)
    }
}
