//! memharvest-predictor: see `--help`.

use std::process::ExitCode;

use memharvest_predictor::{SERVICE, Settings, run};
use memharvest_services::process;

fn main() -> ExitCode {
    process::main::<Settings, _, _>(SERVICE, run)
}
