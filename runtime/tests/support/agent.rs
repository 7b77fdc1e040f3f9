//! The real agent from PyPI in a virtual environment, and an OVSDB server from Debian.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::available;
use super::frr::{Namespace, succeed};

/// A virtual environment with ovn-bgp-agent 7.0.0 and the versions of the image's lock.
pub struct Venv {
    path: PathBuf,
}

impl Venv {
    /// Created from PyPI the first time, then cached in cargo's temporary directory.
    pub fn get() -> Option<Self> {
        let version = "import sys; print('%d.%d' % sys.version_info[:2])";
        let output = Command::new("python3").args(["-c", version]).output();
        let python = output
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string())
            .unwrap_or_default();
        let locks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/ovn-bgp-agent/locks");
        let lock_file = locks.join(format!("7.0.0-py{python}.txt"));
        let missing =
            (!lock_file.exists()).then(|| format!("the agent needs Python 3.11 or later, python3 is {python:?}"));
        if !available(missing) {
            return None;
        }
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(base).unwrap();
        let lock = File::create(base.join("agent.lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let path = base.join(format!("agent-7.0.0-py{python}"));
        if !path.exists() {
            let scratch = base.join("agent.making");
            if scratch.exists() {
                fs::remove_dir_all(&scratch).unwrap();
            }
            succeed(Command::new("python3").args(["-m", "venv"]).arg(&scratch));
            let mut pip = Command::new(scratch.join("bin/python"));
            pip.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--require-hashes",
                "-r",
            ]);
            succeed(pip.arg(&lock_file));
            // The scripts contain the path of the environment, so they are started through the interpreter.
            fs::rename(&scratch, &path).unwrap();
        }
        Some(Self { path })
    }

    pub fn python(&self) -> PathBuf {
        self.path.join("bin/python")
    }

    /// The agent's console script for this interpreter.
    pub fn agent(&self, directory: &Path) -> PathBuf {
        let script = "import sys\nfrom ovn_bgp_agent.cmd.agent import start\nsys.exit(start())\n";
        executable(
            &directory.join("ovn-bgp-agent"),
            &format!("#!{}\n{script}", self.python().display()),
        )
    }

    /// The files that the agent passes to vtysh for calls like `frr.vrf_leak('bgp-vrf', 64999)`, from its own templates.
    pub fn files(&self, calls: &[&str]) -> Vec<String> {
        let script = "import json, sys\nfrom ovn_bgp_agent import config\nfrom ovn_bgp_agent.drivers.openstack.utils import frr\n\
                      from oslo_config import cfg\nconfig.register_opts()\ncfg.CONF([], project='bgp-agent')\n\
                      cfg.CONF.set_override('bgp_AS', '64999')\nfiles = []\n\
                      frr._run_vtysh_config_with_tempfile = files.append\n\
                      for call in sys.argv[1:]:\n    eval(call)\nprint(json.dumps(files))";
        let output = succeed(Command::new(self.python()).args(["-c", script]).args(calls));
        let files: Vec<String> = serde_json::from_str(&output).unwrap();
        assert_eq!(files.len(), calls.len(), "{output}");
        files
    }
}

/// Writes an executable file.
pub fn executable(path: &Path, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_path_buf()
}

/// An ovsdb-server with the databases Open_vSwitch and OVN_Northbound.
pub struct Ovsdb {
    child: Child,
    directory: tempfile::TempDir,
    root: PathBuf,
}

impl Ovsdb {
    pub const PORT: u16 = 6641;

    fn root() -> PathBuf {
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let lock = File::create(base.join("ovs.lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let path = base.join("ovs-bookworm");
        if !path.exists() {
            let scratch = base.join("ovs.making");
            if scratch.exists() {
                fs::remove_dir_all(&scratch).unwrap();
            }
            let mut mmdebstrap = Command::new("mmdebstrap");
            // The packages are unpacked and not configured.
            mmdebstrap.args([
                "--mode=root",
                "--variant=extract",
                "--include=openvswitch-switch,ovn-central,libc-bin,dash",
            ]);
            mmdebstrap
                .arg("--aptopt=APT::Install-Recommends \"false\"")
                .arg("bookworm")
                .arg(&scratch);
            succeed(mmdebstrap.arg("http://deb.debian.org/debian"));
            fs::create_dir_all(scratch.join("work")).unwrap();
            fs::rename(&scratch, &path).unwrap();
        }
        path
    }

    /// Listens on a UNIX socket and on the loopback interface of the namespace.
    pub fn start(space: &Namespace) -> Self {
        let root = Self::root();
        let directory = tempfile::tempdir().unwrap();
        let mut server = Self {
            child: Command::new("true").spawn().unwrap(),
            directory,
            root,
        };
        let _ = server.child.wait();
        for (database, schema) in [("vs", "openvswitch/vswitch"), ("nb", "ovn/ovn-nb")] {
            let schema = format!("/usr/share/{schema}.ovsschema");
            succeed(&mut server.command(
                space,
                &["ovsdb-tool", "create", &format!("/work/{database}.db"), &schema],
            ));
        }
        server.restart(space);
        let vsctl = [
            "ovs-vsctl",
            "--no-wait",
            "--db=unix:/work/db.sock",
            "set",
            "Open_vSwitch",
            ".",
        ];
        succeed(&mut server.command(space, &["ovs-vsctl", "--no-wait", "--db=unix:/work/db.sock", "init"]));
        let ids = ["external-ids:system-id=node-1", "external-ids:hostname=worker1"];
        succeed(&mut server.command(space, &[&vsctl[..], &ids[..]].concat()));
        succeed(&mut server.command(
            space,
            &["ovn-nbctl", "--no-leader-only", "--db=unix:/work/db.sock", "init"],
        ));
        server
    }

    pub fn restart(&mut self, space: &Namespace) {
        let listen = format!("--remote=ptcp:{}:127.0.0.1", Self::PORT);
        let server = [
            "ovsdb-server",
            "--remote=punix:/work/db.sock",
            &listen,
            "--unixctl=/work/ctl",
            "/work/vs.db",
            "/work/nb.db",
        ];
        let log = File::create(self.directory.path().join("log")).unwrap();
        self.child = self
            .command(space, &server)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let patience = Instant::now() + Duration::from_secs(30);
        while !self.socket().exists() {
            assert!(
                Instant::now() < patience,
                "{}",
                fs::read_to_string(self.directory.path().join("log")).unwrap()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A command in the root, with the scratch directory at /work.
    fn command(&self, space: &Namespace, words: &[&str]) -> Command {
        let script = r#"mount --bind "$1" "$2/work"; root=$2; shift 2; exec chroot "$root" "$@""#;
        let mut command = space.command("unshare");
        command
            .args(["--mount", "sh", "-ec", script, "sh"])
            .arg(self.directory.path())
            .arg(&self.root)
            .args(words);
        command
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("db.sock")
    }

    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(self.socket());
    }
}

impl Drop for Ovsdb {
    fn drop(&mut self) {
        self.stop();
    }
}
