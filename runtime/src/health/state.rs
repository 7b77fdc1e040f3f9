//! The agent's `state.json` -> whether the agent is alive and its reconciliations succeed.
//!
//! The agent rewrites the file when a reconciliation begins or ends, and at most once a second while one makes progress. The
//! times are seconds of CLOCK_MONOTONIC.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct AgentState {
    pid: u32,
    /// The time of the last write.
    time: f64,
    #[serde(default)]
    reconciliations: BTreeMap<String, Reconciliation>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
struct Reconciliation {
    began: Option<f64>,
    /// `None` while it is running.
    ended: Option<f64>,
    /// The end of the last successful one.
    succeeded: Option<f64>,
    /// The error of the last one that ended.
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

impl AgentState {
    /// The state that the agent with this PID wrote. `None` if it has not written one yet.
    pub fn read(path: &Path, pid: u32) -> Result<Option<Self>, String> {
        let text = match files::read_text(path) {
            Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| error.to_string())?,
        };
        let state: Self = serde_json::from_str(&text)
            .map_err(|error| format!("{} is not a state file of the agent: {error}", path.display()))?;
        Ok(Some(state).filter(|state| state.pid == pid))
    }

    /// Whether the agent gave a sign of life within the last `longest` seconds.
    pub fn check_alive(&self, now: f64, longest: u64) -> Result<String, String> {
        let silent = now - self.time;
        let sign = format!("its last sign of life is {silent:.0} s old");
        if silent <= longest as f64 {
            return Ok(sign);
        }
        let running = self.reconciliations.iter().find(|(_, one)| one.is_running());
        let during = running.map_or(String::new(), |(name, one)| {
            format!(", during a {name} that began {:.0} s ago", age(one.began, now))
        });
        Err(format!("the agent hangs: {sign}{during} (limit: {longest} s)"))
    }

    /// Whether the last reconciliation of this kind succeeded within the last `longest` seconds.
    pub fn check_reconciliation(&self, name: &str, now: f64, longest: u64) -> Result<String, String> {
        let Some(one) = self.reconciliations.get(name) else {
            return Err(format!("the agent has not begun its first {name}"));
        };
        let running = match one.is_running() {
            true => format!("; one has been running for {:.0} s", age(one.began, now)),
            false => String::new(),
        };
        if let Some(error) = &one.error {
            // The error may have several lines.
            let error = error.split_whitespace().collect::<Vec<_>>().join(" ");
            return Err(format!("the last {name} failed: {error}{running}"));
        }
        let Some(succeeded) = one.succeeded else {
            return Err(format!("no {name} has succeeded yet{running}"));
        };
        match now - succeeded {
            ago if ago <= longest as f64 => Ok(format!("its last {name} succeeded {ago:.0} s ago")),
            ago => Err(format!(
                "the last {name} succeeded {ago:.0} s ago, more than the limit of {longest} s{running}"
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

    fn state(text: &str) -> AgentState {
        serde_json::from_str(text).unwrap()
    }

    fn one(fields: &str) -> AgentState {
        state(&format!(
            r#"{{"pid": 7, "time": 100.0, "reconciliations": {{"sync": {{{fields}}}}}}}"#
        ))
    }

    #[test]
    fn an_agent_without_a_recent_sign_of_life_hangs() {
        let idle = one(r#""began": 90.0, "ended": 95.5, "succeeded": 95.5, "error": null"#);
        assert_eq!(
            idle.check_alive(107.0, 300).unwrap(),
            "its last sign of life is 7 s old"
        );
        assert_eq!(
            idle.check_alive(401.0, 300).unwrap_err(),
            "the agent hangs: its last sign of life is 301 s old (limit: 300 s)"
        );
        let busy = one(r#""began": 90.0, "ended": null, "succeeded": null, "error": null"#);
        assert_eq!(
            busy.check_alive(401.0, 300).unwrap_err(),
            "the agent hangs: its last sign of life is 301 s old, during a sync that began 311 s ago (limit: 300 s)"
        );
        // A long resync with recent progress.
        assert!(busy.check_alive(130.0, 30).is_ok());
    }

    #[test]
    fn a_reconciliation_has_succeeded_has_failed_or_is_missing() {
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
                Err("the last sync failed: OSError: a b; one has been running for 10 s"),
            ),
            (
                r#""began": 90, "ended": null, "succeeded": null, "error": null"#,
                Err("no sync has succeeded yet; one has been running for 20 s"),
            ),
            (
                r#""began": 5, "ended": 9, "succeeded": 9, "error": null"#,
                Err("the last sync succeeded 101 s ago, more than the limit of 60 s"),
            ),
        ] {
            let found = one(fields).check_reconciliation("sync", 110.0, 60);
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{fields}");
        }
        let error = one("").check_reconciliation("frr_sync", 110.0, 60).unwrap_err();
        assert_eq!(error, "the agent has not begun its first frr_sync");
    }

    #[test]
    fn a_state_file_of_another_process_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        assert_eq!(AgentState::read(&path, 7), Ok(None));
        std::fs::write(&path, r#"{"pid": 7, "time": 1.5, "later": 1}"#).unwrap();
        assert!(AgentState::read(&path, 7).unwrap().is_some());
        assert_eq!(AgentState::read(&path, 8), Ok(None));
        for text in ["", "{}", "[]", r#"{"pid": 7, "time": null}"#] {
            std::fs::write(&path, text).unwrap();
            let error = AgentState::read(&path, 7).unwrap_err();
            assert!(error.contains("state.json is not a state file of the agent"), "{error}");
        }
    }

    #[test]
    fn the_clock_is_that_of_python() {
        let script = "import time; print(time.monotonic())";
        let output = std::process::Command::new("python3")
            .args(["-c", script])
            .output()
            .unwrap();
        let theirs: f64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        assert!((now() - theirs).abs() < 5.0);
    }
}
