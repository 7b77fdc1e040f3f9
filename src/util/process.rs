//! Programs that this one runs: their output, their end, and stopping them.

use std::io;
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// Why there is no output of a program.
#[derive(Debug)]
pub enum RunError {
    Start(io::Error),
    /// Its input or output broke.
    Wait(io::Error),
    Cancelled,
}

/// Runs a short command to its end, with `input` on stdin. It is killed when the token is cancelled.
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

/// A child that is told to stop instead of being killed, because it has mounts and a directory to take down.
pub struct Child {
    pub inner: tokio::process::Child,
}

impl Child {
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        // A group of its own, so that a Ctrl-C at the terminal reaches it through interrupt() only, once.
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
