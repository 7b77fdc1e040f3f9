//! The files that the containers of the pod share.

use std::path::{Path, PathBuf};

/// Paths that `agent` and `health` must agree on.
#[derive(Clone, Debug, clap::Args)]
pub struct Paths {
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

impl Paths {
    pub fn env_file(&self) -> PathBuf {
        env_file(&self.shared_dir)
    }

    /// The agent's options that differ between nodes.
    pub fn node_conf(&self) -> PathBuf {
        self.shared_dir.join("node.conf")
    }

    /// The agent's record of its reconciliations.
    pub fn state_file(&self) -> PathBuf {
        self.shared_dir.join("state.json")
    }

    /// Exists while the agent is ready.
    pub fn ready_mark(&self) -> PathBuf {
        self.shared_dir.join("ready")
    }
}

/// The result of frr-init. If it exists, frr-init has written everything else as well.
pub fn env_file(shared_dir: &Path) -> PathBuf {
    shared_dir.join("bgp-config.env")
}

/// Exists while the node is drained.
pub fn drained_mark(shared_dir: &Path) -> PathBuf {
    shared_dir.join("drained")
}
