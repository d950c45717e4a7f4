//! memharvest: the mesh on one machine, and the operator's verbs.

use std::process::ExitCode;

fn main() -> ExitCode {
    memharvest_cli::main()
}
