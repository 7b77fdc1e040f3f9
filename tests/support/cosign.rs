//! Runs cosign 2 and cosign 3 from Debian's packages. They run offline: without a transparency log, and without access
//! to Sigstore's trust root.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::debian;

pub const PASSWORD: &str = "correct horse";

/// Not the password of the keys.
pub const WRONG_PASSWORD: &str = "battery staple";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    Two,
    Three,
}

pub struct Cosign {
    program: PathBuf,
    pub series: Series,
    home: tempfile::TempDir,
}

/// Returns both series, or `None` if they cannot be downloaded.
pub fn both() -> Option<[Cosign; 2]> {
    Some([Cosign::get(Series::Two)?, Cosign::get(Series::Three)?])
}

impl Cosign {
    pub fn get(series: Series) -> Option<Self> {
        let suite = match series {
            Series::Two => "trixie",
            Series::Three => "sid",
        };
        let root = debian::package(suite, "cosign")?;
        let cosign = Self {
            program: root.join("usr/bin/cosign"),
            series,
            home: tempfile::tempdir().unwrap(),
        };
        // Debian's build does not know its own version.
        let version = std::fs::read_to_string(root.join("version")).unwrap();
        let expected = match series {
            Series::Two => "2.",
            Series::Three => "3.",
        };
        assert!(version.starts_with(expected), "Debian {suite} has cosign {version}");
        if series == Series::Three {
            // A signing configuration without a transparency log and timestamps.
            cosign
                .run(&["signing-config", "create", "--out", &cosign.signing_config()])
                .unwrap();
        }
        Some(cosign)
    }

    fn signing_config(&self) -> String {
        self.home.path().join("signing-config.json").display().to_string()
    }

    /// Returns stdout, or stderr on failure.
    pub fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(&self.program)
            .args(arguments)
            .current_dir(self.home.path())
            .env("HOME", self.home.path())
            .env("COSIGN_PASSWORD", PASSWORD)
            // The registry is on loopback, for which Go never uses a proxy.
            .env("HTTPS_PROXY", "http://127.0.0.1:1")
            .env("HTTP_PROXY", "http://127.0.0.1:1")
            .output()
            .unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Makes a key pair: `NAME.key`, encrypted, and `NAME.pub`.
    pub fn key_pair(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let prefix = dir.join(name).display().to_string();
        self.run(&["generate-key-pair", "--output-key-prefix", &prefix])
            .unwrap();
        (format!("{prefix}.key").into(), format!("{prefix}.pub").into())
    }

    /// Signs a manifest, or an index and its manifests.
    pub fn sign(&self, key: &Path, reference: &str) {
        let key = key.display().to_string();
        let config = self.signing_config();
        let mut arguments = vec!["sign", "--recursive", "--yes", "--key", &key];
        arguments.extend(self.without_log(&config));
        arguments.push(reference);
        self.run(&arguments).unwrap();
    }

    pub fn attest(&self, key: &Path, kind: &str, predicate: &str, reference: &str, more: &[&str]) {
        let file = self.home.path().join("predicate.json");
        std::fs::write(&file, predicate).unwrap();
        let (key, file) = (key.display().to_string(), file.display().to_string());
        let config = self.signing_config();
        let mut arguments = vec!["attest", "--yes", "--key", &key, "--type", kind, "--predicate", &file];
        arguments.extend(self.without_log(&config));
        arguments.extend(more);
        arguments.push(reference);
        self.run(&arguments).unwrap();
    }

    fn without_log<'a>(&self, config: &'a str) -> Vec<&'a str> {
        match self.series {
            Series::Two => vec!["--tlog-upload=false"],
            Series::Three => vec!["--signing-config", config],
        }
    }

    pub fn verify(&self, public: &Path, reference: &str) -> Result<String, String> {
        let public = public.display().to_string();
        self.run(&["verify", "--key", &public, "--insecure-ignore-tlog", reference])
    }

    /// Returns the envelopes that cosign prints.
    pub fn verify_attestation(&self, public: &Path, kind: &str, reference: &str) -> Result<String, String> {
        let public = public.display().to_string();
        self.run(&[
            "verify-attestation",
            "--key",
            &public,
            "--type",
            kind,
            "--insecure-ignore-tlog",
            reference,
        ])
    }
}
