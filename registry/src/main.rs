//! The registry as a process, or one of its commands on a database.

use std::process::ExitCode;

fn main() -> ExitCode {
    if memharvest_registry::commands::is_one(std::env::args_os().nth(1)) {
        return memharvest_registry::commands::main(std::env::args_os(), std::env::vars_os());
    }
    memharvest_services::process::main(memharvest_registry::SERVICE, memharvest_registry::run)
}
