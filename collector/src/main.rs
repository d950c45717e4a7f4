//! The collector's process; all of its work is in the library.

use std::process::ExitCode;

use memharvest_collector::settings::CollectorSettings;

fn main() -> ExitCode {
    memharvest_services::process::main::<CollectorSettings, _, _>(
        memharvest_collector::SERVICE,
        memharvest_collector::run,
    )
}
