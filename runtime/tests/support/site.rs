//! The topology of the tests: a server with br-ex, connected to a leaf switch.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use super::available;
use super::frr::{FrrRoot, Namespace, Node, namespaces_missing};

pub const SERVER: &str = "10.0.192.111";
pub const SERVER_ASN: &str = "4200049263";

pub struct Site {
    pub server: Namespace,
    pub leaf: Namespace,
    pub directory: tempfile::TempDir,
}

/// The result of frr-init.
pub struct Run {
    pub output: Output,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Site {
    /// `None` without namespaces. Empty addresses are not set.
    pub fn new(server_address: &str, leaf_address: &str) -> Option<Self> {
        if !available(namespaces_missing()) {
            return None;
        }
        let (server, leaf) = (Namespace::new("server"), Namespace::new("leaf"));
        server.link("up0", &leaf, "down0");
        server.bridge("br-ex", "up0", server_address);
        if !leaf_address.is_empty() {
            leaf.ip(&format!("address add {leaf_address} dev down0"));
        }
        let site = Self {
            server,
            leaf,
            directory: tempfile::tempdir().unwrap(),
        };
        for name in ["frr", "shared", "mapping"] {
            std::fs::create_dir(site.path(name)).unwrap();
        }
        write(&site.path("agent.conf"), "[DEFAULT]\ndriver = nb_ovn_bgp_driver\n");
        site.map(r#"{"10.0.192.0/24": "65001"}"#);
        Some(site)
    }

    /// The addresses of the documentation.
    pub fn usual() -> Option<Self> {
        Self::new("10.0.192.111/24", "10.0.192.1/24")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn map(&self, mapping: &str) {
        std::fs::write(self.path("mapping/mapping.json"), mapping).unwrap();
    }

    pub fn env_file(&self) -> Option<String> {
        std::fs::read_to_string(self.path("shared/bgp-config.env")).ok()
    }

    /// Runs frr-init on the server as root.
    pub fn init(&self, arguments: &[&str]) -> Run {
        self.init_with(Path::new(env!("CARGO_BIN_EXE_obgp-runtime")), &["env"], arguments)
    }

    /// Runs frr-init from this file through a wrapper such as `setpriv`.
    pub fn init_with(&self, binary: &Path, wrapper: &[&str], arguments: &[&str]) -> Run {
        let mut command = self.server.command(wrapper[0]);
        command.args(&wrapper[1..]).arg(binary).arg("frr-init");
        command.arg("--output-dir").arg(self.path("frr"));
        command.arg("--shared-dir").arg(self.path("shared"));
        command.arg("--asn-mapping").arg(self.path("mapping"));
        command.arg("--agent-config").arg(self.path("agent.conf"));
        command.args(arguments).env("NODE_NAME", "worker1");
        let start = Instant::now();
        let output = command.output().unwrap();
        let took = start.elapsed();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Run {
            stdout: text(&output.stdout),
            stderr: without_vrf_note(&text(&output.stderr)),
            output,
            took,
        }
    }

    /// A leaf switch or spine with this frr.conf.
    pub fn switch(&self, root: &FrrRoot, space: &Namespace, name: &str, frr_conf: &str) -> Node {
        let directory = self.path(name);
        std::fs::create_dir_all(&directory).unwrap();
        write(&directory.join("daemons"), "bgpd=yes\nbfdd=yes\nvtysh_enable=yes\n");
        write(&directory.join("vtysh.conf"), "service integrated-vtysh-config\n");
        write(&directory.join("frr.conf"), frr_conf);
        Node::start(root, space, &directory)
    }
}

/// Some kernels have no VRFs, which is not what these tests are about: the note and its help are two lines.
fn without_vrf_note(stderr: &str) -> String {
    let mut lines = stderr.split_inclusive('\n');
    let mut others = String::new();
    while let Some(line) = lines.next() {
        match line.contains("module vrf") {
            true => assert!(lines.next().is_some_and(|help| help.starts_with("help: ")), "{stderr}"),
            false => others += line,
        }
    }
    others
}

impl Run {
    pub fn succeeded(self) -> Self {
        assert!(self.output.status.success(), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// The error of a run that failed.
    pub fn failed(self) -> String {
        assert_eq!(self.output.status.code(), Some(1), "{}\n{}", self.stdout, self.stderr);
        self.stderr
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }

    /// `ADDRESS discovery reachable` of the first peer.
    pub fn peer(self) -> String {
        let run = self.succeeded();
        let peer = &run.json()["peers"][0];
        format!(
            "{} {} {}",
            peer["address"].as_str().unwrap(),
            peer["discovery"].as_str().unwrap(),
            peer["reachable"]
        )
    }
}

fn write(path: &Path, text: impl AsRef<OsStr>) {
    std::fs::write(path, text.as_ref().as_encoded_bytes()).unwrap();
}
