//! `obgp-runtime health`: what /proc, the kernel's sockets and FRR say about the agent becomes an exit code and a line.
//!
//! Each check asks for what the one before it asks, and more. `live`: the process that `obgp-runtime agent` started is there,
//! is the agent, is not stopped, and gave a sign of life not too long ago (or `obgp-runtime agent` still waits to start it,
//! which has a deadline of its own); BGP has no part in it. `startup`: it is the agent and has its OVSDB connections. `ready`:
//! besides, its reconciliations succeed, and FRR has an established session with a leaf, and with the EVPN peer if there is one.
//!
//! `ready` also keeps the mark in the shared directory true: it is there from the first check that the agent passes, and away
//! from the first that it does not. `agent` removes it at its start.

pub(crate) mod bgp;
mod open;
mod sock_diag;
mod sockets;
mod state;

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use crate::agent::Place;
use crate::agent::node::Node;
use crate::agent::options::{Options, OptionsError};
use crate::agent::record::{Record, State};
use crate::cli::Failure;
use crate::files;
use state::State as Reconciled;

/// The agent writes a sign of life each second while a reconciliation makes progress: one that takes minutes is not silent.
const SILENCE: u64 = 300;

/// Answer the probes of the agent's container
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: obgp-runtime health ready --json\n\n\
                  Exit status: 0 it is, 1 it is not (the reason is printed), 2 the command line is wrong.\n\
                  `ready` writes and removes the file `ready` in the shared directory.")]
pub struct Args {
    /// What is asked
    check: Check,
    #[command(flatten)]
    place: Place,
    /// How long FRR may take for its answer; the kubelet gives a probe 1 s unless told otherwise
    #[arg(long, value_name = "SECONDS", default_value = "0.8", value_parser = seconds)]
    timeout: Duration,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bounds: Bounds,
}

/// How old the agent's signs may be, in seconds. The defaults follow the intervals in its configuration.
#[derive(Debug, clap::Args)]
struct Bounds {
    /// live: without a sign of life; 0 for any time [default: 300, or 4 x frr_reconcile_interval if that is more]
    #[arg(long, env = "HEALTH_MAX_SILENCE", value_name = "SECONDS")]
    max_silence: Option<u64>,
    /// ready: since the last sync that succeeded [default: 3 x reconcile_interval, 900]
    #[arg(long, env = "HEALTH_MAX_SYNC_AGE", value_name = "SECONDS")]
    max_sync_age: Option<u64>,
    /// ready: since the last frr_sync that succeeded [default: 4 x frr_reconcile_interval, 60]
    #[arg(long, env = "HEALTH_MAX_FRR_SYNC_AGE", value_name = "SECONDS")]
    max_frr_sync_age: Option<u64>,
}

impl Bounds {
    fn silence(&self, options: &Options) -> Result<u64, OptionsError> {
        let frr = options.interval("frr_reconcile_interval", 15)?;
        Ok(self.max_silence.unwrap_or(SILENCE.max(frr.saturating_mul(4))))
    }

