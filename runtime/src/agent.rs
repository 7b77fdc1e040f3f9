//! `obgp-runtime agent`: what frr-init found out about the node becomes a running ovn-bgp-agent.
//!
//! It waits for `bgp-config.env` and for FRR, writes the agent's per-node options to a second configuration file, sees to the
//! routing table of the provider bridge, and starts the agent as its child (see [`child`]): signals go to the agent, its exit
//! code is this program's. `agent.pid` names the process for `health`, and the agent writes its signs of life to `state.json`.
//!
//! `health ready`, which the kubelet runs anyway, writes the mark `ready` while the agent is ready and removes it when it is
//! not; here it is removed at the start and at the end.

mod child;
pub mod node;
pub mod options;
pub mod record;
pub mod tables;
mod wait;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::Failure;
use crate::drain;
use crate::files;
use crate::preflight::{Pod, Preflight};
use crate::vty::{Connection, VtyError};
use node::Node;
use options::Options;
use record::Record;
use wait::Waiting;

/// FRR has had mgmtd since this version, and needs it to be configured.
const FIRST_WITH_MGMTD: u32 = 9;

/// How long a daemon may take for an answer before it counts as not up yet.
const ANSWER: Duration = Duration::from_secs(2);

/// Start the agent when the node and FRR are ready for it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: obgp-runtime agent --config /etc/ovn-bgp-agent/ovn-bgp-agent.conf --timeout 120\n\n\
                  Exit status: 1 when something is missing at the deadline, 143 or 130 when terminated while waiting; \
                  after that the agent's, or 128 plus the number of the signal that ended it."
)]
pub struct Args {
    #[command(flatten)]
    pub place: Place,
    /// The agent's program
    #[arg(long, value_name = "FILE", default_value = "/usr/local/bin/ovn-bgp-agent")]
    program: PathBuf,
    /// The names of routing tables
    #[arg(long, value_name = "FILE", default_value = "/etc/iproute2/rt_tables")]
    rt_tables: PathBuf,
    /// Bridge that is to have a routing table [default: the interface that frr-init used]
    #[arg(long, value_name = "NAME", env = "INTERFACE")]
    interface: Option<String>,
    /// Seconds to wait for frr-init and FRR together
    #[arg(long, value_name = "SECONDS", default_value_t = 300, env = "AGENT_TIMEOUT",
          value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: u64,
    #[command(flatten)]
    preflight: Preflight,
    /// Seconds that the agent has to end after SIGTERM or SIGINT; then it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 4, env = "AGENT_STOP_TIMEOUT",
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    stop_timeout: u64,
}

/// Where the pod's containers meet; `agent` and `health` have to agree on it.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// The agent's mounted configuration
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/ovn-bgp-agent/ovn-bgp-agent.conf",
        env = "AGENT_CONFIG"
    )]
    pub config: PathBuf,
    /// Directory shared with frr-init: bgp-config.env, node.conf, agent.pid, state.json, ready
    #[arg(long, value_name = "DIR", default_value = "/run/ovn-bgp-agent", env = "SHARED_DIR")]
    pub shared_dir: PathBuf,
    /// Directory with FRR's sockets
    #[arg(long, value_name = "DIR", default_value = "/run/frr", env = "FRR_SOCKETS")]
    pub frr_sockets: PathBuf,
}

impl Place {
    pub fn env_file(&self) -> PathBuf {
        self.shared_dir.join("bgp-config.env")
    }

    pub fn node_conf(&self) -> PathBuf {
        self.shared_dir.join("node.conf")
    }

    /// Where the agent writes when and how its reconciliations ended.
    pub fn state_file(&self) -> PathBuf {
        self.shared_dir.join("state.json")
    }

