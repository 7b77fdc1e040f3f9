//! Builds a base image for a distro and platform from its signed archive with mmdebstrap, as an archive for `docker
//! load`.
//!
//! The content is that of the distro's own minimal images: packages of priority "required" and apt, without
//! documentation except licences. Every timestamp is that of the archive's newest release file, so one state of the
//! archive gives one result, byte for byte. It is cached under a key of all inputs.

mod mmdebstrap;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::cache::{self, BaseArchive};
use super::kept::Source;
use super::process::run;
use super::{BaseError, keyring, mirror, own_archive, tools};
use crate::config::{Distro, Family};
use crate::oci::{Architecture, Platform};
use crate::progress::Progress;

/// Documentation is excluded, also from later installations on this base, as in the distros' own minimal images.
/// Licences are kept: they must accompany the programs.
const DPKG_OPTIONS: &[&str] = &[
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/groff/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
];

/// Version of the recipe: bases in the cache from another recipe are not reused.
const RECIPE: &str = "4";

#[derive(Clone, Copy, Debug)]
pub struct BootstrapRequest<'a> {
    pub distro_name: &'a str,
    pub distro: &'a Distro,
    pub platform: Platform,
    /// See [`super::cache_directory`].
    pub cache: &'a Path,
    /// Build again even if the base is in the cache.
    pub refresh: bool,
}

/// The `org.opencontainers.image.base.name` of a bootstrapped base.
pub fn name(distro: &Distro) -> String {
    format!("obgp-build/{}:{}-bootstrap", family_name(distro.family), distro.suite)
}

/// The name in the engine. One per architecture, because a tag in the classic store holds one platform.
pub fn engine_tag(distro_name: &str, platform: Platform) -> String {
    format!(
        "obgp-build/base:{distro_name}-{}-bootstrap",
        platform.architecture().name()
    )
}

/// Builds the base, or finds it in the cache. Concurrent runs build the same base only once. If the archive is
/// unreachable, uses the newest base in the cache and notes it in `progress`.
pub async fn bootstrap(
    request: &BootstrapRequest<'_>,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<BaseArchive, BaseError> {
    let directory = cache::directory(request.cache, request.distro_name, request.platform);
    fs::create_dir_all(&directory).map_err(|e| BaseError::io("creating", &directory, e))?;
    let _lock = cache::lock(&directory, progress, cancel).await?;

    let recipe = Recipe::new(request);
    let scratch =
        tempfile::tempdir_in(&directory).map_err(|e| BaseError::io("creating a directory in", &directory, e))?;
    let releases = match recipe.releases(scratch.path(), progress, cancel).await {
        Ok(releases) => releases,
        Err(error @ BaseError::Unreachable { .. }) if !request.refresh => {
            return match cache::newest(&directory) {
                Some(base) => {
                    progress.note(&format!("{error}; using the base of {} from the cache", base.snapshot));
                    Ok(base)
                }
                None => Err(error),
            };
        }
        Err(error) => return Err(error),
    };
    let path = directory.join(format!("{}.tar", recipe.key(&releases)));
    if !request.refresh
        && let Some(base) = cache::load(&path)
    {
        return Ok(base);
    }
    tools::check(request.platform)?;
    let keyring = keyring::find(request.distro.family, request.cache, progress, cancel).await?;
    let readable = readable_copy(&keyring).map_err(|e| BaseError::io("copying", &keyring, e))?;
    let base = recipe
        .make(&releases, readable.path(), scratch.path(), &path, progress, cancel)
        .await?;
    cache::remove_others(&directory, &path);
    Ok(base)
}

/// Root's apt reads keys as another user, which cannot read root's cache: it would find the archive unsigned.
fn readable_copy(keyring: &Path) -> io::Result<tempfile::NamedTempFile> {
    let copy = tempfile::Builder::new()
        .prefix("obgp-keyring-")
        .suffix(".gpg")
        .tempfile()?;
    fs::copy(keyring, copy.path())?;
    fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o644))?;
    Ok(copy)
}

/// The release files of an archive, which sign its content.
struct Releases {
    content: Vec<u8>,
    newest: Timestamp,
}

