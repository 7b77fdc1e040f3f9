//! Cancellation of running work.

use tokio_util::sync::CancellationToken;

#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Waits for `work` unless the token is cancelled first.
pub async fn unless_cancelled<F: Future>(cancel: &CancellationToken, work: F) -> Result<F::Output, Interrupted> {
    tokio::select! {
        done = work => Ok(done),
        () = cancel.cancelled() => Err(Interrupted),
    }
}
