//! Finds the keys that sign a distro's archive: in this machine's keyring package, or for Ubuntu in Debian's package,
//! which apt verifies with Debian's keys.

use std::path::{Path, PathBuf};

use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::BaseError;
use super::process::run;
use crate::config::Family;
use crate::progress::Progress;

const DEBIAN: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const UBUNTU: &str = "/usr/share/keyrings/ubuntu-archive-keyring.gpg";
/// The Debian release of the fetched package.
const UBUNTU_PACKAGE_SUITE: &str = "trixie";
const UBUNTU_PACKAGE: &str = "ubuntu-keyring";

/// The current source of a family's keyring.
pub enum Keyring {
    Installed(&'static Path),
    /// Ubuntu's keyring, fetched from Debian's archive when needed.
    FromDebian,
    Missing(&'static Path),
}

pub fn look(family: Family) -> Keyring {
    let installed = Path::new(in_image(family));
    match family {
        _ if installed.is_file() => Keyring::Installed(installed),
        Family::Ubuntu if Path::new(DEBIAN).is_file() => Keyring::FromDebian,
        Family::Debian | Family::Ubuntu => Keyring::Missing(installed),
    }
}

/// The keyring's path in the distro's own images.
pub(super) fn in_image(family: Family) -> &'static str {
    match family {
        Family::Debian => DEBIAN,
        Family::Ubuntu => UBUNTU,
    }
}

/// A keyring on this machine that signs `family`'s archive. `cache` stores a fetched keyring.
pub(super) async fn find(
    family: Family,
    cache: &Path,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<PathBuf, BaseError> {
    if let Keyring::Installed(path) = look(family) {
        return Ok(path.to_path_buf());
    }
    let installed = Path::new(in_image(family));
    match family {
        Family::Debian => Err(BaseError::NoKeyring {
            family: "Debian",
            path: installed.to_path_buf(),
            package: "debian-archive-keyring",
            reason: "fetching needs the same keys".into(),
        }),
        Family::Ubuntu => {
            let fetched = cache.join("keyrings/ubuntu-archive-keyring.gpg");
            if fetched.is_file() {
                return Ok(fetched);
            }
            fetch_ubuntu(&fetched, progress, cancel)
                .await
                .map_err(|error| match error {
                    BaseError::Cancelled => BaseError::Cancelled,
                    error => BaseError::NoKeyring {
                        family: "Ubuntu",
                        path: installed.to_path_buf(),
                        package: "ubuntu-keyring (in Debian since trixie)",
                        reason: error.to_string(),
                    },
                })?;
            Ok(fetched)
        }
    }
}

async fn fetch_ubuntu(to: &Path, progress: &dyn Progress, cancel: &CancellationToken) -> Result<(), BaseError> {
    progress.note("fetching the keys of Ubuntu's archive from Debian's (package ubuntu-keyring)");
    let directory = to.parent().unwrap_or(Path::new("."));
    let io = |doing, path: &Path| {
        let path = path.to_path_buf();
        move |source| BaseError::Io { doing, path, source }
    };
    std::fs::create_dir_all(directory).map_err(io("creating", directory))?;
    let scratch = tempfile::tempdir_in(directory).map_err(io("creating a directory in", directory))?;
    let at = scratch.path();
    for needed in ["lists/partial", "archives/partial"] {
        std::fs::create_dir_all(at.join(needed)).map_err(io("creating", at))?;
    }
    let sources = at.join("sources.list");
    let line = format!("deb [signed-by={DEBIAN}] http://deb.debian.org/debian {UBUNTU_PACKAGE_SUITE} main\n");
    std::fs::write(&sources, line).map_err(io("writing", &sources))?;
    // Isolated from this machine's apt configuration and state.
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(at).arg("-qq");
        for (option, value) in [
            ("Dir::Etc::SourceList", sources.display().to_string()),
            ("Dir::Etc::SourceParts", "/dev/null".into()),
            ("Dir::State::Lists", at.join("lists").display().to_string()),
            ("Dir::State::Status", "/dev/null".into()),
            ("Dir::Cache", at.display().to_string()),
            // Root's apt would switch to a user that cannot write here.
            ("APT::Sandbox::User", "root".into()),
        ] {
            command.arg("-o").arg(format!("{option}={value}"));
        }
        command.args(arguments);
        command
    };
    run(apt(&["update"]), "apt-get update", progress, cancel).await?;
    run(
        apt(&["download", UBUNTU_PACKAGE]),
        "apt-get download ubuntu-keyring",
        progress,
        cancel,
    )
    .await?;
    let package = std::fs::read_dir(at)
        .map_err(io("reading", at))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .ok_or_else(|| io("finding the package in", at)(std::io::ErrorKind::NotFound.into()))?;
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--extract").arg(&package).arg(at.join("root"));
    run(unpack, "dpkg-deb --extract", progress, cancel).await?;
    let keyring = at.join("root").join(UBUNTU.trim_start_matches('/'));
    std::fs::copy(&keyring, at.join("keyring")).map_err(io("reading", &keyring))?;
    std::fs::rename(at.join("keyring"), to).map_err(io("writing", to))
}
