//! A copy of the project with trivial build steps and a tiny base, which the tool treats as bootstrapped. A build takes
//! seconds.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use obgp_build::engine::{Endpoint, Engine};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::tls::Certificates;
use super::{busybox, busybox_layer_with, host_platform, proxy};

pub const PLATFORM: &str = "linux/amd64";

/// A line that the build prints some seconds before it ends.
pub const UNDER_WAY: &str = "obgp-test is under way";

/// Replaces the scripts of `images/ovn-bgp-agent/build/`.
const STEPS: [(&str, &str); 7] = [
    ("packages", "true"),
    ("extract-tools", "mkdir -p /out/usr/bin && : > /depends"),
    (
        "install-python",
        "mkdir -p /out && echo obgp-test is under way && sleep 4",
    ),
    ("add-user", "true"),
    ("check-tools", "true"),
    ("clean", "true"),
    ("list-files", "true"),
];

pub struct Project {
    dir: tempfile::TempDir,
    /// Unique names.
    pub distros: [String; 2],
    engines: Vec<Endpoint>,
    builders: Mutex<String>,
    /// `base` of both distros in build.toml.
    base: Mutex<String>,
    /// Digests of pulled bases, to remove from the engines.
    pulled: Mutex<Vec<String>>,
    fast: bool,
}

impl Project {
    /// A project for these engines. [`Project::clean`] removes its images from them.
    pub fn new(engines: &[&Endpoint]) -> Self {
        Self::make(engines, false)
    }

    /// A project whose builds end at once.
    pub fn fast(engines: &[&Endpoint]) -> Self {
        Self::make(engines, true)
    }

    fn make(engines: &[&Endpoint], fast: bool) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let distro = |which| format!("test_{which}_{}_{count}", std::process::id());
        let project = Self {
            dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
            distros: ["a", "b"].map(distro),
            engines: engines.iter().map(|e| (*e).clone()).collect(),
            builders: Mutex::default(),
            base: Mutex::new("docker.io/library/debian:bookworm-slim".into()),
            pulled: Mutex::default(),
            fast,
        };
        project.write_images();
        project.write_bases();
        project.write_build_toml();
        project
    }

    fn write_images(&self) {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let image = "images/ovn-bgp-agent";
        for path in ["build", "locks", "patches"] {
            std::fs::create_dir_all(self.dir.path().join(image).join(path)).unwrap();
        }
        for path in ["images/ovn-bgp-agent.toml".to_string(), format!("{image}/sudoers")] {
            std::fs::copy(here.join(&path), self.dir.path().join(&path)).unwrap();
        }
        for directory in ["locks", "patches"] {
            for file in std::fs::read_dir(here.join(image).join(directory)).unwrap() {
                let file = file.unwrap();
                let to = self.dir.path().join(image).join(directory).join(file.file_name());
                std::fs::copy(file.path(), to).unwrap();
            }
        }
        for (step, script) in STEPS {
            let path = self.dir.path().join(image).join("build").join(step);
            let script = match self.fast {
                true => script.replace("sleep 4", "true"),
                false => script.to_string(),
            };
            // A unique comment keeps the engine's cache from mixing the steps of two projects.
            let script = format!("#!/bin/sh\n# {}\n{script}\n", self.distros[0]);
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }

    /// Writes the bases into the tool's cache, from which engines load them.
    fn write_bases(&self) {
        let layer = base_layer();
        for distro in &self.distros {
            let dir = self.cache().join("bases").join(format!("{distro}-amd64"));
            std::fs::create_dir_all(&dir).unwrap();
            let name = base_name(distro);
            let (archive, digest) = base_archive(&name, &layer);
            self.will_remove_base(&digest);
            std::fs::write(dir.join("base.tar"), archive).unwrap();
            let described = json!({
                "image_name": name, "platform": PLATFORM, "digest": digest,
                "diff_id": digest_of(&layer), "size": layer.len(), "packages": 0,
                "suite": "test", "mirror": mirror(distro), "snapshot": "2026-01-01T00:00:00Z"
            });
            std::fs::write(dir.join("base.json"), described.to_string()).unwrap();
        }
    }

    fn write_build_toml(&self) {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/build.toml")).unwrap();
        let mut file: toml::Table = text.parse().unwrap();
        file["image"]["distros"] = self.distros.to_vec().into();
        file["image"]["platforms"] = vec![PLATFORM].into();
        file["image"]["prefix"] = "obgp-test".into();
        file["runtime"]["distro"] = self.distros[0].clone().into();
        let distros = file["distros"].as_table_mut().unwrap();
        for name in &self.distros {
            let mut distro = distros["debian_bookworm"].clone();
            let distro_table = distro.as_table_mut().unwrap();
            distro_table.insert("mirror".into(), mirror(name).into());
            distro_table.insert("base".into(), self.base.lock().unwrap().clone().into());
            distros.insert(name.clone(), distro);
        }
        let text = file.to_string() + &self.builders.lock().unwrap();
        std::fs::write(self.dir.path().join("build.toml"), text).unwrap();
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// Sets the base of both distros to a registry reference.
    pub fn set_base(&self, reference: &str) {
        *self.base.lock().unwrap() = reference.to_string();
        self.write_build_toml();
    }

    /// [`Project::clean`] removes the base with this digest from the engines.
    pub fn will_remove_base(&self, digest: &str) {
        self.pulled.lock().unwrap().push(digest.replace("sha256:", "-"));
    }

    pub fn builder(&self, name: &str, endpoint: &str, more: &str) {
        *self.builders.lock().unwrap() += &format!("\n[[builder]]\nname = {name:?}\nendpoint = {endpoint:?}\n{more}\n");
        self.write_build_toml();
    }

    /// Adds a builder behind a proxy on loopback that requires mutual TLS.
    pub async fn builder_over_tls(&self, name: &str, engine: &Endpoint, more: &str) {
        let certificates = Certificates::make(&self.dir.path().join("certs"));
        let address = proxy::start_tls(engine, certificates.server).await;
        let files = "ca = 'certs/ca.pem'\ncert = 'certs/cert.pem'\nkey = 'certs/key.pem'";
        self.builder(name, &format!("tcp://{address}"), &format!("{files}\n{more}"));
    }

    /// Returns an obgp-build command in this project, with an unreachable `DOCKER_HOST`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_obgp-build"));
        command
            .current_dir(self.dir.path())
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .env("OBGP_CACHE_DIR", self.cache())
            .args(args)
            .stdin(Stdio::null());
        if !args.contains(&"doctor") {
            command
                .args(["--locked", "--runtime-binary"])
                .arg(format!("{PLATFORM}={}", busybox().display()));
            if !args.iter().any(|arg| ["--base", "--bootstrap"].contains(arg)) {
                command.args(["--bootstrap", "always"]);
            }
        }
        command
    }

    pub fn output(&self, name: &str) -> PathBuf {
        self.dir.path().join("dist").join(name)
    }

    pub fn build(&self, output: &str, args: &[&str]) -> Output {
        self.command(&["--json", "--progress", "quiet"])
            .arg("--output")
            .arg(self.output(output))
            .args(args)
            .output()
            .unwrap()
    }

    /// Removes the images of this project from the engines.
    pub async fn clean(self) {
        for engine in &self.engines {
            let engine = Engine::connect(engine.clone()).await.unwrap();
            for distro in &self.distros {
                let image = format!("docker.io/obgp-test/ovn-bgp-agent:7.0.0-{distro}-amd64");
                for name in [image, base_name(distro)] {
                    engine.remove_image(&name).await.unwrap();
                }
            }
            let digests = self.pulled.lock().unwrap().clone();
            for tag in engine.tags_like("obgp-build/base:*").await.unwrap() {
                if digests.iter().any(|digest| tag.ends_with(digest)) {
                    engine.remove_image(&tag).await.unwrap();
                }
            }
        }
    }
}

