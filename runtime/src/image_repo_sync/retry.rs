//! Retries transient failures.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use super::error::SyncError;

const MAX_WAIT: Duration = Duration::from_secs(30);
const RETRIES: usize = 5;

/// Retries with increasing delays, or after the registry's Retry-After.
pub fn retrying<T>(mut attempt: impl FnMut() -> Result<T, SyncError>) -> Result<T, SyncError> {
    let delays = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_times(RETRIES)
        .with_jitter()
        .build();
    for delay in delays {
        match attempt() {
            Err(error) if error.is_transient() => {
                let wait = error.retry_after().unwrap_or(delay).min(MAX_WAIT).max(delay);
                eprintln!("{error}; retrying in {:.1} s", wait.as_secs_f32());
                std::thread::sleep(wait);
            }
            done => return done,
        }
    }
    attempt()
}
