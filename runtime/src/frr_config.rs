//! `obgp-runtime frr-config`.

use std::process::ExitCode;

use crate::cli::Failure;

/// Write FRR's configuration
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: &Args) -> Result<ExitCode, Failure> {
    Err("not written yet".into())
}
