//! Parse, run, exit code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    obgp_runtime::cli::main(std::env::args_os())
}