struct Recipe<'a> {
    distro: &'a Distro,
    platform: Platform,
    mirror: &'a str,
    security: String,
    tag: String,
    /// The prefix of the digest in the tag that engines keep.
    kept: String,
}

impl<'a> Recipe<'a> {
    fn new(request: &BootstrapRequest<'a>) -> Self {
        let architecture = request.platform.architecture();
        let mirror = mirror(request.distro, architecture);
        Recipe {
            distro: request.distro,
            platform: request.platform,
            mirror,
            security: security_archive(request.distro, architecture, mirror),
            tag: engine_tag(request.distro_name, request.platform),
            kept: Source::Archive(request.distro).prefix(request.platform),
        }
    }

    /// `deb` lines for the suite, its updates and its security updates.
    fn sources(&self, mirror: &str, security: &str, keyring: &Path) -> String {
        let components = match self.distro.family {
            Family::Debian => "main",
            Family::Ubuntu => "main universe",
        };
        let suite = &self.distro.suite;
        let signed = keyring.display();
        format!(
            "deb [signed-by={signed}] {mirror} {suite} {components}\n\
             deb [signed-by={signed}] {mirror} {suite}-updates {components}\n\
             deb [signed-by={signed}] {security} {suite}-security {components}\n"
        )
    }

    /// The apt sources in the image: the distro's own archive, whichever mirror was used.
    fn image_sources(&self) -> String {
        let architecture = self.platform.architecture();
        let mirror = own_archive(self.distro.family, architecture);
        let own = Distro {
            mirror: None,
            ..self.distro.clone()
        };
        let security = security_archive(&own, architecture, mirror);
        self.sources(mirror, &security, Path::new(keyring::in_image(self.distro.family)))
    }

    /// Downloads the release files. mmdebstrap's apt verifies them later; here they show whether the archive is
    /// reachable, its state, and its date.
    async fn releases(
        &self,
        scratch: &Path,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Releases, BaseError> {
        let suite = &self.distro.suite;
        let mut releases = Releases {
            content: Vec::new(),
            newest: Timestamp::UNIX_EPOCH,
        };
        for (mirror, suite) in [
            (self.mirror, suite.clone()),
            (self.mirror, format!("{suite}-updates")),
            (&self.security, format!("{suite}-security")),
        ] {
            let url = format!("{mirror}/dists/{suite}/InRelease");
            progress.step(&format!("asking {url}"));
            let file = scratch.join(&suite);
            let mut command = Command::new("/usr/lib/apt/apt-helper");
            command.args([
                "-o",
                "Acquire::Retries=2",
                "-o",
                "Acquire::http::Timeout=20",
                "-o",
                "Acquire::https::Timeout=20",
            ]);
            command
                .args(["-o", "APT::Sandbox::User=root", "download-file", &url])
                .arg(&file);
            match run(command, "apt-helper download-file", progress, cancel).await {
                Err(BaseError::Failed { log, .. }) => {
                    return Err(BaseError::Unreachable {
                        url,
                        reason: apt_reason(&log),
                    });
                }
                Err(BaseError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    return Err(BaseError::NoMmdebstrap);
                }
                done => done?,
            }
            let content = fs::read(&file).map_err(|e| BaseError::io("reading", &file, e))?;
            let date = release_date(&content).ok_or_else(|| BaseError::Unreachable {
                url,
                reason: "its response is not a release file".into(),
            })?;
            releases.newest = releases.newest.max(date);
            releases.content.extend(content);
        }
        Ok(releases)
    }

    /// A key of all inputs, in 32 hexadecimal digits.
    fn key(&self, releases: &Releases) -> String {
        let mut hash = Sha256::new();
        for part in [
            env!("CARGO_PKG_VERSION"),
            self.platform.architecture().name(),
            &self.tag,
            &self.sources(self.mirror, &self.security, Path::new("")),
            &self.image_sources(),
            RECIPE,
            &DPKG_OPTIONS.join("\n"),
        ] {
            hash.update(part);
            hash.update([0]);
        }
        hash.update(&releases.content);
        hex::encode(hash.finalize())[..32].to_string()
    }
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::Debian => "debian",
        Family::Ubuntu => "ubuntu",
    }
}

