//! Which process the agent is: `agent.pid` in the shared directory, and what /proc says about it.
//!
//! A PID alone may be another process by now; with the time it was started at it cannot. `obgp-runtime agent` records
//! itself while it waits, then the agent that it started.

use std::io;
use std::path::{Path, PathBuf};

use super::AgentError;
use crate::files;

/// A process, told apart from all others since the machine was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub pid: u32,
    /// In clock ticks since boot, as in /proc/PID/stat.
    pub started: u64,
}

/// What the recorded process is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// `obgp-runtime agent`, before it started the agent.
    Waiting,
    /// The agent.
    Agent,
    /// The agent, stopped by a signal or a debugger.
    Stopped,
    /// Why it is neither.
    Gone(String),
}

impl Record {
    fn path(directory: &Path) -> PathBuf {
        directory.join("agent.pid")
    }

    pub fn of(pid: u32) -> Result<Self, AgentError> {
        match started(pid) {
            Ok((_, started)) => Ok(Self { pid, started }),
            Err(source) => Err(AgentError::Io {
                doing: "read",
                path: stat_path(pid),
                source,
            }),
        }
    }

    pub fn write(&self, directory: &Path) -> Result<(), files::FileError> {
        let content = format!("{} {}\n", self.pid, self.started);
        files::write(
            &Self::path(directory),
            content.as_bytes(),
            0o644,
            None,
            files::Until::Seen,
        )
    }

    /// Why there is none, if there is none.
    pub fn read(directory: &Path) -> Result<Self, String> {
        let path = Self::path(directory);
        let text = files::read_text(&path)
            .map_err(|error| format!("the agent was not started by obgp-runtime agent, which health needs: {error}"))?;
        let parse = || {
            let (pid, started) = text.trim_end().split_once(' ')?;
            Some(Self {
                pid: pid.parse().ok()?,
                started: started.parse().ok()?,
            })
        };
        parse().ok_or_else(|| format!("{} does not have a PID and a start time", path.display()))
    }

    /// Seconds since the process was started.
    pub fn age(&self) -> io::Result<u64> {
        /// USER_HZ, of every architecture that the image is made for.
        const TICKS: u64 = 100;
        let uptime = std::fs::read_to_string("/proc/uptime")?;
        let seconds = uptime.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok());
        let seconds =
            seconds.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/uptime is not as proc(5) says"))?;
        Ok(seconds.saturating_sub(self.started / TICKS))
    }

    pub fn state(&self) -> State {
        let pid = self.pid;
        match started(pid) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::Gone(format!("process {pid} is gone")),
            Err(error) => State::Gone(format!("process {pid} cannot be looked at: {error}")),
            Ok((_, started)) if started != self.started => {
                let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                State::Gone(match what_runs(&cmdline) {
                    Some(State::Agent) => {
                        format!("the agent, process {pid}, was not started by obgp-runtime agent, which health needs")
                    }
                    _ => format!("the agent, process {pid}, is gone; another process has its PID"),
                })
            }
            Ok(('Z' | 'X', _)) => State::Gone(format!("process {pid} has ended and is not reaped")),
            Ok((letter, _)) => match std::fs::read(format!("/proc/{pid}/cmdline")) {
                Ok(cmdline) if matches!(letter, 'T' | 't') && what_runs(&cmdline).is_some() => State::Stopped,
                Ok(cmdline) => what_runs(&cmdline).unwrap_or_else(|| {
                    let text = String::from_utf8_lossy(&cmdline).replace('\0', " ");
                    State::Gone(format!("process {pid} is not the agent but {:?}", text.trim_end()))
                }),
                Err(error) => State::Gone(format!("process {pid} cannot be looked at: {error}")),
            },
        }
    }
}

