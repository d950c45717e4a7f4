//! The registry as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    memharvest_services::process::main(memharvest_registry::SERVICE, memharvest_registry::run)
}
