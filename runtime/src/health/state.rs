//! The agent's `state.json` becomes whether it lives, and whether its reconciliations succeed.
//!
//! The agent rewrites the file when a reconciliation begins and ends, and at most once a second while one makes progress. Its
//! times are CLOCK_MONOTONIC seconds.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct State {
    pid: u32,
    /// When the file was written.
    time: f64,
    #[serde(default)]
    reconciliations: BTreeMap<String, Reconciliation>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
struct Reconciliation {
    began: Option<f64>,
    /// `None` while it runs.
    ended: Option<f64>,
    /// The end of the last one that succeeded.
    succeeded: Option<f64>,
    /// Of the last one that ended.
    error: Option<String>,
}

impl Reconciliation {
    fn is_running(&self) -> bool {
        self.began.is_some() && self.ended.is_none()
    }
}

/// CLOCK_MONOTONIC in seconds, the clock of the agent's times.
pub fn now() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

impl State {
    /// What the agent with this PID wrote; `None` if it has not written yet.
    pub fn read(path: &Path, pid: u32) -> Result<Option<Self>, String> {
        let text = match files::read_text(path) {
            Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| error.to_string())?,
        };
        let state: Self = serde_json::from_str(&text)
            .map_err(|error| format!("{} is not the agent's state: {error}", path.display()))?;
        Ok(Some(state).filter(|state| state.pid == pid))
    }

    /// Whether the agent gave a sign of life within `longest` seconds.
    pub fn lives(&self, now: f64, longest: u64) -> Result<String, String> {
        let silent = now - self.time;
        let sign = format!("its last sign of life is {silent:.0} s old");
        if silent <= longest as f64 {
            return Ok(sign);
        }
        let running = self.reconciliations.iter().find(|(_, one)| one.is_running());
        let during = running.map_or(String::new(), |(name, one)| {
            format!(", during a {name} that began {:.0} s ago", age(one.began, now))
        });
        Err(format!(
            "the agent hangs: {sign}{during} (at most {longest} s are allowed)"
        ))
    }

    /// Whether the last reconciliation of a kind succeeded, at most `longest` seconds ago.
    pub fn succeeds(&self, name: &str, now: f64, longest: u64) -> Result<String, String> {
        let Some(one) = self.reconciliations.get(name) else {
            return Err(format!("the agent has not begun its first {name}"));
        };
        let running = match one.is_running() {
            true => format!("; one runs since {:.0} s", age(one.began, now)),
            false => String::new(),
        };
        if let Some(error) = &one.error {
            // One line, whatever the error is.
            let error = error.split_whitespace().collect::<Vec<_>>().join(" ");
            return Err(format!("the last {name} failed: {error}{running}"));
        }
        let Some(succeeded) = one.succeeded else {
            return Err(format!("no {name} has succeeded yet{running}"));
        };
        match now - succeeded {
            ago if ago <= longest as f64 => Ok(format!("its last {name} succeeded {ago:.0} s ago")),
            ago => Err(format!(
                "the last {name} succeeded {ago:.0} s ago, more than the {longest} s that are allowed{running}"
            )),
        }
    }
}

fn age(time: Option<f64>, now: f64) -> f64 {
    time.map_or(0.0, |time| now - time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &str) -> State {
        serde_json::from_str(text).unwrap()
    }

    fn one(fields: &str) -> State {
        state(&format!(
            r#"{{"pid": 7, "time": 100.0, "reconciliations": {{"sync": {{{fields}}}}}}}"#
        ))
    }

    #[test]
    fn an_agent_that_is_silent_for_too_long_hangs() {
        let idle = one(r#""began": 90.0, "ended": 95.5, "succeeded": 95.5, "error": null"#);
        assert_eq!(idle.lives(107.0, 300).unwrap(), "its last sign of life is 7 s old");
        assert_eq!(
            idle.lives(401.0, 300).unwrap_err(),
            "the agent hangs: its last sign of life is 301 s old (at most 300 s are allowed)"
        );
        let busy = one(r#""began": 90.0, "ended": null, "succeeded": null, "error": null"#);
        assert_eq!(
            busy.lives(401.0, 300).unwrap_err(),
            "the agent hangs: its last sign of life is 301 s old, during a sync that began 311 s ago (at most 300 s are allowed)"
        );
        // A long resync that makes progress.
        assert!(busy.lives(130.0, 30).is_ok());
    }

    #[test]
    fn a_reconciliation_succeeds_failed_or_is_missing() {
        for (fields, expected) in [
            (
                r#""began": 90, "ended": 95.5, "succeeded": 95.5, "error": null"#,
                Ok("its last sync succeeded 14 s ago"),
            ),
            (
                r#""began": 99, "ended": null, "succeeded": 60, "error": null"#,
                Ok("its last sync succeeded 50 s ago"),
            ),
            (
                r#""began": 90, "ended": 95, "succeeded": null, "error": "KeyError: 'br-ex'""#,
                Err("the last sync failed: KeyError: 'br-ex'"),
            ),
            (
                r#""began": 100, "ended": null, "succeeded": 60, "error": "OSError: a\n  b""#,
                Err("the last sync failed: OSError: a b; one runs since 10 s"),
            ),
            (
                r#""began": 90, "ended": null, "succeeded": null, "error": null"#,
                Err("no sync has succeeded yet; one runs since 20 s"),
            ),
            (
                r#""began": 5, "ended": 9, "succeeded": 9, "error": null"#,
                Err("the last sync succeeded 101 s ago, more than the 60 s that are allowed"),
            ),
        ] {
            let found = one(fields).succeeds("sync", 110.0, 60);
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{fields}");
        }
        let error = one("").succeeds("frr_sync", 110.0, 60).unwrap_err();
        assert_eq!(error, "the agent has not begun its first frr_sync");
    }

    #[test]
    fn only_the_state_of_the_same_process_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        assert_eq!(State::read(&path, 7), Ok(None));
        std::fs::write(&path, r#"{"pid": 7, "time": 1.5, "later": 1}"#).unwrap();
        assert!(State::read(&path, 7).unwrap().is_some());
        assert_eq!(State::read(&path, 8), Ok(None));
        for text in ["", "{}", "[]", r#"{"pid": 7, "time": null}"#] {
            std::fs::write(&path, text).unwrap();
            let error = State::read(&path, 7).unwrap_err();
            assert!(error.contains("state.json is not the agent's state"), "{error}");
        }
    }

    #[test]
    fn the_clock_is_the_one_of_python() {
        let script = "import time; print(time.monotonic())";
        let output = std::process::Command::new("python3")
            .args(["-c", script])
            .output()
            .unwrap();
        let theirs: f64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        assert!((now() - theirs).abs() < 5.0);
    }
}
