//! Runs the programs that build a base; their output goes to the progress, and on failure into the error.

use std::path::Path;

use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::BaseError;
use crate::progress::Progress;
use crate::util::process::{self, RunError};

/// Runs a short command to its end; its output is used only if it fails.
pub(super) async fn run(
    mut command: Command,
    what: &str,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<(), BaseError> {
    command.env("LC_ALL", "C.UTF-8");
    let output = process::run(command, b"", cancel).await.map_err(|error| match error {
        RunError::Start(source) => BaseError::io("starting", Path::new(what), source),
        RunError::Wait(source) => BaseError::io("waiting for", Path::new(what), source),
        RunError::Cancelled => BaseError::Cancelled,
    })?;
    let log = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    log.lines().for_each(|line| progress.log(line));
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(what, &output.status.to_string(), log.trim())),
    }
}

pub(super) fn failed(what: &str, status: &str, log: &str) -> BaseError {
    BaseError::Failed {
        what: what.to_string(),
        status: status.to_string(),
        log: log.to_string(),
    }
}
