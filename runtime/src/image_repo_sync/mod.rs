//! `obgp-runtime image-repo-sync`.

use std::process::ExitCode;

use crate::cli::Failure;

/// Copy images to a local registry
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: &Args) -> Result<ExitCode, Failure> {
    Err("not written yet".into())
}
