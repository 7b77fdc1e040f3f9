//! Resolves the image's obgp-runtime: a program given with `--runtime-binary`, or the sources in `runtime/`.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::base::resolve::BasePlan;
use crate::config::RuntimeBinary;
use crate::config::file::ConfigError;
use crate::oci::Platform;
use crate::util::elf::{Header, Loader, machine_name};

/// Maximum size; larger files are mistakes and are not read into memory.
const MAX_BYTES: u64 = 32 << 20;

/// A compiled obgp-runtime, checked for its platform.
#[derive(Clone, Debug, Serialize)]
pub struct Prebuilt {
    pub path: PathBuf,
    pub digest: String,
    pub bytes: usize,
    #[serde(skip)]
    pub content: Bytes,
}

impl Prebuilt {
    /// Reads the program and rejects it if it cannot run in an image for `platform`, before the build.
    pub fn load(binary: &RuntimeBinary) -> Result<Self, ConfigError> {
        let RuntimeBinary { platform, path } = binary;
        let refused = |what: &dyn fmt::Display| {
            ConfigError::Invalid(format!("--runtime-binary {platform}={}: {what}", path.display()))
        };
        let content = read(path).map_err(|e| refused(&e))?;
        judge(&content, *platform).map_err(|what| refused(&what))?;
        Ok(Self {
            path: path.clone(),
            digest: format!("sha256:{}", hex::encode(Sha256::digest(&content))),
            bytes: content.len(),
            content: content.into(),
        })
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut content = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::other(format!(
            "larger than {} MiB; is this obgp-runtime?",
            MAX_BYTES >> 20
        )));
    }
    Ok(content)
}

fn judge(content: &[u8], platform: Platform) -> Result<(), String> {
    let wanted = platform.architecture().elf_machine();
    let header = match Header::parse(content) {
        Some(Ok(header)) => header,
        Some(Err(what)) => return Err(what.into()),
        None => return Err("it is not an ELF file".into()),
    };
    if (header.machine, header.bits, header.little_endian) != (wanted, 64, true) {
        let expected = machine_name(wanted);
        let found = machine_name(header.machine);
        return Err(format!(
            "it is a {}-bit program for {found}, not for {expected}",
            header.bits
        ));
    }
    match header.loader {
        Loader::None => Ok(()),
        Loader::Asked => Err(
            "it is linked dynamically\nhelp: link it statically with RUSTFLAGS='-C target-feature=+crt-static'".into(),
        ),
        Loader::Unknown => Err("its program headers cannot be read".into()),
    }
}

/// The origin of obgp-runtime for one platform.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum RuntimePlan {
    /// The build compiles it from the sources in its context.
    Compiled {
        /// For the build platform.
        base: BasePlan,
        /// SHA-256 over all compiled sources (`Cargo.toml`, `Cargo.lock`, `runtime/`), as in the build context.
        sources_digest: String,
    },
    Prebuilt(Prebuilt),
}

impl RuntimePlan {
    pub fn base(&self) -> Option<&BasePlan> {
        match self {
            RuntimePlan::Compiled { base, .. } => Some(base),
            RuntimePlan::Prebuilt(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 64-bit little-endian file for `machine`, with one program header of type `kind`.
    fn program(machine: u16, kind: u8) -> Vec<u8> {
        let mut program = b"\x7fELF\x02\x01\x01".to_vec();
        program.resize(64 + 56, 0);
        program[18..20].copy_from_slice(&machine.to_le_bytes());
        (program[32], program[54], program[56], program[64]) = (64, 56, 1, kind);
        program
    }

    fn load(content: &[u8], platform: &str) -> Result<Prebuilt, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("obgp-runtime");
        std::fs::write(&path, content).unwrap();
        let binary = format!("{platform}={}", path.display()).parse().unwrap();
        Prebuilt::load(&binary).map_err(|e| e.to_string())
    }

    #[test]
    fn a_static_program_of_the_platform_is_taken() {
        for (platform, machine) in [("linux/amd64", 62), ("linux/arm64", 183)] {
            let prebuilt = load(&program(machine, 1), platform).unwrap();
            assert_eq!(prebuilt.bytes, 120);
            assert!(prebuilt.digest.starts_with("sha256:"));
        }
    }

    #[test]
    fn a_program_that_cannot_run_on_the_platform_is_rejected_with_the_reason() {
        for (content, reason) in [
            (program(183, 1), "for aarch64, not for x86-64"),
            (program(62, 3), "linked dynamically"),
            (b"#!/bin/sh\n".to_vec(), "not an ELF file"),
            (b"\x7fELF\x02".to_vec(), "truncated"),
            (program(62, 1)[..66].to_vec(), "cannot be read"),
            (vec![0; MAX_BYTES as usize + 1], "larger than 32 MiB"),
        ] {
            let error = load(&content, "linux/amd64").unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        let gone = "linux/amd64=/nonexistent/file".parse().unwrap();
        assert!(
            Prebuilt::load(&gone)
                .unwrap_err()
                .to_string()
                .contains("/nonexistent/file")
        );
    }
}
