//! `obgp-runtime health`: /proc, the kernel's sockets and FRR -> whether the agent is live, started or ready.
//!
//! Each check includes the one before it. `live`: the process that `obgp-runtime agent` started exists, is the agent, is not stopped
//! and gave a recent sign of life; or `obgp-runtime agent` still waits to start it, which has its own deadline. BGP does not
//! matter. `startup`: it is the agent and has its OVSDB connections. `ready`: also, its reconciliations succeed, and FRR has an
//! established session with a leaf switch, and with the EVPN peer if there is one.
//!
//! `ready` also maintains the file `ready` in the shared directory: a passed check creates it, a failed check removes it. `agent`
//! removes it when it starts.

mod sock_diag;
mod sockets;
mod state;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use crate::agent_options::{AgentOptions, OptionsError};
use crate::agent_pid::{PidRecord, ProcessState};
use crate::bgp;
use crate::failure::Failure;
use crate::files::{self, Durability};
use crate::node::Node;
use crate::paths::{self, Paths};
use state::AgentState;

/// In seconds. During a reconciliation that makes progress the agent gives a sign of life every second, so a reconciliation that
/// takes minutes is not silent.
const MAX_SILENCE: u64 = 300;

/// Answer the probes of the agent's container
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: obgp-runtime health ready --json\n\n\
                  Exit status: 0 yes, 1 no (the reason is printed), 2 wrong command line.\n\
                  `ready` also creates or removes the file `ready` in the shared directory.")]
pub struct Args {
    /// Check to run
    check: Check,
    #[command(flatten)]
    paths: Paths,
    /// Time limit for FRR's answer; the kubelet's default for a whole probe is 1 s
    #[arg(long, value_name = "SECONDS", default_value = "0.8", value_parser = seconds)]
    timeout: Duration,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bounds: Bounds,
}

/// Age limits, in seconds. The defaults depend on the intervals in the agent's configuration.
#[derive(Debug, clap::Args)]
struct Bounds {
    /// live: since the last sign of life; 0 for no limit [default: 300, or 4 x frr_reconcile_interval if that is more]
    #[arg(long, env = "HEALTH_MAX_SILENCE", value_name = "SECONDS")]
    max_silence: Option<u64>,
    /// ready: since the last successful sync [default: 3 x reconcile_interval, 900]
    #[arg(long, env = "HEALTH_MAX_SYNC_AGE", value_name = "SECONDS")]
    max_sync_age: Option<u64>,
    /// ready: since the last successful frr_sync [default: 4 x frr_reconcile_interval, 60]
    #[arg(long, env = "HEALTH_MAX_FRR_SYNC_AGE", value_name = "SECONDS")]
    max_frr_sync_age: Option<u64>,
}

impl Bounds {
    fn silence(&self, options: &AgentOptions) -> Result<u64, OptionsError> {
        let frr = options.interval("frr_reconcile_interval", 15)?;
        Ok(self.max_silence.unwrap_or(MAX_SILENCE.max(frr.saturating_mul(4))))
    }