/// By the words of a command line, each ended by a NUL. A Python script comes after its interpreter, which may have options.
fn what_runs(cmdline: &[u8]) -> Option<State> {
    let words: Vec<&str> = cmdline
        .split(|&byte| byte == 0)
        .map(|word| std::str::from_utf8(word).unwrap_or(""))
        .collect();
    let name = |word: &str| {
        Path::new(word)
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let program = name(words.first()?)?;
    let script = words.iter().skip(1).find(|word| !word.starts_with('-'));
    let is_agent = |word: &str| name(word).as_deref() == Some("ovn-bgp-agent");
    if is_agent(&program) || (program.starts_with("python") && script.is_some_and(|word| is_agent(word))) {
        return Some(State::Agent);
    }
    (program == "obgp-runtime" && words.get(1) == Some(&"agent")).then_some(State::Waiting)
}

fn stat_path(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/stat"))
}

/// State letter and start time of a process.
fn started(pid: u32) -> io::Result<(char, u64)> {
    let text = std::fs::read_to_string(stat_path(pid))?;
    parse_stat(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "is not as proc(5) says"))
}

/// The name in parentheses may have anything in it, also parentheses.
fn parse_stat(text: &str) -> Option<(char, u64)> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // The 22nd of all, so the 19th after the state, which is the third.
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn stat_is_read_whatever_the_name_is() {
        let tail = "S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 9 9";
        for name in ["python3", "a b", ") Z 1 (", "x)"] {
            assert_eq!(parse_stat(&format!("7 ({name}) {tail}")), Some(('S', 123456)), "{name}");
        }
        for text in [
            "",
            "7",
            "7 (x)",
            "7 (x) S 1 2",
            "7 (x) S 1 7 7 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 x",
        ] {
            assert_eq!(parse_stat(text), None, "{text}");
        }
    }

    #[test]
    fn the_agent_is_told_by_its_command_line() {
        for (cmdline, expected) in [
            (
                &b"/usr/bin/python3\0/usr/local/bin/ovn-bgp-agent\0--config-file\0/x\0"[..],
                Some(State::Agent),
            ),
            (
                b"/usr/bin/python3.11\0-s\0/usr/local/bin/ovn-bgp-agent\0",
                Some(State::Agent),
            ),
            (b"ovn-bgp-agent\0", Some(State::Agent)),
            (b"/usr/local/bin/obgp-runtime\0agent\0", Some(State::Waiting)),
            (b"obgp-runtime\0health\0live\0", None),
            (
                b"/usr/bin/python3\0/usr/local/bin/privsep-helper\0ovn-bgp-agent\0",
                None,
            ),
            (b"grep\0ovn-bgp-agent\0", None),
            (b"", None),
            (b"\xff\0", None),
        ] {
            assert_eq!(what_runs(cmdline), expected, "{}", String::from_utf8_lossy(cmdline));
        }
    }

    #[test]
    fn a_pid_that_somebody_else_has_is_not_the_agent() {
        let directory = tempfile::tempdir().unwrap();
        assert!(
            Record::read(directory.path())
                .unwrap_err()
                .contains("was not started by")
        );

        let record = Record::of(std::process::id()).unwrap();
        record.write(directory.path()).unwrap();
        assert_eq!(Record::read(directory.path()), Ok(record));
        assert!(record.age().unwrap() < 3600);
        // This test is a process, but not the agent.
        assert!(matches!(record.state(), State::Gone(why) if why.contains("is not the agent but")));
        let older = Record {
            started: record.started - 1,
            ..record
        };
        assert!(matches!(older.state(), State::Gone(why) if why.contains("another process has its PID")));

        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let (_, started) = started(child.id()).unwrap();
        let record = Record {
            pid: child.id(),
            started,
        };
        child.kill().unwrap();
        // Dead, but a zombie until it is waited for.
        let zombie = loop {
            match record.state() {
                State::Gone(why) if why.contains("not reaped") => break why,
                _ => std::thread::sleep(std::time::Duration::from_millis(5)),
            }
        };
        assert!(zombie.contains("has ended"));
        child.wait().unwrap();
        assert!(matches!(record.state(), State::Gone(why) if why.ends_with("is gone")));

        for text in ["", "7", "7 x", "x 7", "-1 7"] {
            std::fs::write(directory.path().join("agent.pid"), text).unwrap();
            assert!(
                Record::read(directory.path()).unwrap_err().contains("does not have"),
                "{text}"
            );
        }
    }
}