    pub fn ready_mark(&self) -> PathBuf {
        self.shared_dir.join("ready")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("{what} after {seconds} s: {reason}")]
    Deadline {
        what: &'static str,
        seconds: u64,
        reason: String,
    },
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} cannot be in a command line that sudo and privsep split at blanks: use letters, digits and ./_-", .0.display())]
    Path(PathBuf),
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let place = &args.place;
    // As PID 1 a process without handlers does not die of them: the pod would wait out its grace period.
    let waiting = Arc::new(AtomicBool::new(true));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, waiting.clone())?;
    }
    prepare(args)?;
    let failed = |doing| {
        let path = args.program.clone();
        move |source| AgentError::Io { doing, path, source }
    };
    let mut signals = child::Signals::register()?;
    waiting.store(false, Ordering::SeqCst);
    say(&format!("starting {}", args.program.display()));
    let agent = child::start(&mut command(args)?).map_err(failed("start"))?;
    Record::of(agent.as_raw_pid() as u32)?.write(&place.shared_dir)?;
    let code = child::wait(agent, &mut signals, Duration::from_secs(args.stop_timeout)).map_err(failed("wait for"))?;
    say(&format!("the agent ended with {code}"));
    remove_stale(&place.ready_mark())?;
    Ok(ExitCode::from(code))
}

fn command(args: &Args) -> Result<Command, AgentError> {
    let (config, node_conf) = (&args.place.config, args.place.node_conf());
    let mut command = Command::new(&args.program);
    for file in [config, &node_conf] {
        command.arg("--config-file").arg(file);
    }
    command.envs(privsep_environment(config, &node_conf)?);
    command.env("OVN_BGP_AGENT_STATE_FILE", args.place.state_file());
    Ok(command)
}

/// Everything before the agent's start.
fn prepare(args: &Args) -> Result<(), Failure> {
    let place = &args.place;
    remove_stale(&place.ready_mark())?;
    remove_stale(&place.state_file())?;
    args.preflight.agent(&Pod {
        config: &place.config,
        frr_sockets: &place.frr_sockets,
        rt_tables: &args.rt_tables,
        interface: args.interface.as_deref().filter(|name| !name.is_empty()),
        env_file: &place.env_file(),
    })?;
    Record::of(std::process::id())?.write(&place.shared_dir)?;
    // Before anything is waited for: a mistake in it is told at once.
    let options = Options::load(&place.config)?;
    options.connections()?;

    let mut waiting = Waiting::new(Duration::from_secs(args.timeout));
    let env_file = place.env_file();
    waiting.until("frr-init has not finished", || match env_file.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("there is no {}", env_file.display())),
        Err(error) => Err(format!("{}: {error}", env_file.display())),
    })?;
    let node = Node::parse(&files::read_text(&env_file)?, &env_file)?;
    say(&format!(
        "{} has AS {} and router ID {}",
        node.name, node.asn, node.router_id
    ));

    let version = waiting.until("FRR does not answer", || frr_answers(&place.frr_sockets))?;
    say(&format!("FRR {version} answers"));
    drain::undo(&node, &place.shared_dir, &place.frr_sockets)?;

    let interface = args
        .interface
        .as_deref()
        .filter(|name| !name.is_empty())
        .unwrap_or(&node.interface);
    say(&tables::ensure(&args.rt_tables, interface, &options)?.to_string());

    let content = node_conf(&node, &options, &env_file);
    files::write(&place.node_conf(), content.as_bytes(), 0o644, None, files::Until::Seen)?;
    Ok(())
}

fn say(text: &str) {
    eprintln!("obgp-runtime agent: {text}");
}

fn remove_stale(mark: &Path) -> Result<(), AgentError> {
    match std::fs::remove_file(mark) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(AgentError::Io {
            doing: "remove what an earlier run left,",
            path: mark.to_path_buf(),
            source,
        }),
        _ => Ok(()),
    }
}

/// The version of an FRR of which every daemon that the agent configures answers; else what is missing.
fn frr_answers(sockets: &Path) -> Result<String, String> {
    let ask = |daemon: &str| {
        let mut connection = Connection::open(sockets, daemon, ANSWER)?;
        connection.ask("show version")
    };
    let text = |error: VtyError| error.to_string();
    let answer = ask("zebra").map_err(text)?.text;
    // "FRRouting 10.3 (worker1) on Linux(6.12.0)."
    let version = answer
        .split_whitespace()
        .nth(1)
        .unwrap_or("of an unknown version")
        .to_string();
    ask("bgpd").map_err(text)?;
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match ask("mgmtd") {
        Err(error) if error.is_absence() && major.is_some_and(|major| major < FIRST_WITH_MGMTD) => Ok(version),
        Err(error) => Err(error.to_string()),
        Ok(_) => Ok(version),
    }
}

