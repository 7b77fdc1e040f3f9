//! Real FRR in network namespaces: a root of Debian's packages per version, and nodes that run its daemons.
//!
//! ```ignore
//! let Some(root) = FrrRoot::get(Suite::Trixie) else { return }; // Prints why; panics in CI.
//! let space = Namespace::new("leaf");
//! let node = Node::start(&root, &space, config_dir);            // A directory with daemons, frr.conf, vtysh.conf.
//! node.vtysh(&["show bgp summary json"]);                       // FRR's own vtysh.
//! node.sockets();                                               // The directory of the *.vty sockets.
//! ```
//!
//! Everything ends when its value is dropped: a node with its daemons, a namespace with its links.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::available;
use super::namespace::tool_missing;
pub use super::namespace::{Namespace, namespaces_missing, succeed};

/// The Debian release that FRR comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// FRR 8.4.4.
    Bookworm,
    /// FRR 10.3.
    Trixie,
}

impl Suite {
    pub const ALL: [Self; 2] = [Self::Bookworm, Self::Trixie];

    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }

    /// The version in `show version`.
    pub fn frr_version(self) -> &'static str {
        match self {
            Self::Bookworm => "8.4.4",
            Self::Trixie => "10.3",
        }
    }
}

/// A root file system with FRR installed, to chroot into. Nodes do not change it.
#[derive(Clone, Debug)]
pub struct FrrRoot {
    path: PathBuf,
}

