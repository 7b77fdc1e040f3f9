//! `obgp-runtime agent`.

use std::process::ExitCode;

use crate::cli::Failure;

/// Start the agent
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: &Args) -> Result<ExitCode, Failure> {
    Err("not written yet".into())
}
