//! A copy of the project whose build steps do next to nothing, and whose base is a few files: one that was bootstrapped, as
//! far as the tool can see.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use obgp_build::engine::{Dialer, Endpoint, Engine};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use crate::support::tls::Certificates;
use crate::support::{busybox, busybox_layer_with, host_platform, image_archive, proxy};

pub const PLATFORM: &str = "linux/amd64";

/// Nobody is there: what the cache has is the newest base there is.
const MIRROR: &str = "http://127.0.0.1:9/debian";

/// A line of the build's output, some seconds before its end.
pub const UNDER_WAY: &str = "obgp-test is under way";

/// What stands in for the scripts of `images/ovn-bgp-agent/build/`.
const STEPS: [(&str, &str); 6] = [
    ("packages", "true"),
    ("extract-tools", "mkdir -p /out/usr/bin && : > /depends"),
    (
        "install-python",
        "mkdir -p /out && echo obgp-test is under way && sleep 4",
    ),
    ("add-user", "true"),
    ("check-tools", "true"),
    ("clean", "true"),
];

pub struct Project {
    dir: tempfile::TempDir,
    /// Names that no other test has in an engine.
    pub distros: [String; 2],
    engines: Vec<Endpoint>,
    builders: Mutex<String>,
}

impl Project {
    /// For these engines, which are rid of its images at the end.
    pub fn new(engines: &[&Endpoint]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let distro = |which| format!("test_{which}_{}_{count}", std::process::id());
        let project = Self {
            dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
            distros: ["a", "b"].map(distro),
            engines: engines.iter().map(|e| (*e).clone()).collect(),
            builders: Mutex::default(),
        };
        project.write_images();
        project.write_bases();
        project.write_build_toml();
        project
    }

    fn write_images(&self) {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let image = "images/ovn-bgp-agent";
        for path in ["build", "locks"] {
            std::fs::create_dir_all(self.dir.path().join(image).join(path)).unwrap();
        }
        for path in ["images/ovn-bgp-agent.toml".to_string(), format!("{image}/sudoers")] {
            std::fs::copy(here.join(&path), self.dir.path().join(&path)).unwrap();
        }
        for lock in std::fs::read_dir(here.join(image).join("locks")).unwrap() {
            let lock = lock.unwrap();
            let to = self.dir.path().join(image).join("locks").join(lock.file_name());
            std::fs::copy(lock.path(), to).unwrap();
        }
        for (step, script) in STEPS {
            let path = self.dir.path().join(image).join("build").join(step);
            // Of this project alone: another's steps must not come out of an engine's cache, nor take the place of its own.
            let script = format!("#!/bin/sh\n# {}\n{script}\n", self.distros[0]);
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }

    /// Into the tool's cache, from where each engine gets them when it is its turn.
    fn write_bases(&self) {
        let commands = ["mkdir", "ln", "sed", "chmod"];
        let scripts = [("bin/python3", "#!/bin/sh\n"), ("bin/visudo", "#!/bin/sh\n")];
        let layer = busybox_layer_with(&commands, &scripts);
        for distro in &self.distros {
            let dir = self.cache().join("bases").join(format!("{distro}-amd64"));
            std::fs::create_dir_all(&dir).unwrap();
            let name = base_name(distro);
            std::fs::write(dir.join("base.tar"), image_archive(&name, host_platform(), &layer)).unwrap();
            let described = json!({
                "image_name": name, "platform": PLATFORM, "digest": format!("sha256:{}", "0".repeat(64)),
                "diff_id": format!("sha256:{}", hex::encode(Sha256::digest(&layer))), "size": layer.len(), "packages": 0,
                "suite": "test", "mirror": MIRROR, "snapshot": "2026-01-01T00:00:00Z"
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
            distro_table.insert("mirror".into(), MIRROR.into());
            distros.insert(name.clone(), distro);
        }
        let text = file.to_string() + &self.builders.lock().unwrap();
        std::fs::write(self.dir.path().join("build.toml"), text).unwrap();
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    pub fn builder(&self, name: &str, endpoint: &str, more: &str) {
        *self.builders.lock().unwrap() += &format!("\n[[builder]]\nname = {name:?}\nendpoint = {endpoint:?}\n{more}\n");
        self.write_build_toml();
    }

    /// A builder on loopback that has a certificate, wants one of us, and passes everything on to the engine.
    pub async fn builder_over_tls(&self, name: &str, engine: &Endpoint, more: &str) {
        let certificates = Certificates::make(&self.dir.path().join("certs"));
        let address = proxy::start_tls(engine, certificates.server).await;
        let files = "ca = 'certs/ca.pem'\ncert = 'certs/cert.pem'\nkey = 'certs/key.pem'";
        self.builder(name, &format!("tcp://{address}"), &format!("{files}\n{more}"));
    }

    /// obgp-build in this project; the engine of the environment is none.
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
                .args(["--bootstrap", "always", "--locked", "--runtime-binary"])
                .arg(format!("{PLATFORM}={}", busybox().display()));
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

    /// The images that were made, gone from the engines.
    pub async fn clean(self) {
        for engine in &self.engines {
            let engine = Engine::connect(engine.clone()).await.unwrap();
            for distro in &self.distros {
                let image = format!("docker.io/obgp-test/ovn-bgp-agent:7.0.0-{distro}-amd64");
                for name in [image, base_name(distro)] {
                    engine.remove_image(&name).await.unwrap();
                }
            }
        }
    }
}

fn base_name(distro: &str) -> String {
    format!("obgp-build/base:{distro}-amd64-bootstrap")
}

/// Listens as a buildkitd does, gRPC from the first byte on and no Docker API: an engine's own BuildKit, without the engine.
pub fn buildkitd(engine: &Endpoint, dir: &Path) -> PathBuf {
    let socket = dir.join("buildkitd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let dialer = Dialer::new(&engine.address).unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut buildkit = dialer.dial().await.unwrap();
            let upgrade = b"POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
            buildkit.write_all(upgrade).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(buildkit.read_u8().await.unwrap());
            }
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut buildkit).await });
        }
    });
    socket
}