/// The options that differ from node to node. The mounted file has the others, and keeps its EVPN address if it has one.
fn node_conf(node: &Node, options: &Options, source: &Path) -> String {
    let mut text = format!(
        "# Written by obgp-runtime agent from {} at every start.\n[DEFAULT]\nbgp_AS = {}\nbgp_router_id = {}\n",
        source.display(),
        node.asn,
        node.router_id
    );
    let configured = |name| options.get("DEFAULT", name).is_some();
    if node.evpn_peer.is_some() && !configured("evpn_local_ip") && !configured("evpn_nic") {
        text += &format!("evpn_local_ip = {}\n", node.address);
    }
    text
}

/// How the agent starts its root helpers. From the environment, because oslo.config lets it win over any file.
fn privsep_environment(config: &Path, node_conf: &Path) -> Result<[(&'static str, String); 3], AgentError> {
    let mut helper = String::from("sudo obgp-runtime privsep");
    for path in [config, node_conf] {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"./_-".contains(byte);
        match path.to_str().filter(|text| text.as_bytes().iter().all(plain)) {
            Some(text) => helper += &format!(" --config-file {text}"),
            None => return Err(AgentError::Path(path.to_path_buf())),
        }
    }
    let variables = [
        "OS_PRIVSEP__HELPER_COMMAND",
        "OS_PRIVSEP_OVS_VSCTL__HELPER_COMMAND",
        "OS_PRIVSEP_VTYSH__HELPER_COMMAND",
    ];
    Ok(variables.map(|variable| (variable, helper.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_conf_has_what_differs_from_node_to_node() {
        let env = Path::new("/run/x/bgp-config.env");
        let text = "NODE_NAME='w1'\nNODE_IP='10.0.0.1'\nINTERFACE='br-ex'\nBGP_AS='4200000001'\nBGP_ROUTER_ID='10.0.0.9'\nBGP_PEER_IP='10.0.0.2'\n";
        let node = Node::parse(text, env).unwrap();
        let options = |text: &str| Options::parse(text, env).unwrap();
        let expected = "# Written by obgp-runtime agent from /run/x/bgp-config.env at every start.\n[DEFAULT]\n\
                        bgp_AS = 4200000001\nbgp_router_id = 10.0.0.9\n";
        assert_eq!(node_conf(&node, &options(""), env), expected);

        let node = Node::parse(&format!("{text}EVPN_RR_IP='10.9.9.9'\n"), env).unwrap();
        assert_eq!(
            node_conf(&node, &options(""), env),
            format!("{expected}evpn_local_ip = 10.0.0.1\n")
        );
        for own in ["evpn_nic = lo", "evpn_local_ip = 10.7.7.7"] {
            assert_eq!(
                node_conf(&node, &options(&format!("[DEFAULT]\n{own}\n")), env),
                expected
            );
        }
    }

    #[test]
    fn the_root_helpers_get_the_same_configuration() {
        let environment = privsep_environment(Path::new("/etc/a/a.conf"), Path::new("/run/a/node.conf")).unwrap();
        for (_, value) in &environment {
            assert_eq!(
                value,
                "sudo obgp-runtime privsep --config-file /etc/a/a.conf --config-file /run/a/node.conf"
            );
        }
        for path in ["/etc/a b.conf", "/etc/a;b", "/etc/'a"] {
            assert!(privsep_environment(Path::new(path), Path::new("/x")).is_err(), "{path}");
        }
    }

    #[test]
    fn a_stale_mark_goes_and_one_that_cannot_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("ready");
        remove_stale(&mark).unwrap();
        std::fs::write(&mark, "").unwrap();
        remove_stale(&mark).unwrap();
        assert!(!mark.exists());
        std::fs::create_dir(&mark).unwrap();
        assert!(
            remove_stale(&mark)
                .unwrap_err()
                .to_string()
                .contains("cannot remove what an earlier run left")
        );
    }
}
