//! Tests bases from registries with whole builds on every kind of builder.
//!
//! The base is tiny and the build steps are trivial, but the contract's rules about the base apply.

#[path = "../support/mod.rs"]
mod support;

mod modes;
mod sources;

use std::process::{Command, Output};

use obgp_build::engine::Endpoint;
use serde_json::Value;
use support::distribution::{Distribution, Login, PASSWORD, USER};
use support::project::{PLATFORM, Project, base_archive, base_layer};
use support::{Which, address_for_containers};

/// A registry with bases, at an address that the engine of the test reaches.
struct Bases {
    registry: Distribution,
    host: String,
    dir: tempfile::TempDir,
}

impl Bases {
    fn start(which: Which, login: Login) -> Self {
        let registry = Distribution::start_for_containers_with(login);
        let port = registry.address().port();
        let ip = match which {
            Which::Machine => "127.0.0.1".to_string(),
            _ => address_for_containers(),
        };
        Self {
            host: format!("{ip}:{port}"),
            dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
            registry,
        }
    }

    fn reference(&self, name: &str) -> String {
        format!("{}/test/{name}", self.host)
    }

    /// Pushes a base with one manifest, unique by `name`. Returns its digest.
    fn push(&self, name: &str) -> String {
        let (archive, digest) = base_archive(&format!("{}/{name}", self.host), &base_layer());
        let path = self.dir.path().join("base.tar");
        std::fs::write(&path, archive).unwrap();
        self.copy(&format!("oci-archive:{}", path.display()), name);
        digest
    }

    /// Pushes an index with such a base. Returns the digest of the index.
    fn push_index(&self, name: &str) -> String {
        let manifest = self.push(name);
        let hex = &manifest["sha256:".len()..];
        let layout = self.dir.path().join("index");
        let tar = self.dir.path().join("base.tar");
        std::fs::create_dir_all(&layout).unwrap();
        run(Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(&layout));
        let size = std::fs::metadata(layout.join("blobs/sha256").join(hex)).unwrap().len();
        let index = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest, "size": size,
                "platform": {"os": "linux", "architecture": PLATFORM.rsplit('/').next().unwrap()},
            }],
        })
        .to_string();
        let digest = support::project::digest_of(index.as_bytes());
        std::fs::write(layout.join("blobs/sha256").join(&digest["sha256:".len()..]), &index).unwrap();
        let top = serde_json::json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": index.len(),
        }]});
        std::fs::write(layout.join("index.json"), top.to_string()).unwrap();
        self.copy(&format!("oci:{}", layout.display()), name);
        digest
    }

    fn copy(&self, from: &str, name: &str) {
        let login = format!("{USER}:{PASSWORD}");
        let mut command = Command::new("skopeo");
        command.args([
            "copy",
            "--quiet",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
        ]);
        command.args(["--dest-creds", &login]);
        run(command.arg(from).arg(format!("docker://{}", self.reference(name))));
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Returns a command with the base of build.toml, in the given bootstrap mode.
fn command(project: &Project, subcommand: &str, mode: &str, more: &[&str]) -> Command {
    let mut command = project.command(&[subcommand, "--bootstrap", mode]);
    command
        .args(["--json", "--progress", "plain", "--plain-http"])
        .args(more);
    if subcommand == "build" {
        command.arg("--output").arg(project.output("registry"));
    }
    command
}

/// Returns the report of a build that fails at most the contract's other rules.
fn report(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{stdout}\n{stderr}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {stdout}\n{stderr}"))
}

/// Returns stderr of a run that must fail.
fn failure(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    stderr
}

/// Checks that the report names this base for each target, and that the base labels pass the contract.
fn assert_based_on(report: &Value, reference: &str, digest: &str) {
    for image in report["images"].as_array().unwrap() {
        let built = &image["platforms"][0];
        assert!(built["error"].is_null(), "{built:#}");
        assert_eq!(built["base"]["name"], reference, "{built:#}");
        assert_eq!(built["base"]["digest"], digest, "{built:#}");
        let rules = built["verdict"].to_string();
        assert!(!rules.contains("org.opencontainers.image.base"), "{rules}");
    }
}

/// Returns the origin and the digest of the planned base of each distro.
fn planned(output: &Output) -> Vec<(String, Option<String>)> {
    let plan = report(output);
    let images = plan["images"].as_array().unwrap();
    let text = |value: &Value| value.as_str().map(str::to_string);
    let base = |image: &Value| image["targets"][0]["base"].clone();
    let of = |base: Value| (text(&base["origin"]).unwrap(), text(&base["digest"]));
    images.iter().map(base).map(of).collect()
}

fn endpoint(which: Which) -> Option<Endpoint> {
    which.endpoint()
}
