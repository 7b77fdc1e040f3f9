//! `obgp-runtime drain`: withdraws the node's addresses from the fabric before the node goes away.
//!
//! First the routes get the community GRACEFUL_SHUTDOWN (RFC 8326), so that a leaf switch prefers other paths while this one still
//! works. Then the sessions are shut down, which withdraws the routes: an administrative shutdown is a hard reset (RFC 8538), so
//! the leaf switch does not keep them as stale. Both changes exist in FRR's memory only. The file `drained` in the shared
//! directory records them for `health ready` and for the next start of `agent`, which reverts them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::bgp;
use crate::bgp_peer::PeerName;
use crate::failure::Failure;
use crate::files::{self, Durability};
use crate::node::Node;
use crate::paths;
use crate::vtysh;

/// For an answer of FRR, and for the end of its sessions.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Withdraw the node's routes, after a graceful shutdown
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, in the agent's container: lifecycle.preStop.exec.command: [obgp-runtime, drain, --wait, \"10\"]

A second run changes nothing. The next start of `obgp-runtime agent` or of FRR ends the drain, and so does --undo.
FRR must be running: its container must end after the agent's.")]
pub struct Args {
    /// Seconds between the announcement of the shutdown and the withdrawal
    #[arg(long, env = "DRAIN_WAIT", value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    wait: u64,
    /// End the drain and open the sessions again
    #[arg(long)]
    undo: bool,
    /// Directory shared with frr-init: bgp-config.env, drained
    #[arg(long, value_name = "DIR", default_value = "/run/ovn-bgp-agent", env = "SHARED_DIR")]
    shared_dir: PathBuf,
    /// Directory with FRR's sockets
    #[arg(long, value_name = "DIR", default_value = "/run/frr", env = "FRR_SOCKETS")]
    frr_sockets: PathBuf,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let node = Node::load(&paths::env_file(&args.shared_dir))?;
    match args.undo {
        true => undo(&node, &args.shared_dir, &args.frr_sockets)?,
        false => drain(args, &node)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn drain(args: &Args, node: &Node) -> Result<(), Failure> {
    // First, so that the next start reverts the drain even if a later step fails.
    let mark = paths::drained_mark(&args.shared_dir);
    files::write(&mark, b"", 0o644, None, Durability::Visible)?;
    configure(node, &args.frr_sockets, |_| vec!["bgp graceful-shutdown".into()])?;
    if sessions(args, node)?.iter().any(bgp::Session::is_established) {
        println!(
            "drain: the routes have the community graceful-shutdown and will be withdrawn in {} s",
            args.wait
        );
        std::thread::sleep(Duration::from_secs(args.wait));
    }
    configure(node, &args.frr_sockets, |peers| {
        peers.iter().map(|peer| format!("neighbor {peer} shutdown")).collect()
    })?;
    let deadline = Instant::now() + TIMEOUT;
    while sessions(args, node)?.iter().any(bgp::Session::is_established) {
        if Instant::now() > deadline {
            return Err(
                format!("cannot shut down the BGP sessions: they are still established after {TIMEOUT:?}").into(),
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let peers: Vec<String> = peers(node).iter().map(PeerName::to_string).collect();
    println!("drain: the sessions with {} are shut down", peers.join(" and "));
    Ok(())
}

/// Opens the sessions again if the node is drained.
pub fn undo(node: &Node, shared_dir: &Path, frr_sockets: &Path) -> Result<(), Failure> {
    let mark = paths::drained_mark(shared_dir);
    if !mark.try_exists()? {
        return Ok(());
    }
    configure(node, frr_sockets, |peers| {
        let open = peers.iter().map(|peer| format!("no neighbor {peer} shutdown"));
        std::iter::once("no bgp graceful-shutdown".to_string())
            .chain(open)
            .collect()
    })?;
    files::remove(&mark)?;
    eprintln!("obgp-runtime: the node is no longer drained");
    Ok(())
}

fn configure(node: &Node, sockets: &Path, lines: impl Fn(&[PeerName]) -> Vec<String>) -> Result<(), Failure> {
    let mut all = vec![format!("router bgp {}", node.asn)];
    all.extend(lines(&peers(node)));
    vtysh::configure(sockets, TIMEOUT, &all).map_err(|problem| format!("cannot configure FRR: {problem}").into())
}

fn sessions(args: &Args, node: &Node) -> Result<Vec<bgp::Session>, Failure> {
    let found = bgp::sessions(&args.frr_sockets, TIMEOUT, node);
    found.map_err(|problem| format!("cannot read FRR's sessions: {problem}").into())
}

fn peers(node: &Node) -> Vec<PeerName> {
    let evpn = node.evpn_peer.map(PeerName::Address);
    node.peers.iter().cloned().chain(evpn).collect()
}