impl FrrRoot {
    /// Created from the archive (40 s) the first time, then cached in cargo's temporary directory.
    pub fn get(suite: Suite) -> Option<Self> {
        if !available(namespaces_missing().or_else(bootstrap_missing)) {
            return None;
        }
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(base).unwrap();
        // Tests are threads and processes, so the lock is on a file. It ends with its holder.
        let lock = File::create(base.join(format!("frr-{}.lock", suite.name()))).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let path = base.join(format!("frr-{}", suite.name()));
        if !path.exists() {
            make(suite, &path);
        }
        Some(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// FRR's user and group in the root, as `UID:GID`.
    pub fn frr_owner(&self) -> String {
        let passwd = fs::read_to_string(self.path.join("etc/passwd")).unwrap();
        let line = passwd.lines().find(|line| line.starts_with("frr:")).unwrap();
        let fields: Vec<&str> = line.split(':').collect();
        format!("{}:{}", fields[2], fields[3])
    }

    /// A command in the root, with directories bind-mounted for this command only (`(outside, inside)`).
    pub fn command(&self, binds: &[(&Path, &str)], program: &str) -> Command {
        let mut script = String::from("set -e\n");
        for (outside, inside) in binds {
            let (outside, inside) = (outside.display(), format!("{}{inside}", self.path.display()));
            script += &format!("mount --bind '{outside}' '{inside}'\n");
        }
        script += &format!("exec chroot '{}' \"$@\"", self.path.display());
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh", program]);
        command.stdin(Stdio::null());
        command
    }

    /// FRR's own vtysh, on the sockets in a directory.
    pub fn vtysh(&self, sockets: &Path, commands: &[&str]) -> Output {
        let mut command = self.command(&[(sockets, "/run/frr")], "vtysh");
        for line in commands {
            command.args(["-c", line]);
        }
        command.output().unwrap()
    }
}

fn bootstrap_missing() -> Option<String> {
    tool_missing(("mmdebstrap", "mmdebstrap"))
}

fn make(suite: Suite, path: &Path) {
    let scratch = path.with_extension("making");
    if scratch.exists() {
        fs::remove_dir_all(&scratch).unwrap();
    }
    eprintln!("making a root with FRR {} …", suite.frr_version());
    let output = Command::new("mmdebstrap")
        .args(["--mode=root", "--variant=essential", "--include=frr"])
        .args([
            "--aptopt=APT::Install-Recommends \"false\"",
            "--aptopt=Acquire::Retries \"3\"",
        ])
        .args(["doc", "man", "locale"].map(|what| format!("--dpkgopt=path-exclude=/usr/share/{what}/*")))
        .arg(suite.name())
        .arg(&scratch)
        .arg("http://deb.debian.org/debian")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "mmdebstrap failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Mount points. Debian's 8.4.4 package creates /run/frr only at boot.
    fs::create_dir_all(scratch.join("run/frr")).unwrap();
    fs::rename(&scratch, path).unwrap();
}

/// FRR's daemons, started by its watchfrr like in the FRR project's container image.
pub struct Node {
    root: FrrRoot,
    child: Child,
    directory: tempfile::TempDir,
}

impl Node {
    /// Starts the daemons enabled in `config_dir`/daemons and waits until bgpd answers.
    pub fn start(root: &FrrRoot, space: &Namespace, config_dir: &Path) -> Self {
        Self::start_with_vrf(root, space, config_dir, None)
    }

    /// Uses a namespace as the VRF `bgp-vrf` (zebra -n), because some kernels have no VRFs.
    pub fn start_with_vrf(root: &FrrRoot, space: &Namespace, config_dir: &Path, vrf: Option<&Namespace>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sockets = directory.path().join("run");
        fs::create_dir(&sockets).unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        const SCRIPT: &str = r#"set -e
            mount --bind "$1" "$1"
            mount --bind "$2" "$1/etc/frr"
            mount --bind "$3" "$1/run/frr"
            for scratch in tmp var/tmp var/lib/frr var/log/frr; do
                test ! -d "$1/$scratch" || mount -t tmpfs -o mode=1777 tmpfs "$1/$scratch"
            done
            mount -t proc proc "$1/proc"
            if test -n "$4"; then
                mkdir -p "$1/run/netns"
                mount -t tmpfs tmpfs "$1/run/netns"
                touch "$1/run/netns/bgp-vrf"
                mount --bind "/run/netns/$4" "$1/run/netns/bgp-vrf"
            fi
            exec chroot "$1" bash -c '
                log_success_msg() { :; }; log_warning_msg() { echo "$@"; }; log_failure_msg() { echo "$@"; }
                chown frr:frr /run/frr
                . /usr/lib/frr/frrcommon.sh
                exec /usr/lib/frr/watchfrr $watchfrr_options $(daemon_list)'
        "#;
        let child = space
            .command("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", SCRIPT, "sh"])
            .args([root.path(), config_dir, &sockets])
            .arg(vrf.map_or("", Namespace::name))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut node = Self {
            root: root.clone(),
            child,
            directory,
        };
        node.wait_until_up();
        node
    }

    fn wait_until_up(&mut self) {
        let timeout = Instant::now() + Duration::from_secs(60);
        loop {
            // The configuration is complete after `vtysh -b`.
            let running = self.root.vtysh(&self.sockets(), &["show running-config"]);
            let text = String::from_utf8_lossy(&running.stdout).into_owned();
            if running.status.success() && text.contains("router bgp") {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < timeout,
                "FRR did not come up ({ended:?}); its log:\n{}\nits configuration:\n{text}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The directory with the daemons' `*.vty` sockets, outside the root.
    pub fn sockets(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// The output of FRR's own vtysh for commands, which must succeed.
    pub fn vtysh(&self, commands: &[&str]) -> String {
        let output = self.root.vtysh(&self.sockets(), commands);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "vtysh {commands:?}: {text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    pub fn json(&self, command: &str) -> serde_json::Value {
        let text = self.vtysh(&[command]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{command}: {error}: {text}"))
    }

    /// The state of the BGP session with a neighbour, as in `show bgp neighbors`.
    pub fn session(&self, neighbor: &str) -> String {
        let answer = self.json(&format!("show bgp neighbors {neighbor} json"));
        answer[neighbor]["bgpState"].as_str().unwrap_or("none").to_string()
    }

    pub fn wait_for_session(&self, neighbor: &str, state: &str, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while self.session(neighbor) != state {
            assert!(
                Instant::now() < deadline,
                "the session with {neighbor} is {:?}, not {state}, after {timeout:?}:\n{}\n{}",
                self.session(neighbor),
                self.vtysh(&["show running-config", &format!("show bgp neighbors {neighbor}")]),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // unshare kills its child too (--kill-child), which is PID 1 of the daemons' namespace.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
