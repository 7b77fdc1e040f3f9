//! Programs that the bootstrap runs: their output, their end, and stopping them.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::BaseError;
use crate::progress::Progress;

/// Runs a short command to its end; its output matters when it fails.
pub(super) async fn run(
    mut command: Command,
    what: &str,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<(), BaseError> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .env("LC_ALL", "C.UTF-8");
    let child = command
        .spawn()
        .map_err(|e| BaseError::io("starting", Path::new(what), e))?;
    let output = tokio::select! {
        output = child.wait_with_output() => output.map_err(|e| BaseError::io("waiting for", Path::new(what), e))?,
        () = cancel.cancelled() => return Err(BaseError::Cancelled),
    };
    let log = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    log.lines().for_each(|line| progress.log(line));
    match output.status.success() {
        true => Ok(()),
        false => Err(BaseError::Failed {
            what: what.to_string(),
            status: output.status.to_string(),
            log: log.trim().to_string(),
        }),
    }
}

/// A child that is told to stop instead of being killed, because it has mounts and a directory to take down.
pub(super) struct Child {
    pub inner: tokio::process::Child,
    what: &'static str,
}

impl Child {
    pub fn spawn(mut command: Command, what: &'static str) -> Result<Self, BaseError> {
        // A group of its own, so that a Ctrl-C at the terminal reaches it through interrupt() only, once.
        let inner = command
            .process_group(0)
            .spawn()
            .map_err(|e| BaseError::io("starting", Path::new(what), e))?;
        Ok(Child { inner, what })
    }

    pub async fn interrupt(&mut self) {
        if let Some(pid) = self.inner.id().and_then(|id| rustix::process::Pid::from_raw(id as i32)) {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::INT);
        }
        let _ = self.inner.wait().await;
    }

    pub fn failed(&self, status: &str, log: &str) -> BaseError {
        BaseError::Failed {
            what: self.what.to_string(),
            status: status.to_string(),
            log: log.to_string(),
        }
    }
}
