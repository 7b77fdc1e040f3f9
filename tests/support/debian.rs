//! Provides programs from Debian packages of a chosen suite, on any host distro. apt verifies the archive and
//! downloads, dpkg unpacks into the target directory. Nothing is installed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const ARCHIVE: &str = "http://deb.debian.org/debian";

/// Returns the directory of the unpacked package, whose file `version` contains the package's version. Downloads once
/// per target directory. If the download fails, prints the reason and returns `None`; panics in CI.
pub fn package(suite: &str, package: &str) -> Option<PathBuf> {
    match fetched(suite, package) {
        Ok(root) => Some(root),
        Err(reason) if std::env::var_os("CI").is_some() => panic!("{package} of Debian {suite}: {reason}"),
        Err(reason) => {
            eprintln!("SKIPPED: cannot download {package} of Debian {suite}: {reason}");
            None
        }
    }
}

fn fetched(suite: &str, package: &str) -> Result<PathBuf, String> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("debian-{suite}"));
    let root = home.join(package);
    fs::create_dir_all(&home).map_err(|e| e.to_string())?;
    // Tests run as processes: one downloads, the others wait.
    let lock = File::create(home.join("lock")).map_err(|e| e.to_string())?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| e.to_string())?;
    if root.exists() {
        return Ok(root);
    }
    if !Path::new(KEYRING).exists() {
        return Err(format!("{KEYRING} is missing (package debian-archive-keyring)"));
    }
    let update = !home.join("updated").exists();
    for dir in ["lists/partial", "cache/archives/partial", "sources", "new"] {
        fs::create_dir_all(home.join(dir)).map_err(|e| e.to_string())?;
    }
    let source = format!("Types: deb\nURIs: {ARCHIVE}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n");
    fs::write(home.join("sources/debian.sources"), source).map_err(|e| e.to_string())?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        for (name, value) in [
            ("Dir::Etc::SourceList", Path::new("/dev/null")),
            ("Dir::Etc::SourceParts", &home.join("sources")),
            ("Dir::State::Lists", &home.join("lists")),
            ("Dir::Cache", &home.join("cache")),
            ("Acquire::Languages", Path::new("none")),
            ("APT::Sandbox::User", Path::new("root")),
        ] {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        }
        run(command
            .args(["-q", "-o", "Acquire::Retries=3"])
            .args(arguments)
            .current_dir(home.join("new")))
    };
    if update {
        apt(&["update"])?;
        fs::write(home.join("updated"), "").map_err(|e| e.to_string())?;
    }
    // An old package list may name a version that the archive has deleted.
    if let Err(reason) = apt(&["download", package]) {
        if update {
            return Err(reason);
        }
        apt(&["update"])?;
        apt(&["download", package])?;
    }
    let new = home.join("new");
    let script = "dpkg-deb -x \"$1\"_*.deb root; dpkg-deb -f \"$1\"_*.deb Version > root/version; rm \"$1\"_*.deb";
    run(Command::new("sh")
        .args(["-ec", script, "sh", package])
        .current_dir(&new))?;
    fs::rename(new.join("root"), &root).map_err(|e| e.to_string())?;
    Ok(root)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