    /// By the agent's names for its reconciliations.
    fn ages(&self, options: &Options) -> Result<[(&'static str, u64); 2], OptionsError> {
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
    /// The agent's process is there and gives signs of life
    Live,
    /// It has its OVSDB connections
    Startup,
    /// Its reconciliations succeed and FRR has its BGP sessions, too
    Ready,
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds = text
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let allowed = Duration::from_millis(10)..=Duration::from_secs(600);
    seconds
        .filter(|seconds| allowed.contains(seconds))
        .ok_or("a number of seconds from 0.01 to 600 is expected")
}

/// What was found, as far as the check went.
#[derive(Debug, Serialize)]
struct Report {
    check: Check,
    ok: bool,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Reconciled>,
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
    let outcome = examine(args, &mut report);
    let outcome = match args.check {
        Check::Ready => mark(&args.place.ready_mark(), outcome),
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

/// Why it is, or why it is not.
fn examine(args: &Args, report: &mut Report) -> Result<String, String> {
    let place = &args.place;
    let record = Record::read(&place.shared_dir)?;
    let pid = record.pid;
    match record.state() {
        State::Gone(why) => return Err(why),
        State::Waiting if args.check == Check::Live => return Ok(format!("process {pid} waits for frr-init and FRR")),
        State::Waiting => return Err(format!("process {pid} still waits for frr-init and FRR")),
        State::Stopped => {
            return Err(format!(
                "process {pid}, the agent, is stopped: kill -CONT {pid} lets it go on"
            ));
        }
        State::Agent => {}
    }
    report.pid = Some(pid);
    let mut reason = format!("process {pid} is the agent");
    let options = Options::load(&place.config).map_err(|error| error.to_string());
    if args.check == Check::Live {
        // A configuration that cannot be read any more does not make the agent a dead one.
        let longest = args.bounds.silence(&options.unwrap_or_default()).unwrap_or(SILENCE);
        return match longest {
            0 => Ok(reason),
            longest => lives(args, &record, report, longest).map(|sign| format!("{reason}, {sign}")),
        };
    }

    let options = options?;
    let expected = options.connections().map_err(|error| error.to_string())?;
    let peers = sockets::peers(pid).map_err(|error| format!("the agent's connections cannot be listed: {error}"))?;
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
    if crate::drain::mark(&place.shared_dir).exists() {
        return Err("the node is drained until the agent starts again, or obgp-runtime drain --undo".into());
    }
    let sessions = established(args, report)?;
    let synced = succeeds(args, &options, pid, report)?;
    Ok(format!("{reason}, {sessions}, {synced}"))
}

/// The sign of life: what the agent wrote, or its start if it has not written yet.
fn lives(args: &Args, record: &Record, report: &mut Report, longest: u64) -> Result<String, String> {
    let path = args.place.state_file();
    report.state = Reconciled::read(&path, record.pid)?;
    if let Some(state) = &report.state {
        return state.lives(state::now(), longest);
    }
    let age = record.age().map_err(|error| error.to_string())?;
    let missing = format!(
        "it was started {} s ago and has not written {} yet",
        age,
        path.display()
    );
    match age <= longest {
        true => Ok(missing),
        false => Err(format!("the agent hangs: {missing} (at most {longest} s are allowed)")),
    }
}

fn established(args: &Args, report: &mut Report) -> Result<String, String> {
    let env_file = args.place.env_file();
    let text = files::read_text(&env_file).map_err(|error| error.to_string())?;
    let node = Node::parse(&text, &env_file).map_err(|error| error.to_string())?;
    report.bgp = bgp::sessions(&args.place.frr_sockets, args.timeout, &node)?;
    bgp::judge(&report.bgp)
}

/// The agent's reconciliations, all of them.
fn succeeds(args: &Args, options: &Options, pid: u32, report: &mut Report) -> Result<String, String> {
    let path = args.place.state_file();
    report.state = Reconciled::read(&path, pid)?;
    let Some(state) = &report.state else {
        return Err(format!(
            "the agent has not begun its first sync: it has not written {}",
            path.display()
        ));
    };
    let (now, mut found) = (state::now(), Vec::new());
    for (name, longest) in args.bounds.ages(options).map_err(|error| error.to_string())? {
        found.push(state.succeeds(name, now, longest)?);
    }
    Ok(found.join(", "))
}

/// Writes or removes the mark; what cannot be marked is not ready, as others rely on the mark.
fn mark(path: &std::path::Path, outcome: Result<String, String>) -> Result<String, String> {
    match outcome {
        Ok(_) if path.is_file() => outcome,
        Ok(reason) => {
            files::write(path, b"", 0o644, None, files::Until::Seen)
                .map_err(|error| format!("the mark cannot be written: {error}"))?;
            Ok(reason)
        }
        Err(reason) => match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!(
                "{reason}; and the mark {} cannot be removed: {error}",
                path.display()
            )),
            _ => Err(reason),
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
        assert_eq!(mark(&path, Err("no".into())), Err("no".into()));
        assert!(!path.exists());
        for _ in 0..2 {
            assert_eq!(mark(&path, Ok("yes".into())), Ok("yes".into()));
            assert!(path.is_file());
        }
        assert_eq!(mark(&path, Err("no".into())), Err("no".into()));
        assert!(!path.exists());
        let nowhere = directory.path().join("none/ready");
        assert!(
            mark(&nowhere, Ok("yes".into()))
                .unwrap_err()
                .contains("the mark cannot be written")
        );
        std::fs::create_dir(&path).unwrap();
        assert!(
            mark(&path, Err("no".into()))
                .unwrap_err()
                .starts_with("no; and the mark")
        );
    }

    #[test]
    fn timeouts_are_seconds() {
        assert_eq!(seconds("0.8"), Ok(Duration::from_millis(800)));
        for text in ["", "0", "-1", "601", "nan", "inf", "1s"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
