//! Runs mmdebstrap for a recipe, and writes its output as a base archive.

use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::path::Path;
use std::process::Stdio;

use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt as _, BufReader as AsyncBufReader};
use tokio::process::Command;
use tokio_util::io::SyncIoBridge;
use tokio_util::sync::CancellationToken;

use super::super::BaseError;
use super::super::archive::{self, ImageInfo, Layer};
use super::super::cache::{self, BaseArchive};
use super::super::process::failed;
use super::{DPKG_OPTIONS, Recipe, Releases};
use crate::config::{Distro, Family};
use crate::progress::Progress;
use crate::util::process::Child;

/// Lines of mmdebstrap's output in an error.
const LOG_LINES: usize = 25;

impl Recipe<'_> {
    pub(super) async fn make(
        &self,
        releases: &Releases,
        keyring: &Path,
        scratch: &Path,
        path: &Path,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<BaseArchive, BaseError> {
        let mut command = Command::new("mmdebstrap");
        command.args(["--variant=minbase", "--format=tar"]);
        command.arg(if rustix::process::geteuid().is_root() {
            "--mode=root"
        } else {
            "--mode=unshare"
        });
        command.arg(format!("--architectures={}", self.platform.architecture().name()));
        // mmdebstrap's test for emulation needs another package (arch-test); `tools::check` has checked the kernel.
        command.arg("--skip=check/qemu");
        // mmdebstrap reads the host's apt configuration, which may differ.
        command.arg("--aptopt=APT::Install-Recommends \"false\"");
        command.arg("--aptopt=Acquire::Retries \"3\"");
        for option in DPKG_OPTIONS {
            command.arg(format!("--dpkgopt={option}"));
        }
        // Packages that "required" lacks in some suite: the installer, its keys, useradd.
        command.arg(match self.distro.family {
            Family::Debian => "--include=apt,debian-archive-keyring,passwd",
            Family::Ubuntu => "--include=apt,ubuntu-keyring,passwd",
        });
        if lacks_merged_usr(self.distro) {
            command.arg("--hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr");
        }
        command.arg(&self.distro.suite).arg("-");
        command.args(self.sources(self.mirror, &self.security, keyring).lines());
        command.env("SOURCE_DATE_EPOCH", releases.newest.as_second().to_string());
        command.env("LC_ALL", "C.UTF-8");

        let rootfs = scratch.join("rootfs.tar");
        let layer = self.run_mmdebstrap(command, &rootfs, progress, cancel).await?;
        progress.step("writing the archive");
        let done = scratch.join("archive.tar");
        let created_by = format!("mmdebstrap --variant=minbase {} {}", self.distro.suite, self.mirror);
        let digest = self.write_archive(&rootfs, &layer, &done, releases.newest, &created_by)?;
        let base = BaseArchive {
            path: path.to_path_buf(),
            image_name: self.tag.clone(),
            platform: self.platform,
            digest,
            diff_id: format!("sha256:{}", layer.hex),
            size: layer.size,
            packages: layer.packages,
            suite: self.distro.suite.clone(),
            mirror: self.mirror.to_string(),
            snapshot: releases.newest,
        };
        cache::store(&base, &done, scratch)?;
        Ok(base)
    }

    async fn run_mmdebstrap(
        &self,
        mut command: Command,
        rootfs: &Path,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Layer, BaseError> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = Child::spawn(command).map_err(|e| BaseError::io("starting", Path::new("mmdebstrap"), e))?;
        let (Some(stdout), Some(stderr)) = (child.inner.stdout.take(), child.inner.stderr.take()) else {
            return Err(failed("mmdebstrap", "no pipes", ""));
        };
        let file = File::create(rootfs).map_err(|e| BaseError::io("creating", rootfs, e))?;
        let sources = self.image_sources();
        let copy = tokio::task::spawn_blocking(move || {
            let input = BufReader::with_capacity(1 << 20, SyncIoBridge::new(stdout));
            archive::copy_rootfs(input, BufWriter::with_capacity(1 << 20, file), &sources, |_| {})
        });
        let mut lines = AsyncBufReader::new(stderr).lines();
        let mut log: Vec<String> = Vec::new();
        loop {
            tokio::select! {
                line = lines.next_line() => match line {
                    Ok(Some(line)) => {
                        if let Some(step) = line.strip_prefix("I: ") {
                            progress.step(&format!("mmdebstrap: {step}"));
                        }
                        progress.log(&line);
                        log.push(line);
                    }
                    _ => break,
                },
                () = cancel.cancelled() => {
                    child.interrupt().await;
                    return Err(BaseError::Cancelled);
                }
            }
        }
        let status = child
            .inner
            .wait()
            .await
            .map_err(|e| BaseError::io("waiting for", Path::new("mmdebstrap"), e))?;
        let copied = copy.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        if status.success() {
            return copied.map_err(|e| BaseError::io("writing", rootfs, e));
        }
        // If copying stopped first, mmdebstrap's failure is a consequence.
        if let Err(error) = copied
            && log.iter().any(|line| line.contains("Broken pipe"))
        {
            return Err(BaseError::io("writing", rootfs, error));
        }
        let tail = log[log.len().saturating_sub(LOG_LINES)..].join("\n");
        match log.iter().find(|line| is_network_failure(line)) {
            Some(line) => Err(BaseError::Unreachable {
                url: self.mirror.to_string(),
                reason: line.trim().to_string(),
            }),
            None => Err(failed("mmdebstrap", &status.to_string(), &tail)),
        }
    }

    fn write_archive(
        &self,
        rootfs: &Path,
        layer: &Layer,
        to: &Path,
        created: Timestamp,
        created_by: &str,
    ) -> Result<String, BaseError> {
        let image = ImageInfo {
            platform: self.platform,
            created,
            created_by,
            tag: &self.tag,
            kept: &self.kept,
        };
        let write = || {
            let mut input = File::open(rootfs)?;
            let output = File::create(to)?;
            let digest = archive::write(BufWriter::with_capacity(1 << 20, &output), layer, &mut input, &image)?;
            output.sync_all()?;
            Ok(digest)
        };
        write().map_err(|e| BaseError::io("writing", to, e))
    }
}

/// Whether the links `/bin -> usr/bin` of the distro's own images must be created here: no required package creates
/// them, or (bookworm) the package that does depends on all of Perl.
fn lacks_merged_usr(distro: &Distro) -> bool {
    matches!(distro.suite.as_str(), "bullseye" | "bookworm" | "focal" | "jammy")
}

fn is_network_failure(line: &str) -> bool {
    [
        "Could not resolve",
        "Could not connect",
        "Unable to connect",
        "Connection timed out",
        "Connection failed",
        "Failed to fetch",
    ]
    .iter()
    .any(|sign| line.contains(sign))
}