/// Debian and its mirrors have a separate archive for security updates; Ubuntu's mirrors include them.
fn security_archive(distro: &Distro, architecture: Architecture, mirror: &str) -> String {
    match (distro.family, architecture, &distro.mirror) {
        (Family::Debian, _, _) => format!("{mirror}-security"),
        (Family::Ubuntu, Architecture::Amd64, None) => "http://security.ubuntu.com/ubuntu".into(),
        (Family::Ubuntu, _, _) => mirror.to_string(),
    }
}

/// Parses the field `Date` of a release file: `Sat, 06 Sep 2025 10:12:47 UTC`.
fn release_date(content: &[u8]) -> Option<Timestamp> {
    let text = String::from_utf8_lossy(&content[..content.len().min(8192)]);
    let date = text.lines().find_map(|line| line.strip_prefix("Date: "))?;
    let date = date.trim().trim_end_matches("UTC").trim();
    let moment = jiff::civil::DateTime::strptime("%a, %d %b %Y %H:%M:%S", date).ok()?;
    Some(moment.in_tz("UTC").ok()?.timestamp())
}

/// The reason in apt's output, without its progress messages.
fn apt_reason(log: &str) -> String {
    let error = log.lines().find_map(|line| line.trim().strip_prefix("E: "));
    error.unwrap_or(log).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distro(family: Family, mirror: Option<&str>) -> Distro {
        Distro {
            family,
            suite: "noble".into(),
            version: "24.04".into(),
            base: "docker.io/library/ubuntu:24.04".into(),
            python: "3.12".into(),
            reference: None,
            mirror: mirror.map(String::from),
        }
    }

    fn recipe<'a>(distro: &'a Distro, platform: &str) -> Recipe<'a> {
        Recipe::new(&BootstrapRequest {
            distro_name: "x",
            distro,
            platform: platform.parse().unwrap(),
            cache: Path::new(""),
            refresh: false,
        })
    }

    #[test]
    fn each_architecture_has_its_archive_and_the_image_keeps_the_distros_own() {
        let ubuntu = distro(Family::Ubuntu, None);
        let sources = recipe(&ubuntu, "arm64").image_sources();
        assert!(
            sources
                .lines()
                .all(|line| line.contains("http://ports.ubuntu.com/ubuntu-ports noble")),
            "{sources}"
        );
        let mirrored = distro(Family::Ubuntu, Some("http://mirror.example/ubuntu/"));
        let recipe = recipe(&mirrored, "amd64");
        assert_eq!(recipe.security, "http://mirror.example/ubuntu");
        let sources = recipe.image_sources();
        assert!(
            sources.contains("http://security.ubuntu.com/ubuntu noble-security main universe\n"),
            "{sources}"
        );
        assert!(!sources.contains("mirror.example"), "{sources}");
    }

    #[test]
    fn a_new_state_of_the_archive_is_a_new_key() {
        let distro = distro(Family::Debian, None);
        let amd64 = recipe(&distro, "amd64");
        let releases = |content: &[u8]| Releases {
            content: content.into(),
            newest: Timestamp::UNIX_EPOCH,
        };
        assert_eq!(amd64.key(&releases(b"1")), amd64.key(&releases(b"1")));
        assert_ne!(amd64.key(&releases(b"1")), amd64.key(&releases(b"2")));
        assert_ne!(
            amd64.key(&releases(b"1")),
            recipe(&distro, "arm64").key(&releases(b"1"))
        );
    }

    #[test]
    fn a_release_files_date_is_read() {
        let file = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nOrigin: Ubuntu\nDate: Thu, 25 Apr 2024 15:10:33 UTC\n";
        assert_eq!(release_date(file).unwrap().to_string(), "2024-04-25T15:10:33Z");
        assert_eq!(release_date(b"<html>not found</html>"), None);
    }

    #[test]
    fn of_apts_output_the_reason_is_told() {
        let log = "Ign:1 http://x/InRelease\nErr:1 http://x/InRelease\n  Could not resolve 'x'\n\
                   E: Failed to fetch http://x/InRelease  Could not resolve 'x'\nE: Download Failed\n";
        assert_eq!(
            apt_reason(log),
            "Failed to fetch http://x/InRelease Could not resolve 'x'"
        );
    }
}
