//! Runs a registry with the referrers API of distribution-spec 1.1: go-containerregistry's, compiled with Debian's Go.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{FlockOperation, flock};

use super::debian;

const MAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/referrers/main.go");
const GO: &str = "golang-1.24";

pub struct ReferrersRegistry {
    child: Child,
    /// `127.0.0.1:PORT`
    pub host: String,
}

impl ReferrersRegistry {
    /// If a download fails, prints the reason and returns `None`; panics in CI.
    pub fn start() -> Option<Self> {
        let mut child = Command::new(program()?)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut host = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut host).unwrap();
        let host = host.trim().to_string();
        Some(Self { child, host })
    }
}

impl Drop for ReferrersRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Compiles the registry once per target directory.
fn program() -> Option<PathBuf> {
    let go = debian::package("trixie", &format!("{GO}-go"))?;
    let source = debian::package("trixie", &format!("{GO}-src"))?;
    let library = debian::package("trixie", "golang-github-google-go-containerregistry-dev")?;
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("referrers-registry");
    fs::create_dir_all(&home).unwrap();
    // Tests run as processes: one compiles, the others wait.
    let lock = fs::File::create(home.join("lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let program = home.join("registry");
    if program.exists() {
        return Some(program);
    }
    // Debian splits Go into packages that link to each other relative to /usr, so the tree is assembled here.
    let root = home.join("go");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir(&root).unwrap();
    let version = GO.trim_start_matches("golang-");
    let link = |from: &Path, name: &str| std::os::unix::fs::symlink(from.join(name), root.join(name)).unwrap();
    for name in ["bin", "pkg", "go.env", "VERSION"] {
        link(&go.join(format!("usr/lib/go-{version}")), name);
    }
    link(&source.join(format!("usr/share/go-{version}")), "src");
    let new = home.join("new");
    let output = Command::new(root.join("bin/go"))
        .args(["build", "-o"])
        .arg(&new)
        .arg(MAIN)
        .env("GOROOT", &root)
        .env("GOPATH", library.join("usr/share/gocode"))
        .env("GO111MODULE", "off")
        .env("CGO_ENABLED", "0")
        .env("GOCACHE", home.join("cache"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "go build: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::remove_dir_all(home.join("cache")).unwrap();
    fs::rename(new, &program).unwrap();
    Some(program)
}
