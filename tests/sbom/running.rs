//! Compares the SBOMs of the `scripts/quickstart` image with the lists of dpkg and Python in the running image.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::quickstart::report;
use crate::validators::{Kind, Validators};

/// Prints name and version of each Python distribution, normalised as on PyPI.
const LIST_PYTHON: &str = "import importlib.metadata as m, re
for d in m.distributions(): print(re.sub('[-_.]+', '-', d.metadata['Name']).lower(), d.version)";

fn obgp_build(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_obgp-build"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments)
        .args(["--progress", "quiet"])
        .output()
        .unwrap()
}

fn sbom(image: &str, platform: &str, format: &str) -> Vec<u8> {
    let output = obgp_build(&["sbom", image, "--platform", platform, "--format", format]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // A gap would be reported on stderr.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    output.stdout
}

/// Returns the output lines of a command in the image.
fn inside(image: &str, platform: &str, command: &[&str]) -> BTreeSet<String> {
    let output = Command::new("docker")
        .args([
            "run",
            "--rm",
            "--network",
            "none",
            "--platform",
            platform,
            "--entrypoint",
            command[0],
            image,
        ])
        .args(&command[1..])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_string).collect()
}

/// Returns `name version` of the SPDX packages of one kind.
fn listed(spdx: &Value, kind: &str) -> BTreeSet<String> {
    let packages = spdx["packages"].as_array().unwrap().iter();
    packages
        .filter(|p| p["SPDXID"].as_str().unwrap().starts_with(&format!("SPDXRef-{kind}-")))
        .map(|p| format!("{} {}", p["name"].as_str().unwrap(), p["versionInfo"].as_str().unwrap()))
        .collect()
}

/// Returns `name version` of every crate in Cargo.lock.
fn locked_crates() -> BTreeSet<String> {
    let lock = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    let lock: toml::Table = lock.parse().unwrap();
    let text = |package: &toml::Value, key: &str| package[key].as_str().unwrap().to_string();
    let packages = lock["package"].as_array().unwrap().iter();
    packages
        .map(|p| format!("{} {}", text(p, "name"), text(p, "version")))
        .collect()
}

/// Returns `name version` of the crates that Cargo links into the runtime.
fn crates_of_the_runtime(target: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--package",
            "obgp-runtime",
            "--edges",
            "normal",
        ])
        .args(["--target", target, "--prefix", "none", "--format", "{p}"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let (name, version) = (words.next().unwrap(), words.next().unwrap());
            format!("{name} {}", version.trim_start_matches('v'))
        })
        .collect()
}

#[test]
fn the_sbom_lists_everything_that_the_running_image_lists() {
    let (Some(report), Some(validators)) = (report(), Validators::get()) else {
        return;
    };
    let image = &report["images"][0];
    let layout = image["layout"]
        .as_str()
        .expect("the quickstart's image keeps its contract");
    let locked = locked_crates();
    for built in image["platforms"].as_array().unwrap() {
        let platform = built["platform"].as_str().unwrap();
        let engine_image = built["engine_image"].as_str().unwrap();
        let document = sbom(layout, platform, "spdx-json");
        let again = sbom(layout, platform, "spdx-json");
        assert_eq!(document, again, "{platform}: the document is reproducible");
        let spdx: Value = serde_json::from_slice(&document).unwrap();
        validators.assert_valid(Kind::Spdx, &spdx);
        let cyclonedx: Value = serde_json::from_slice(&sbom(layout, platform, "cyclonedx-json")).unwrap();
        validators.assert_valid(Kind::CycloneDx, &cyclonedx);

        // The SBOM lists all packages of dpkg, and the packages of which the image has some files only.
        let format = "-f=${Package} ${Version}\n";
        let dpkg = inside(engine_image, platform, &["dpkg-query", "-W", format]);
        let partial = inside(engine_image, platform, &["ls", "/var/lib/dpkg/status.d"]);
        let packages = listed(&spdx, "deb");
        let missing: Vec<_> = dpkg.difference(&packages).collect();
        assert!(missing.is_empty() && dpkg.len() > 100, "{platform}: {missing:?}");
        let additional = packages
            .difference(&dpkg)
            .map(|p| p.split(' ').next().unwrap().to_string());
        assert_eq!(additional.collect::<BTreeSet<_>>(), partial, "{platform}");

        let python = inside(engine_image, platform, &["python3", "-c", LIST_PYTHON]);
        assert!(python.len() > 50, "{platform}: {python:?}");
        assert_eq!(listed(&spdx, "python"), python, "{platform}");

        let target = match platform {
            "linux/arm64" => "aarch64-unknown-linux-gnu",
            _ => "x86_64-unknown-linux-gnu",
        };
        let crates = listed(&spdx, "crate");
        if inside(engine_image, platform, &["ls", "/usr/local/bin"]).contains("obgp-runtime") {
            let missing: Vec<_> = crates_of_the_runtime(target).difference(&crates).cloned().collect();
            assert!(missing.is_empty(), "{platform}: {missing:?}");
        }
        let foreign: Vec<_> = crates.difference(&locked).collect();
        assert!(foreign.is_empty(), "{platform}: {foreign:?}");

        // Both formats list the same packages.
        let purls = |list: &Value, at: &str| {
            let all = list
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|p| p.pointer(at)?.as_str().map(str::to_string));
            all.filter(|p| !p.starts_with("pkg:oci/")).collect::<BTreeSet<_>>()
        };
        assert_eq!(
            purls(&spdx["packages"], "/externalRefs/0/referenceLocator"),
            purls(&cyclonedx["components"], "/purl"),
            "{platform}"
        );
    }
    assert_one_file_per_platform(layout, image["platforms"].as_array().unwrap().len());
}

fn assert_one_file_per_platform(layout: &str, platforms: usize) {
    let dir = tempfile::tempdir().unwrap();
    let output = obgp_build(&["sbom", layout, "--output", dir.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files: Vec<PathBuf> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(files.len(), platforms, "{files:?}");
    assert!(
        files.iter().all(|f| f.to_str().unwrap().ends_with(".spdx.json")),
        "{files:?}"
    );
    if platforms > 1 {
        let rejected = obgp_build(&["sbom", layout]);
        assert_eq!(rejected.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&rejected.stderr).contains("--platform"));
    }
}
