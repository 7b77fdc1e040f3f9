//! A pod's directories and commands, and the node it runs on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::frr::{FrrRoot, Namespace, Node, succeed};

pub const STANDARD: &str = "255\tlocal\n254\tmain\n253\tdefault\n0\tunspec\n";

pub const ENV: &str = "NODE_NAME='worker1'\nNODE_IP='10.0.192.111'\nINTERFACE='br-ex'\nSUBNET='10.0.192.0/24'\nBGP_AS='4200049263'\n\
                   BGP_ROUTER_ID='10.0.192.111'\nBGP_PEER_IP='10.0.192.1'\nBGP_PEER_AS='65001'\nBGP_PEER_DISCOVERY='route'\n";

/// A pod's directories and commands.
pub struct Pod {
    pub directory: tempfile::TempDir,
    pub sockets: PathBuf,
}

impl Pod {
    pub fn new(sockets: PathBuf) -> Self {
        let pod = Self {
            directory: tempfile::tempdir().unwrap(),
            sockets,
        };
        fs::create_dir(pod.shared()).unwrap();
        fs::write(pod.path("rt_tables"), STANDARD).unwrap();
        fs::write(pod.path("agent.conf"), "[DEFAULT]\novsdb_connection = unix:/run/none\n").unwrap();
        pod
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn shared(&self) -> PathBuf {
        self.path("shared")
    }

    pub fn mark(&self) -> PathBuf {
        self.shared().join("ready")
    }

    pub fn with_paths(&self, mut command: Command, words: &[&str]) -> Command {
        command.args(words).arg("--config").arg(self.path("agent.conf"));
        command
            .arg("--shared-dir")
            .arg(self.shared())
            .arg("--frr-sockets")
            .arg(&self.sockets);
        command
    }

    pub fn agent(&self, command: Command, program: &Path, timeout: &str) -> Command {
        let mut command = self.with_paths(command, &["agent", "--timeout", timeout]);
        command
            .arg("--rt-tables")
            .arg(self.path("rt_tables"))
            .arg("--program")
            .arg(program);
        command.env("OBGP_TEST_OUT", self.path("out")).stdin(Stdio::null());
        // The test machine has neither the image's sudoers nor its links.
        command.env("PREFLIGHT", "warn");
        command
    }

    pub fn env_file(&self) {
        fs::write(self.shared().join("bgp-config.env"), ENV).unwrap();
    }
}

pub fn runtime() -> &'static str {
    env!("CARGO_BIN_EXE_obgp-runtime")
}

pub fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub fn terminate(child: &mut Child) -> std::process::ExitStatus {
    succeed(Command::new("kill").arg(child.id().to_string()));
    child.wait().unwrap()
}

pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A node with br-ex and FRR.
pub struct Server {
    pub node: Node,
    pub space: Namespace,
    _config: tempfile::TempDir,
}

pub fn frr_config(router: &str) -> tempfile::TempDir {
    let config = tempfile::tempdir().unwrap();
    fs::write(
        config.path().join("daemons"),
        "zebra=yes\nbgpd=yes\nzebra_options=\"-A 127.0.0.1\"\nbgpd_options=\"-A 127.0.0.1\"\n",
    )
    .unwrap();
    fs::write(config.path().join("frr.conf"), router).unwrap();
    fs::write(config.path().join("vtysh.conf"), "").unwrap();
    config
}

impl Server {
    pub fn new(root: &FrrRoot, leaf: &Namespace) -> Self {
        let space = Namespace::new("server");
        space.link("eth1", leaf, "eth1");
        space.bridge("br-ex", "eth1", "10.0.192.111/24");
        let config = frr_config(
            "router bgp 4200049263\n bgp router-id 10.0.192.111\n no bgp ebgp-requires-policy\n \
             neighbor 10.0.192.1 remote-as 65001\n neighbor 10.0.192.1 timers 3 10\n neighbor 10.0.192.1 timers connect 1\nexit\n",
        );
        let node = Node::start(root, &space, config.path());
        Self {
            node,
            space,
            _config: config,
        }
    }
}
