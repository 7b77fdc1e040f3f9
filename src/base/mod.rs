//! Provides a base image for a distro and platform in the engine: already present, pulled from a registry, or built
//! from the distro's archive. For a buildkitd, in its reach.

mod archive;
pub mod bootstrap;
pub mod cache;
mod kept;
pub(crate) mod keyring;
pub(crate) mod lookup;
mod offer;
mod process;
pub mod resolve;
pub(crate) mod tools;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::{Distro, Family};
use crate::engine::EngineError;
use crate::oci::{Architecture, Platform};

/// The archive that serves `architecture`: the site's mirror, or the distro's own.
pub fn mirror(distro: &Distro, architecture: Architecture) -> &str {
    match (&distro.mirror, distro.family, architecture) {
        (Some(mirror), _, _) => mirror.trim_end_matches('/'),
        (None, family, architecture) => own_archive(family, architecture),
    }
}

/// Canonical serves amd64 from its main archive and every other architecture from "ports".
fn own_archive(family: Family, architecture: Architecture) -> &'static str {
    match (family, architecture) {
        (Family::Debian, _) => "http://deb.debian.org/debian",
        (Family::Ubuntu, Architecture::Amd64) => "http://archive.ubuntu.com/ubuntu",
        (Family::Ubuntu, Architecture::Arm64) => "http://ports.ubuntu.com/ubuntu-ports",
    }
}

/// The directory of downloads and bootstrapped bases: `$OBGP_CACHE_DIR`, or `obgp-build` in the user's cache directory.
pub fn cache_directory() -> PathBuf {
    use etcetera::BaseStrategy;

    if let Some(directory) = std::env::var_os("OBGP_CACHE_DIR").filter(|d| !d.is_empty()) {
        return directory.into();
    }
    match etcetera::choose_base_strategy() {
        Ok(strategy) => strategy.cache_dir().join("obgp-build"),
        Err(_) => std::env::temp_dir().join("obgp-build"),
    }
}

/// A base in reports and provenance.
#[derive(Clone, Debug, Serialize)]
pub struct BaseReport {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    #[error(
        "building a base image from the distro's archive: mmdebstrap is not installed\n\
         help: apt-get install mmdebstrap"
    )]
    NoMmdebstrap,
    #[error(
        "bootstrapping a base without root: {lacking} not installed.\n\
         help: apt-get install uidmap, or run `obgp-build bootstrap` as root"
    )]
    NoUidmap { lacking: String },
    #[error(
        "bootstrapping a base for {platform}: this machine cannot run the scripts of its packages\nhelp: register emulation: \
         apt-get install qemu-user-static binfmt-support && update-binfmts --enable qemu-{}\n\
         (without systemd first: mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc)",
        platform.architecture().gnu_name()
    )]
    NoEmulation { platform: Platform },
    #[error("the keys of {family}'s archive are missing ({}) and could not be fetched from Debian's: {reason}\n\
             help: install the package {package}", path.display())]
    NoKeyring {
        family: &'static str,
        path: PathBuf,
        package: &'static str,
        reason: String,
    },
    /// The archive is unreachable; this machine is fine.
    #[error("reaching the archive {url}: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("{what} failed ({status}):\n{log}")]
    Failed { what: String, status: String, log: String },
    #[error("{doing} {path}: {source}", path = path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// All sources of a base failed.
    #[error("{}", no_base(distro, platform, tried))]
    NoBase {
        distro: String,
        platform: Platform,
        tried: Vec<Attempt>,
    },
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("{0}")]
    Lookup(String),
    #[error("the base's digest {digest} is not SHA-256, which tags in the engine require")]
    Digest { digest: String },
    #[error("interrupted")]
    Cancelled,
}

/// A source of a base and why it failed.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// `the registry docker.io/library/debian:bookworm-slim`
    pub source: String,
    pub reason: String,
}

impl Attempt {
    fn new(source: String, error: &BaseError) -> Self {
        Attempt {
            source,
            reason: error.to_string(),
        }
    }
}

fn no_base(distro: &str, platform: &Platform, tried: &[Attempt]) -> String {
    let mut text = format!("no base for {distro} on {platform}");
    for attempt in tried {
        let _ = write!(text, "\n  tried {}: {}", attempt.source, attempt.reason);
    }
    let _ = write!(
        text,
        "\nhelp: one of:\n\
         \x20 - use another image, in a registry or in the engine: --base REFERENCE\n\
         \x20 - set a reachable mirror in build.toml: distros.{distro}.mirror, or distros.{distro}.base for a registry\n\
         \x20 - build it on another machine: `obgp-build bootstrap {distro} --platform {platform}` there, `docker load -i FILE` here"
    );
    text
}

impl BaseError {
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        BaseError::Io {
            doing,
            path: path.to_path_buf(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_what_was_tried_and_the_ways_out() {
        let error = BaseError::NoBase {
            distro: "ubuntu_noble".into(),
            platform: Platform(Architecture::Arm64),
            tried: vec![
                Attempt {
                    source: "the registry docker.io/library/ubuntu:24.04".into(),
                    reason: "no route".into(),
                },
                Attempt {
                    source: "the archive http://ports.ubuntu.com/ubuntu-ports".into(),
                    reason: "timed out".into(),
                },
            ],
        };
        let text = error.to_string();
        for part in [
            "no route",
            "timed out",
            "--base",
            "distros.ubuntu_noble.mirror",
            "docker load",
        ] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }
}
