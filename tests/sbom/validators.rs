//! Runs the validators of CycloneDX, SPDX and in-toto from PyPI, installed once per target directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

/// lib4sbom contains the JSON schema of SPDX.
const REQUIREMENTS: [&str; 4] = [
    "cyclonedx-python-lib[json-validation]==11.12.0",
    "in-toto-attestation==0.9.3",
    "lib4sbom==0.10.4",
    "spdx-tools==0.8.5",
];

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Spdx,
    CycloneDx,
    Statement,
    Provenance,
}

pub struct Validators {
    python: PathBuf,
}

impl Validators {
    /// If the installation fails, prints the reason and returns `None`; panics in CI.
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

    /// Returns the validation errors of each document.
    pub fn complaints(&self, kind: Kind, documents: &[Value]) -> Vec<Vec<String>> {
        let directory = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> = documents
            .iter()
            .enumerate()
            .map(|(at, document)| {
                // The SPDX library takes the format from the file name.
                let file = directory.path().join(format!("{at}.json"));
                fs::write(&file, document.to_string()).unwrap();
                file
            })
            .collect();
        let output = Command::new(&self.python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sbom/validate.py"))
            .arg(match kind {
                Kind::Spdx => "spdx",
                Kind::CycloneDx => "cyclonedx",
                Kind::Statement => "statement",
                Kind::Provenance => "provenance",
            })
            .args(files)
            .output()
            .unwrap();
        let failed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the validator itself failed: {failed}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Checks that the document is valid, and invalid after each replacement of one value.
    pub fn assert_rejects(&self, kind: Kind, good: &Value, breaks: &[(&str, Value)]) {
        let mut documents = vec![good.clone()];
        for (pointer, value) in breaks {
            let mut broken = good.clone();
            *broken
                .pointer_mut(pointer)
                .unwrap_or_else(|| panic!("nothing at {pointer}")) = value.clone();
            documents.push(broken);
        }
        let complaints = self.complaints(kind, &documents);
        assert_eq!(complaints[0], Vec::<String>::new());
        for ((pointer, value), complaints) in breaks.iter().zip(&complaints[1..]) {
            assert!(!complaints.is_empty(), "{pointer}: {value} is accepted");
        }
    }

    pub fn assert_valid(&self, kind: Kind, document: &Value) {
        self.assert_rejects(kind, document, &[]);
    }
}

fn install() -> Result<PathBuf, String> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sbom-validators");
    let python = directory.join("bin/python");
    let installed = directory.join("requirements.txt");
    let requirements = REQUIREMENTS.join("\n");
    // Tests run as parallel processes.
    let lock = File::create(directory.with_extension("lock")).map_err(|e| e.to_string())?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| e.to_string())?;
    if fs::read_to_string(&installed).is_ok_and(|text| text == requirements) {
        return Ok(python);
    }
    let _ = fs::remove_dir_all(&directory);
    run(Command::new("python3").args(["-m", "venv"]).arg(&directory))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(REQUIREMENTS))?;
    fs::write(&installed, requirements).map_err(|e| e.to_string())?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<(), String> {
    let failed = |why: String| format!("the validators cannot be installed from PyPI: {why}");
    let output = command.output().map_err(|e| failed(e.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}
