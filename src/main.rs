//! Shell completion, or a run; nothing else.

use std::process::ExitCode;

use clap_complete::CompleteEnv;
use obgp_build::{cli, commands};

fn main() -> ExitCode {
    CompleteEnv::with_factory(cli::command).complete();
    let arguments: Vec<_> = std::env::args_os().collect();
    commands::main(&arguments)
}
