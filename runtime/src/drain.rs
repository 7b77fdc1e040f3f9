//! `obgp-runtime drain`: the node's addresses leave the fabric before the node does.
//!
//! First the routes get the community GRACEFUL_SHUTDOWN (RFC 8326), at which a leaf prefers other paths while this one still
//! works; then the sessions are shut down, which withdraws the routes: an administrative shutdown is a hard reset (RFC 8538),
//! so the leaf does not keep them as stale. All of it lives in FRR's memory. A mark in the shared directory remembers it, for
//! `health ready` and for the next start of `agent`, which ends it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::agent::node::Node;
use crate::cli::Failure;
use crate::files::{self, Until};
use crate::health::bgp;
use crate::vtysh;

/// How long FRR may take for an answer, and for ending its sessions.
const PATIENCE: Duration = Duration::from_secs(5);

/// Withdraw the node's routes, after a graceful shutdown
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, in the agent's container: lifecycle.preStop.exec.command: [obgp-runtime, drain, --wait, \"10\"]

Run again it changes nothing. It ends with the next start of `obgp-runtime agent` or of FRR, or with --undo.
FRR has to run meanwhile: its container is to end after the agent's.")]
pub struct Args {
    /// Seconds between the announcement of the shutdown and the withdrawal
    #[arg(long, env = "DRAIN_WAIT", value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    wait: u64,
    /// Open the sessions again
    #[arg(long)]
    undo: bool,
    /// Directory shared with frr-init: bgp-config.env, drained
    #[arg(long, value_name = "DIR", default_value = "/run/ovn-bgp-agent", env = "SHARED_DIR")]
    shared_dir: PathBuf,
    /// Directory with FRR's sockets
    #[arg(long, value_name = "DIR", default_value = "/run/frr", env = "FRR_SOCKETS")]
    frr_sockets: PathBuf,
}

/// Its presence says that the node is drained.
pub fn mark(shared_dir: &Path) -> PathBuf {
    shared_dir.join("drained")
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let env_file = args.shared_dir.join(crate::frr_init::ENV_FILE);
    let node = Node::parse(&files::read_text(&env_file)?, &env_file)?;
    match args.undo {
        true => undo(&node, &args.shared_dir, &args.frr_sockets)?,
        false => drain(args, &node)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn drain(args: &Args, node: &Node) -> Result<(), Failure> {
    // First, so that whatever happens now is undone at the next start.
    files::write(&mark(&args.shared_dir), b"", 0o644, None, Until::Seen)?;
    configure(node, &args.frr_sockets, |_| vec!["bgp graceful-shutdown".into()])?;
    if sessions(args, node)?.iter().any(bgp::Session::is_established) {
        println!(
            "drain: the routes have the community graceful-shutdown; they are withdrawn in {} s",
            args.wait
        );
        std::thread::sleep(Duration::from_secs(args.wait));
    }
    configure(node, &args.frr_sockets, |peers| {
        peers.iter().map(|peer| format!("neighbor {peer} shutdown")).collect()
    })?;
    let deadline = Instant::now() + PATIENCE;
    while sessions(args, node)?.iter().any(bgp::Session::is_established) {
        if Instant::now() > deadline {
            return Err(
                format!("shutting the BGP sessions down: they are still established after {PATIENCE:?}").into(),
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let peers: Vec<String> = peers(node).iter().map(IpAddr::to_string).collect();
    println!("drain: the sessions with {} are shut down", peers.join(" and "));
    Ok(())
}

/// Opens the sessions again, if they are drained.
pub fn undo(node: &Node, shared_dir: &Path, frr_sockets: &Path) -> Result<(), Failure> {
    let mark = mark(shared_dir);
    if !mark.try_exists()? {
        return Ok(());
    }
    configure(node, frr_sockets, |peers| {
        let open = peers.iter().map(|peer| format!("no neighbor {peer} shutdown"));
        std::iter::once("no bgp graceful-shutdown".to_string())
            .chain(open)
            .collect()
    })?;
    std::fs::remove_file(&mark).map_err(|error| format!("removing {}: {error}", mark.display()))?;
    eprintln!("obgp-runtime: the node is not drained any more");
    Ok(())
}

fn configure(node: &Node, sockets: &Path, lines: impl Fn(&[IpAddr]) -> Vec<String>) -> Result<(), Failure> {
    let mut all = vec![format!("router bgp {}", node.asn)];
    all.extend(lines(&peers(node)));
    vtysh::configure(sockets, PATIENCE, &all).map_err(|problem| format!("configuring FRR: {problem}").into())
}

fn sessions(args: &Args, node: &Node) -> Result<Vec<bgp::Session>, Failure> {
    let found = bgp::sessions(&args.frr_sockets, PATIENCE, node);
    found.map_err(|problem| format!("asking FRR for its sessions: {problem}").into())
}

fn peers(node: &Node) -> Vec<IpAddr> {
    node.peers.iter().chain(&node.evpn_peer).copied().collect()
}
