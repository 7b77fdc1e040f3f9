//! The binary. [`obgp_runtime`] has the map of the modules.

use std::process::ExitCode;

fn main() -> ExitCode {
    obgp_runtime::cli::main(std::env::args_os())
}
