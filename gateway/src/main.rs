//! memharvest-gateway

use std::process::ExitCode;

fn main() -> ExitCode {
    memharvest_services::process::main(memharvest_gateway::SERVICE, memharvest_gateway::run)
}
