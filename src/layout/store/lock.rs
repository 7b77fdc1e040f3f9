//! Locks the directory of a layout, and waits while another process holds the lock.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use tokio_util::sync::CancellationToken;

use super::{StoreError, failed, holder};
use crate::progress::Lines;
use crate::util::cancel::Interrupted;

/// Patience without a [`Wait`].
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// How to wait for a layout that another process uses.
pub struct Wait<'a> {
    /// Shows who uses the layout, and how long the wait lasts.
    pub lines: &'a dyn Lines,
    pub cancel: &'a CancellationToken,
    /// `None`: without limit.
    pub limit: Option<Duration>,
}

/// Opens and locks `root`: for one writer, or for several readers. Blocks.
pub(super) fn lock(root: &Path, writable: bool, wait: Option<&Wait<'_>>) -> Result<File, StoreError> {
    let lock = File::open(root).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => StoreError::Missing(root.to_path_buf()),
        _ => failed("opening", root)(error),
    })?;
    let operation = match writable {
        true => FlockOperation::NonBlockingLockExclusive,
        false => FlockOperation::NonBlockingLockShared,
    };
    let started = Instant::now();
    let limit = wait.map_or(Some(PATIENCE), |wait| wait.limit);
    // Disappears when it is dropped.
    let mut line = None;
    while let Err(error) = flock(&lock, operation) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(failed("locking", root)(error.into()));
        }
        if limit.is_some_and(|limit| started.elapsed() >= limit) {
            return Err(StoreError::Locked {
                path: root.to_path_buf(),
                holder: holder::describe(&lock),
            });
        }
        if let Some(wait) = wait {
            if wait.cancel.is_cancelled() {
                return Err(StoreError::Interrupted(Interrupted));
            }
            line.get_or_insert_with(|| {
                let line = wait.lines.line("output");
                let holder = holder::describe(&lock);
                line.note(&format!("{} is in use by {holder}; waiting for it", root.display()));
                line.step("waiting for the other run");
                line
            });
        }
        std::thread::sleep(POLL);
    }
    Ok(lock)
}
