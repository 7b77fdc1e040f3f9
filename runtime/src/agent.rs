//! `obgp-runtime agent`: starts ovn-bgp-agent with the node's options once frr-init has finished and FRR answers.
//!
//! Inputs: `bgp-config.env`, the agent's configuration, FRR's sockets, rt_tables, DNS. It writes the per-node options
//! to `node.conf`, among them the OVSDB connections by address instead of by name ([`remotes`]), and ensures that the provider
//! bridge has a routing table ([`tables`]). It runs the agent as its child ([`child`]), which receives its signals and
//! determines its exit code. `agent.pid` identifies the process for `health`; the agent writes `state.json`.
//!
//! `health ready`, which the kubelet runs periodically, creates the file `ready` while the agent is ready and removes it
//! otherwise. This command removes it when it starts and when the agent ends.

mod child;
mod deadline;
mod remotes;
mod tables;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::agent_options::AgentOptions;
use crate::agent_pid::PidRecord;
use crate::drain;
use crate::failure::Failure;
use crate::files::{self, Durability};
use crate::node::Node;
use crate::paths::Paths;
use crate::preflight::{Pod, Preflight};
use crate::signals;
use crate::vty::{Connection, VtyError};
use deadline::Deadline;
use remotes::Resolved;

/// FRR has mgmtd since this version, and is configured through it.
const FIRST_WITH_MGMTD: u32 = 9;

/// A daemon that takes longer to answer counts as not started yet.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(2);

/// Start the agent when the node and FRR are ready for it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: obgp-runtime agent --config /etc/ovn-bgp-agent/ovn-bgp-agent.conf --timeout 120\n\n\
                  Exit status: 1 if something is missing at the deadline; 143 or 130 if terminated while waiting. Once the agent has\n\
                  started: the agent's exit status, or 128 plus the number of the signal that ended it."
)]
pub struct Args {
    #[command(flatten)]
    paths: Paths,
    /// The agent's executable
    #[arg(long, value_name = "FILE", default_value = "/usr/local/bin/ovn-bgp-agent")]
    program: PathBuf,
    /// File with the names of routing tables
    #[arg(long, value_name = "FILE", default_value = "/etc/iproute2/rt_tables")]
    rt_tables: PathBuf,
    /// Bridge that needs a routing table [default: the interface that frr-init used]
    #[arg(long, value_name = "NAME", env = "INTERFACE")]
    interface: Option<String>,
    /// Seconds to wait for frr-init, FRR and DNS in total
    #[arg(long, value_name = "SECONDS", default_value_t = 300, env = "AGENT_TIMEOUT",
          value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: u64,
    #[command(flatten)]
    preflight: Preflight,
    /// Seconds after SIGTERM or SIGINT until the agent is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 4, env = "AGENT_STOP_TIMEOUT",
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    stop_timeout: u64,
}

#[derive(Debug, thiserror::Error)]
enum AgentError {
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
    #[error(
        "cannot pass {} to the root helpers: sudo and privsep split their command line at white space\nhelp: use only letters, digits and ./_- in the path",
        .0.display()
    )]
    Path(PathBuf),
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let waiting = signals::exit_on_termination()?;
    prepare(args)?;
    let failed = |doing| {
        let path = args.program.clone();
        move |source| AgentError::Io { doing, path, source }
    };
    let mut signals = child::Signals::register()?;
    waiting.store(false, Ordering::SeqCst);
    log(&format!("starting {}", args.program.display()));
    let agent = child::start(&mut command(args)?).map_err(failed("start"))?;
    PidRecord::of(agent.as_raw_pid() as u32)?.write(&args.paths.shared_dir)?;
    let code = child::wait(agent, &mut signals, Duration::from_secs(args.stop_timeout)).map_err(failed("wait for"))?;
    log(&format!("the agent ended with {code}"));
    files::remove(&args.paths.ready_mark())?;
    Ok(ExitCode::from(code))
}

fn command(args: &Args) -> Result<Command, AgentError> {
    let (config, node_conf) = (&args.paths.config, args.paths.node_conf());
    let mut command = Command::new(&args.program);
    for file in [config, &node_conf] {
        command.arg("--config-file").arg(file);
    }
    command.envs(privsep_environment(config, &node_conf)?);
    command.env("OVN_BGP_AGENT_STATE_FILE", args.paths.state_file());
    Ok(command)
}

