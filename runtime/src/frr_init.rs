//! `obgp-runtime frr-init`.

use std::process::ExitCode;

use crate::cli::Failure;

/// Find the gateway and the ASNs, and write FRR's configuration
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: &Args) -> Result<ExitCode, Failure> {
    Err("not written yet".into())
}
