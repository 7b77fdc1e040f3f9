//! The validators of CycloneDX, SPDX and in-toto, from PyPI in an environment of their own, once per target directory.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

const REQUIREMENTS: [&str; 3] = [
    "cyclonedx-python-lib[json-validation]==11.12.0",
    "in-toto-attestation==0.9.3",
    "spdx-tools==0.8.5",
];

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Spdx,
    CycloneDx,
    Provenance,
}

pub struct Validators {
    python: PathBuf,
}

impl Validators {
    /// `None`, with the reason printed, where they cannot be had: on a person's machine, not in CI.
    pub fn get() -> Option<Self> {
        match install() {
            Ok(python) => Some(Validators { python }),
            Err(why) if std::env::var_os("CI").is_some() => panic!("{why}"),
            Err(why) => {
                eprintln!("SKIPPED: {why}");
                None
            }
        }
    }

    /// What is wrong with a document: nothing, or what its validator says.
    pub fn complaints(&self, kind: Kind, document: &[u8]) -> String {
        // The SPDX library tells the format by the name.
        let mut file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        file.write_all(document).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sbom/validate.py");
        let kind = match kind {
            Kind::Spdx => "spdx",
            Kind::CycloneDx => "cyclonedx",
            Kind::Provenance => "provenance",
        };
        let output = Command::new(&self.python)
            .arg(script)
            .arg(kind)
            .arg(file.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(0) => String::new(),
            Some(1) if !said.is_empty() => said,
            _ => panic!(
                "the validator itself failed: {}",
                String::from_utf8_lossy(&output.stderr)
            ),
        }
    }
}

fn install() -> Result<PathBuf, String> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sbom-validators");
    let python = directory.join("bin/python");
    let noted = directory.join("requirements.txt");
    let requirements = REQUIREMENTS.join("\n");
    // Tests are processes that run side by side.
    let lock = File::create(directory.with_extension("lock")).map_err(|e| e.to_string())?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| e.to_string())?;
    if fs::read_to_string(&noted).is_ok_and(|text| text == requirements) {
        return Ok(python);
    }
    let _ = fs::remove_dir_all(&directory);
    run(Command::new("python3").args(["-m", "venv"]).arg(&directory))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(REQUIREMENTS))?;
    fs::write(&noted, requirements).map_err(|e| e.to_string())?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<(), String> {
    let failed = |why: String| {
        format!(
            "the validators from PyPI cannot be installed ({command:?}): {why}",
            command = "venv, pip"
        )
    };
    let output = command.output().map_err(|e| failed(e.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}
