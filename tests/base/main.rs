//! Bases that registries serve, on every kind of builder: docker-registry on loopback, whole builds.
//!
//! The images are made on a base of a few files, with build steps that do next to nothing; what the contract says of the
//! base is judged all the same.

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

/// A registry with bases, as the engine of a test reaches it.
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

    /// A base of one manifest as `name`, distinct by `name`. Returns its digest.
    fn push(&self, name: &str) -> String {
        let (archive, digest) = base_archive(&format!("{}/{name}", self.host), &base_layer());
        let path = self.dir.path().join("base.tar");
        std::fs::write(&path, archive).unwrap();
        self.copy(&format!("oci-archive:{}", path.display()), name);
        digest
    }

    /// An index with that base in it. Returns the index's digest.
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

/// obgp-build with a base as build.toml has it, in the given mode.
fn command(project: &Project, what: &str, mode: &str, more: &[&str]) -> Command {
    let mut command = project.command(&[what, "--bootstrap", mode]);
    command
        .args(["--json", "--progress", "plain", "--plain-http"])
        .args(more);
    if what == "build" {
        command.arg("--output").arg(project.output("registry"));
    }
    command
}

/// The result of a build that was done but for the contract's other rules.
fn report(output: &Output) -> Value {
    let told = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{text}\n{told}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {text}\n{told}"))
}

fn failure(output: &Output) -> String {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    told
}

/// What each target says of its base is the registry's truth, in report and image, and the contract agrees.
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

/// The planned bases of both distros: where each comes from, and its digest.
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
