//! SIGINT and SIGTERM: the first cancels the run, the second ends the process.

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::report::terminal::Terminal;

pub const EXIT_SIGINT: u8 = 128 + 2;
const EXIT_SIGTERM: u8 = 128 + 15;

/// The task returns the exit code of the first signal.
pub fn watch(cancel: CancellationToken, terminal: Terminal) -> JoinHandle<u8> {
    tokio::spawn(async move {
        let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
            return EXIT_SIGINT;
        };
        let code = tokio::select! { _ = int.recv() => EXIT_SIGINT, _ = term.recv() => EXIT_SIGTERM };
        cancel.cancel();
        tokio::spawn(async move {
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
            terminal.close();
            std::process::exit(code.into());
        });
        code
    })
}
