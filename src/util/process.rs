//! Runs child processes: collects their output, and interrupts or kills them.

use std::io;
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// Why a program returned no output.
#[derive(Debug)]
pub enum RunError {
    Start(io::Error),
    /// Reading its output or writing its input failed.
    Wait(io::Error),
    Cancelled,
}

/// Runs a short command and returns its output; `input` goes to its stdin. Cancelling the token kills it.
pub async fn run(mut command: Command, input: &[u8], cancel: &CancellationToken) -> Result<Output, RunError> {
    let stdin = match input.is_empty() {
        true => Stdio::null(),
        false => Stdio::piped(),
    };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(RunError::Start)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).await.map_err(RunError::Wait)?;
    }
    tokio::select! {
        output = child.wait_with_output() => output.map_err(RunError::Wait),
        () = cancel.cancelled() => Err(RunError::Cancelled),
    }
}

/// A child that must clean up mounts and directories: it is interrupted instead of killed.
pub struct Child {
    pub inner: tokio::process::Child,
}

impl Child {
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        // In its own process group, a Ctrl-C at the terminal reaches the child only through interrupt(), once.
        let inner = command.process_group(0).spawn()?;
        Ok(Child { inner })
    }

    pub async fn interrupt(&mut self) {
        if let Some(pid) = self.inner.id().and_then(|id| rustix::process::Pid::from_raw(id as i32)) {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::INT);
        }
        let _ = self.inner.wait().await;
    }
}