    /// The limit for each kind of reconciliation, by the agent's names.
    fn ages(&self, options: &AgentOptions) -> Result<[(&'static str, u64); 2], OptionsError> {
        let (sync, frr) = (
            options.interval("reconcile_interval", 300)?,
            options.interval("frr_reconcile_interval", 15)?,
        );
        Ok([
            ("sync", self.max_sync_age.unwrap_or(sync.saturating_mul(3))),
            ("frr_sync", self.max_frr_sync_age.unwrap_or(frr.saturating_mul(4))),
        ])
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Check {
    /// The agent's process exists and gives signs of life
    Live,
    /// It also has its OVSDB connections
    Startup,
    /// Its reconciliations also succeed, and FRR has its BGP sessions
    Ready,
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    // Integers, because the tables for parsing floats would add 10 kB to the program.
    let parse = || {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let nanos = format!("{fraction:0<9}");
        if !digits(whole) || !digits(fraction) || nanos.len() != 9 {
            return None;
        }
        Some(Duration::new(whole.parse().ok()?, nanos.parse().ok()?))
    };
    let allowed = Duration::from_millis(10)..=Duration::from_secs(600);
    parse()
        .filter(|seconds| allowed.contains(seconds))
        .ok_or("a number of seconds from 0.01 to 600 is expected")
}

/// The findings, up to the first failure.
#[derive(Debug, Serialize)]
struct Report {
    check: Check,
    ok: bool,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<AgentState>,
    ovsdb: Vec<Connected>,
    bgp: Vec<bgp::Session>,
}

#[derive(Debug, Serialize)]
struct Connected {
    option: &'static str,
    connected: bool,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut report = Report {
        check: args.check,
        ok: false,
        reason: String::new(),
        pid: None,
        state: None,
        ovsdb: Vec::new(),
        bgp: Vec::new(),
    };
    let outcome = check(args, &mut report);
    let outcome = match args.check {
        Check::Ready => update_mark(&args.paths.ready_mark(), outcome),
        _ => outcome,
    };
    (report.ok, report.reason) = match outcome {
        Ok(reason) => (true, reason),
        Err(reason) => (false, reason),
    };
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        let name = format!("{:?}", args.check).to_lowercase();
        println!("{}{name}: {}", if report.ok { "" } else { "not " }, report.reason);
    }
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the check. Both results are the reason.
fn check(args: &Args, report: &mut Report) -> Result<String, String> {
    let paths = &args.paths;
    let record = PidRecord::read(&paths.shared_dir)?;
    let pid = record.pid;
    match record.state() {
        ProcessState::Gone(why) => return Err(why),
        ProcessState::Waiting if args.check == Check::Live => {
            return Ok(format!("process {pid} waits for frr-init and FRR"));
        }
        ProcessState::Waiting => return Err(format!("process {pid} still waits for frr-init and FRR")),
        ProcessState::Stopped => {
            return Err(format!(
                "process {pid}, the agent, is stopped; kill -CONT {pid} resumes it"
            ));
        }
        ProcessState::Agent => {}
    }
    report.pid = Some(pid);
    let mut reason = format!("process {pid} is the agent");
    let options = AgentOptions::load(&paths.config).map_err(|error| error.to_string());
    if args.check == Check::Live {
        // The agent may be live although its configuration cannot be read any more.
        let longest = args.bounds.silence(&options.unwrap_or_default()).unwrap_or(MAX_SILENCE);
        return match longest {
            0 => Ok(reason),
            longest => check_alive(args, &record, report, longest).map(|sign| format!("{reason}, {sign}")),
        };
    }

    let options = options?;
    let expected = options.connections().map_err(|error| error.to_string())?;
    let peers = sockets::peers(pid).map_err(|error| format!("cannot list the agent's connections: {error}"))?;
    for (expected, connected) in sockets::compare(&expected, &peers) {
        report.ovsdb.push(Connected {
            option: expected.option,
            connected,
        });
    }
    let missing: Vec<&str> = report
        .ovsdb
        .iter()
        .filter(|one| !one.connected)
        .map(|one| one.option)
        .collect();
    if !missing.is_empty() {
        return Err(format!("the agent is not connected to {}", missing.join(" and ")));
    }
    reason += ", its OVSDB connections are up";
    if args.check == Check::Startup {
        return Ok(reason);
    }
    if paths::drained_mark(&paths.shared_dir).exists() {
        return Err("the node is drained; restart the agent or run obgp-runtime drain --undo to end the drain".into());
    }
    let sessions = check_sessions(args, report)?;
    let synced = check_reconciliations(args, &options, pid, report)?;
    Ok(format!("{reason}, {sessions}, {synced}"))
}

/// The last sign of life is the time in the state file or, before the first write, the start of the process.
fn check_alive(args: &Args, record: &PidRecord, report: &mut Report, longest: u64) -> Result<String, String> {
    let path = args.paths.state_file();
    report.state = AgentState::read(&path, record.pid)?;
    if let Some(state) = &report.state {
        return state.check_alive(state::now(), longest);
    }
    let age = record.age().map_err(|error| error.to_string())?;
    let missing = format!("it started {} s ago and has not written {} yet", age, path.display());
    match age <= longest {
        true => Ok(missing),
        false => Err(format!("the agent hangs: {missing} (limit: {longest} s)")),
    }
}

fn check_sessions(args: &Args, report: &mut Report) -> Result<String, String> {
    let node = Node::load(&args.paths.env_file()).map_err(|error| error.to_string())?;
    report.bgp = bgp::sessions(&args.paths.frr_sockets, args.timeout, &node)?;
    bgp::check(&report.bgp)
}

/// Every kind of reconciliation must have succeeded recently.
fn check_reconciliations(args: &Args, options: &AgentOptions, pid: u32, report: &mut Report) -> Result<String, String> {
    let path = args.paths.state_file();
    report.state = AgentState::read(&path, pid)?;
    let Some(state) = &report.state else {
        return Err(format!(
            "the agent has not begun its first sync: it has not written {}",
            path.display()
        ));
    };
    let (now, mut found) = (state::now(), Vec::new());
    for (name, longest) in args.bounds.ages(options).map_err(|error| error.to_string())? {
        found.push(state.check_reconciliation(name, now, longest)?);
    }
    Ok(found.join(", "))
}

/// Creates or removes the mark. An agent whose mark cannot be created is not ready, because others rely on the mark.
fn update_mark(path: &Path, outcome: Result<String, String>) -> Result<String, String> {
    match outcome {
        Ok(_) if path.is_file() => outcome,
        Ok(reason) => {
            files::write(path, b"", 0o644, None, Durability::Visible)
                .map_err(|error| format!("cannot create the mark: {error}"))?;
            Ok(reason)
        }
        Err(reason) => match files::remove(path) {
            Err(error) => Err(format!("{reason}; also, {error}")),
            Ok(()) => Err(reason),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_follows_the_outcome() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready");
        assert_eq!(update_mark(&path, Err("no".into())), Err("no".into()));
        assert!(!path.exists());
        for _ in 0..2 {
            assert_eq!(update_mark(&path, Ok("yes".into())), Ok("yes".into()));
            assert!(path.is_file());
        }
        assert_eq!(update_mark(&path, Err("no".into())), Err("no".into()));
        assert!(!path.exists());
        let nowhere = directory.path().join("none/ready");
        assert!(
            update_mark(&nowhere, Ok("yes".into()))
                .unwrap_err()
                .contains("cannot create the mark")
        );
        std::fs::create_dir(&path).unwrap();
        assert!(
            update_mark(&path, Err("no".into()))
                .unwrap_err()
                .starts_with("no; also, cannot remove")
        );
    }

    #[test]
    fn timeouts_are_decimal_seconds() {
        for (text, milliseconds) in [
            ("0.8", 800),
            ("1", 1000),
            ("600", 600_000),
            ("0.01", 10),
            ("2.050", 2050),
        ] {
            assert_eq!(seconds(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "0", "-1", "601", "nan", "inf", "1s", ".", "1.", ".5", "+1", "1.2.3"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
