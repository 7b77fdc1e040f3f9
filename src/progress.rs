//! What the stages tell of their progress. Logic calls [`Progress`]; the terminal implements it (`report/`).

use std::sync::Arc;

/// One line of work a person watches: a target, a base, a verification. Cheap to clone, may be called from any thread.
pub trait Progress: Send + Sync {
    /// What is happening now, e.g. the current BuildKit step: `[final 3/7] RUN apt-get …`.
    fn step(&self, text: &str);
    /// Bytes handled so far in the present step, and of how many if that is known.
    fn bytes(&self, done: u64, total: Option<u64>);
    /// A line of a step's own output (a build log line). Shown with `--progress plain`, kept for failures otherwise.
    fn log(&self, line: &str);
    /// A line that must reach the person whatever the mode, e.g. "the engine lost the connection, trying again".
    fn note(&self, text: &str);
}

pub type SharedProgress = Arc<dyn Progress>;

/// Gives each piece of work a line of its own.
pub trait Lines: Send + Sync {
    /// A line under `name`, e.g. `debian_bookworm linux/arm64`.
    fn line(&self, name: &str) -> SharedProgress;
}

/// Tells nobody. For tests and for callers that do not watch.
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _: &str) {}
    fn bytes(&self, _: u64, _: Option<u64>) {}
    fn log(&self, _: &str) {}
    fn note(&self, _: &str) {}
}