fn base_name(distro: &str) -> String {
    format!("obgp-build/base:{distro}-amd64-bootstrap")
}

/// An unreachable mirror: the tool falls back to the cached base. Each distro has its own, because a base that another
/// test loaded from the same mirror and suite would be reused.
fn mirror(distro: &str) -> String {
    format!("http://127.0.0.1:9/{distro}")
}

/// The commands that the project's Dockerfile needs with [`STEPS`].
pub fn base_layer() -> Vec<u8> {
    let commands = ["mkdir", "ln", "sed", "chmod"];
    let scripts = [("bin/python3", "#!/bin/sh\n"), ("bin/visudo", "#!/bin/sh\n")];
    busybox_layer_with(&commands, &scripts)
}

pub fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Returns a base with one layer and its manifest digest. The archive is an OCI layout that every engine version loads,
/// as in the bootstrap cache.
pub fn base_archive(name: &str, layer: &[u8]) -> (Vec<u8>, String) {
    let config = json!({
        "architecture": host_platform().architecture().name(),
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
        // A unique image ID: parallel tests that load and remove the same image disturb each other.
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": name}],
    })
    .to_string();
    let blob = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest_of(bytes), "size": bytes.len()});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": [blob("application/vnd.oci.image.layer.v1.tar", layer)],
    })
    .to_string();
    let mut entry = blob("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    entry["annotations"] = json!({"io.containerd.image.name": format!("docker.io/{name}")});
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    let path = |bytes: &[u8]| format!("blobs/sha256/{}", hex::encode(Sha256::digest(bytes)));
    let docker_manifest = [json!({"Config": path(config.as_bytes()), "Layers": [path(layer)], "RepoTags": [name]})];
    let docker_manifest = json!(docker_manifest).to_string();
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in [
        (path(config.as_bytes()), config.as_bytes()),
        (path(manifest.as_bytes()), manifest.as_bytes()),
        (path(layer), layer),
        ("index.json".into(), index.as_bytes()),
        ("manifest.json".into(), docker_manifest.as_bytes()),
        ("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content).unwrap();
    }
    (tar.into_inner().unwrap(), digest_of(manifest.as_bytes()))
}
