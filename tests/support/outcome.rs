//! What a run of a program left, as one text that a snapshot holds.

use std::process::Output;

/// Exit code, stdout and stderr.
pub fn outcome(output: &Output) -> String {
    format!(
        "exit code: {}\n--- stdout ---\n{}--- stderr ---\n{}",
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
