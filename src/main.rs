//! Parse, run, exit code; nothing else.

use std::process::ExitCode;

use clap::Parser;
use obgp_build::cli::Cli;
use obgp_build::commands;

fn main() -> ExitCode {
    let cli = Cli::parse();
    commands::run(cli)
}
