//! `agent.pid` in the shared directory <-> the process of the agent and its state in /proc.
//!
//! A PID can be reused by another process. The start time tells the two apart. `obgp-runtime agent` records its own process
//! while it waits, then the agent's.

use std::io;
use std::path::{Path, PathBuf};

use crate::files::{self, Durability, FileError};

/// Identifies a process uniquely since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PidRecord {
    pub pid: u32,
    /// In clock ticks since boot, as in /proc/PID/stat.
    pub started: u64,
}

/// The state of the recorded process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// `obgp-runtime agent` runs and has not started the agent yet.
    Waiting,
    /// The agent runs.
    Agent,
    /// The agent is stopped by a signal or a debugger.
    Stopped,
    /// Neither of them runs, for this reason.
    Gone(String),
}

impl PidRecord {
    fn path(directory: &Path) -> PathBuf {
        directory.join("agent.pid")
    }

    pub fn of(pid: u32) -> Result<Self, FileError> {
        match read_stat(pid) {
            Ok((_, started)) => Ok(Self { pid, started }),
            Err(source) => Err(FileError::Io {
                doing: "read",
                path: stat_path(pid),
                source,
            }),
        }
    }

    pub fn write(&self, directory: &Path) -> Result<(), FileError> {
        let content = format!("{} {}\n", self.pid, self.started);
        files::write(
            &Self::path(directory),
            content.as_bytes(),
            0o644,
            None,
            Durability::Visible,
        )
    }

    /// The record, or why it cannot be read.
    pub fn read(directory: &Path) -> Result<Self, String> {
        let path = Self::path(directory);
        let text = files::read_text(&path)
            .map_err(|error| format!("health needs an agent started by obgp-runtime agent: {error}"))?;
        let parse = || {
            let (pid, started) = text.trim_end().split_once(' ')?;
            Some(Self {
                pid: pid.parse().ok()?,
                started: started.parse().ok()?,
            })
        };
        parse().ok_or_else(|| format!("{} does not contain a PID and a start time", path.display()))
    }

    /// Seconds since the process started.
    pub fn age(&self) -> io::Result<u64> {
        /// USER_HZ on every architecture that the image is built for.
        const TICKS: u64 = 100;
        let uptime = std::fs::read_to_string("/proc/uptime")?;
        let seconds = uptime.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok());
        let seconds = seconds.ok_or_else(|| malformed("/proc/uptime does not have the format of proc(5)"))?;
        Ok(seconds.saturating_sub(self.started / TICKS))
    }

    pub fn state(&self) -> ProcessState {
        let pid = self.pid;
        match read_stat(pid) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                ProcessState::Gone(format!("process {pid} is gone"))
            }
            Err(error) => ProcessState::Gone(format!("cannot inspect process {pid}: {error}")),
            Ok((_, started)) if started != self.started => {
                let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                ProcessState::Gone(match identify(&cmdline) {
                    Some(ProcessState::Agent) => {
                        format!("health needs an agent started by obgp-runtime agent, and process {pid} was not")
                    }
                    _ => format!("the agent, process {pid}, is gone; another process has its PID"),
                })
            }
            Ok(('Z' | 'X', _)) => ProcessState::Gone(format!("process {pid} has ended and is not reaped")),
            Ok((letter, _)) => match std::fs::read(format!("/proc/{pid}/cmdline")) {
                Ok(cmdline) if matches!(letter, 'T' | 't') && identify(&cmdline).is_some() => ProcessState::Stopped,
                Ok(cmdline) => identify(&cmdline).unwrap_or_else(|| {
                    let text = String::from_utf8_lossy(&cmdline).replace('\0', " ");
                    ProcessState::Gone(format!("process {pid} is not the agent but {:?}", text.trim_end()))
                }),
                Err(error) => ProcessState::Gone(format!("cannot inspect process {pid}: {error}")),
            },
        }
    }
}

/// Identifies a process by its command line, whose arguments end with a NUL. A Python script follows its interpreter and the
/// interpreter's options.
fn identify(cmdline: &[u8]) -> Option<ProcessState> {
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
        return Some(ProcessState::Agent);
    }
    (program == "obgp-runtime" && words.get(1) == Some(&"agent")).then_some(ProcessState::Waiting)
}

fn stat_path(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/stat"))
}

/// The state letter and the start time of a process.
fn read_stat(pid: u32) -> io::Result<(char, u64)> {
    let text = std::fs::read_to_string(stat_path(pid))?;
    parse_stat(&text).ok_or_else(|| malformed("it does not have the format of proc(5)"))
}

fn malformed(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// The process name in parentheses may contain anything, including parentheses.
fn parse_stat(text: &str) -> Option<(char, u64)> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // The start time is field 22, the 19th after the state, which is field 3.
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn stat_is_parsed_with_any_process_name() {
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
    fn the_agent_is_recognized_by_its_command_line() {
        for (cmdline, expected) in [
            (
                &b"/usr/bin/python3\0/usr/local/bin/ovn-bgp-agent\0--config-file\0/x\0"[..],
                Some(ProcessState::Agent),
            ),
            (
                b"/usr/bin/python3.11\0-s\0/usr/local/bin/ovn-bgp-agent\0",
                Some(ProcessState::Agent),
            ),
            (b"ovn-bgp-agent\0", Some(ProcessState::Agent)),
            (b"/usr/local/bin/obgp-runtime\0agent\0", Some(ProcessState::Waiting)),
            (b"obgp-runtime\0health\0live\0", None),
            (
                b"/usr/bin/python3\0/usr/local/bin/privsep-helper\0ovn-bgp-agent\0",
                None,
            ),
            (b"grep\0ovn-bgp-agent\0", None),
            (b"", None),
            (b"\xff\0", None),
        ] {
            assert_eq!(identify(cmdline), expected, "{}", String::from_utf8_lossy(cmdline));
        }
    }

    #[test]
    fn a_reused_pid_is_not_the_agent() {
        let directory = tempfile::tempdir().unwrap();
        assert!(
            PidRecord::read(directory.path())
                .unwrap_err()
                .contains("needs an agent started by")
        );

        let record = PidRecord::of(std::process::id()).unwrap();
        record.write(directory.path()).unwrap();
        assert_eq!(PidRecord::read(directory.path()), Ok(record));
        assert!(record.age().unwrap() < 3600);
        // The process of this test is not the agent.
        assert!(matches!(record.state(), ProcessState::Gone(why) if why.contains("is not the agent but")));
        let older = PidRecord {
            started: record.started - 1,
            ..record
        };
        assert!(matches!(older.state(), ProcessState::Gone(why) if why.contains("another process has its PID")));

        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let (_, started) = read_stat(child.id()).unwrap();
        let record = PidRecord {
            pid: child.id(),
            started,
        };
        child.kill().unwrap();
        // It is a zombie until the wait below.
        let zombie = loop {
            match record.state() {
                ProcessState::Gone(why) if why.contains("not reaped") => break why,
                _ => std::thread::sleep(std::time::Duration::from_millis(5)),
            }
        };
        assert!(zombie.contains("has ended"));
        child.wait().unwrap();
        assert!(matches!(record.state(), ProcessState::Gone(why) if why.ends_with("is gone")));

        for text in ["", "7", "7 x", "x 7", "-1 7"] {
            std::fs::write(directory.path().join("agent.pid"), text).unwrap();
            assert!(
                PidRecord::read(directory.path())
                    .unwrap_err()
                    .contains("does not contain"),
                "{text}"
            );
        }
    }
}
