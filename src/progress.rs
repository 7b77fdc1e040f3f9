//! Progress of the stages. Logic calls [`Progress`]; `report/` implements it for the terminal.

use std::sync::Arc;
use std::time::Duration;

/// Progress of one piece of work: a target, a base, a verification. Cheap to clone, callable from any thread.
pub trait Progress: Send + Sync {
    /// Sets the current step, e.g. the BuildKit step `[final 3/7] RUN apt-get …`.
    fn step(&self, text: &str);
    /// Bytes processed in the current step, and the total if known.
    fn bytes(&self, done: u64, total: Option<u64>);
    /// A line of the step's output (a build log line). Printed with `--progress plain`, otherwise kept for failures.
    fn log(&self, line: &str);
    /// A message that is printed in every mode, e.g. "the engine lost the connection, trying again".
    fn note(&self, text: &str);
    /// A step whose result was found in a cache: it does not run, so it does not become the current step.
    fn cached(&self, step: &str) {
        self.step(&format!("{step} (cached)"));
    }
    /// Number of finished steps, and of all known steps.
    fn count(&self, _finished: usize, _all: usize) {}
    /// Something happens after this time, e.g. `HTTP status 503; retrying`. A terminal counts down.
    fn wait(&self, what: &str, time: Duration) {
        self.note(&format!("{what} in {:.0} s", time.as_secs_f32().ceil()));
    }
    /// The work is complete. The line stays, with this result.
    fn finish(&self, result: &str) {
        self.step(result);
    }
}

pub type SharedProgress = Arc<dyn Progress>;

/// Creates a progress line for each piece of work.
pub trait Lines: Send + Sync {
    /// A line under `name`, e.g. `debian_bookworm linux/arm64`.
    fn line(&self, name: &str) -> SharedProgress;
}

/// Discards all progress. For tests and callers without a terminal.
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _: &str) {}
    fn bytes(&self, _: u64, _: Option<u64>) {}
    fn log(&self, _: &str) {}
    fn note(&self, _: &str) {}
}