/// Everything before the start of the agent.
fn prepare(args: &Args) -> Result<(), Failure> {
    let paths = &args.paths;
    files::remove(&paths.ready_mark())?;
    files::remove(&paths.state_file())?;
    let env_file = paths.env_file();
    let interface = args.interface.as_deref().filter(|name| !name.is_empty());
    args.preflight.agent(&Pod {
        config: &paths.config,
        frr_sockets: &paths.frr_sockets,
        rt_tables: &args.rt_tables,
        interface,
        env_file: &env_file,
    })?;
    PidRecord::of(std::process::id())?.write(&paths.shared_dir)?;
    // Before the waiting, so that a mistake in the file is reported at once.
    let options = AgentOptions::load(&paths.config)?;
    let connections = options.connections()?;

    let mut deadline = Deadline::new(Duration::from_secs(args.timeout));
    deadline.wait_until("frr-init has not finished", || match env_file.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("there is no {}", env_file.display())),
        Err(error) => Err(format!("{}: {error}", env_file.display())),
    })?;
    let node = Node::load(&env_file)?;
    log(&format!(
        "{} has AS {} and router ID {}",
        node.name, node.asn, node.router_id
    ));

    let version = deadline.wait_until("FRR does not answer", || frr_version(&paths.frr_sockets))?;
    log(&format!("FRR {version} answers"));
    drain::undo(&node, &paths.shared_dir, &paths.frr_sockets)?;

    let interface = interface.unwrap_or(&node.interface);
    log(&tables::ensure(&args.rt_tables, interface, &options)?.to_string());

    // After FRR: the way to the DNS servers may be a route that FRR has learned.
    let resolved = remotes::resolve(connections, &mut deadline)?;
    let content = node_conf(&node, &options, &resolved, &env_file);
    files::write(&paths.node_conf(), content.as_bytes(), 0o644, None, Durability::Visible)?;
    Ok(())
}

fn log(text: &str) {
    eprintln!("obgp-runtime agent: {text}");
}

/// FRR's version, if every daemon that the agent configures answers. The error is the reason why one does not.
fn frr_version(sockets: &Path) -> Result<String, String> {
    let show_version = |daemon: &str| {
        let mut connection = Connection::open(sockets, daemon, DAEMON_TIMEOUT)?;
        connection.execute("show version")
    };
    let text = |error: VtyError| error.to_string();
    let reply = show_version("zebra").map_err(text)?.text;
    // "FRRouting 10.3 (worker1) on Linux(6.12.0)."
    let version = reply
        .split_whitespace()
        .nth(1)
        .unwrap_or("of an unknown version")
        .to_string();
    show_version("bgpd").map_err(text)?;
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match show_version("mgmtd") {
        Err(error) if error.is_not_running() && major.is_some_and(|major| major < FIRST_WITH_MGMTD) => Ok(version),
        Err(error) => Err(error.to_string()),
        Ok(_) => Ok(version),
    }
}

/// The options that differ between nodes. An EVPN address in the mounted file takes precedence over the node's address.
fn node_conf(node: &Node, options: &AgentOptions, resolved: &[Resolved], source: &Path) -> String {
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
    // oslo.config merges sections of the same name.
    let mut current = "DEFAULT";
    for Resolved { section, option, value } in resolved {
        if *section != current {
            text += &format!("[{section}]\n");
            current = section;
        }
        text += &format!("{option} = {value}\n");
    }
    text
}

/// The command with which the agent starts its root helpers, as environment variables: oslo.config prefers them to any file.
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
    fn node_conf_has_the_options_that_differ_between_nodes() {
        let env = Path::new("/run/x/bgp-config.env");
        let text = "NODE_NAME='w1'\nNODE_IP='10.0.0.1'\nINTERFACE='br-ex'\nBGP_AS='4200000001'\nBGP_ROUTER_ID='10.0.0.9'\nBGP_PEER_IP='10.0.0.2'\n";
        let node = Node::parse(text, env).unwrap();
        let options = |text: &str| AgentOptions::parse(text, env).unwrap();
        let expected = "# Written by obgp-runtime agent from /run/x/bgp-config.env at every start.\n[DEFAULT]\n\
                        bgp_AS = 4200000001\nbgp_router_id = 10.0.0.9\n";
        assert_eq!(node_conf(&node, &options(""), &[], env), expected);
        let connection = |section, option, value: &str| Resolved {
            section,
            option,
            value: value.into(),
        };
        let resolved = [
            connection("DEFAULT", "ovsdb_connection", "tcp:10.0.0.7:6640"),
            connection("ovn", "ovn_sb_connection", "tcp:10.0.0.8:6642,tcp:[fd00::8]:6642"),
        ];
        assert_eq!(
            node_conf(&node, &options(""), &resolved, env),
            format!(
                "{expected}ovsdb_connection = tcp:10.0.0.7:6640\n[ovn]\n\
                 ovn_sb_connection = tcp:10.0.0.8:6642,tcp:[fd00::8]:6642\n"
            )
        );

        let node = Node::parse(&format!("{text}EVPN_RR_IP='10.9.9.9'\n"), env).unwrap();
        assert_eq!(
            node_conf(&node, &options(""), &[], env),
            format!("{expected}evpn_local_ip = 10.0.0.1\n")
        );
        for own in ["evpn_nic = lo", "evpn_local_ip = 10.7.7.7"] {
            assert_eq!(
                node_conf(&node, &options(&format!("[DEFAULT]\n{own}\n")), &[], env),
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
}
