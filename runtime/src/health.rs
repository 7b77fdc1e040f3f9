//! `obgp-runtime health`.

use std::process::ExitCode;

use crate::cli::Failure;

/// Answer the probes
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: &Args) -> Result<ExitCode, Failure> {
    Err("not written yet".into())
}
