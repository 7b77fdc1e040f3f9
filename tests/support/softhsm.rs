//! Runs the distro's SoftHSM, which implements PKCS#11 tokens in files, with a token directory per test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The user PIN. Not a number, because a log may contain any number by chance.
pub const PIN: &str = "open-sesame";
const SO_PIN: &str = "00000000";

const MODULES: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

pub struct SoftHsm {
    dir: tempfile::TempDir,
    pub module: PathBuf,
}

impl SoftHsm {
    /// If SoftHSM is not installed, prints that and returns `None`; panics in CI.
    pub fn new() -> Option<Self> {
        const HELP: &str = "SoftHSM is not installed (package softhsm2)";
        let module = MODULES.iter().map(Path::new).find(|path| path.exists());
        let tool = Command::new("softhsm2-util").arg("--version").output();
        let (Some(module), Ok(_)) = (module, tool) else {
            assert!(std::env::var_os("CI").is_none(), "{HELP}");
            eprintln!("SKIPPED: {HELP}");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let tokens = dir.path().join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        let config = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        std::fs::write(dir.path().join("softhsm2.conf"), config).unwrap();
        Some(Self {
            dir,
            module: module.to_path_buf(),
        })
    }

    /// The environment variable by which a process finds the tokens.
    pub fn environment(&self) -> (&'static str, PathBuf) {
        ("SOFTHSM2_CONF", self.dir.path().join("softhsm2.conf"))
    }

    pub fn make_token(&self, label: &str) {
        self.run(&[
            "--init-token",
            "--free",
            "--label",
            label,
            "--so-pin",
            SO_PIN,
            "--pin",
            PIN,
        ]);
    }

    /// Imports a key pair (PKCS#8, PEM) into a token.
    pub fn import(&self, token: &str, label: &str, id: &str, pem: &str) {
        let file = self.dir.path().join("key.pem");
        std::fs::write(&file, pem).unwrap();
        let file = file.display().to_string();
        self.run(&[
            "--import", &file, "--token", token, "--label", label, "--id", id, "--pin", PIN,
        ]);
    }

    fn run(&self, arguments: &[&str]) {
        let (name, config) = self.environment();
        let output = Command::new("softhsm2-util")
            .args(arguments)
            .env(name, config)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
