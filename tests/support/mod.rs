//! Shared helpers of the integration tests: engines, registries, small images, and clean-up.
#![allow(dead_code)] // Each test binary uses some of them.

pub mod buildkitd;
pub mod cosign;
pub mod debian;
pub mod distribution;
pub mod faults;
pub mod habits;
pub mod image;
pub mod outcome;
pub mod patch;
pub mod project;
pub mod proxy;
pub mod published;
pub mod quickstart;
pub mod referrers;
pub mod registry;
pub mod softhsm;
pub mod tls;
pub mod tokens;
pub mod tool;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{FutureExt, TryStreamExt as _};
use obgp_build::buildkit::context::Context;
use obgp_build::buildkit::{self, SecretBytes, SolveError, SolveRequest, Solved};
use obgp_build::config::cache::Cache;
use obgp_build::engine::endpoint::{Endpoint, Settings};
use obgp_build::engine::{Address, Engine, Origin};
use obgp_build::oci::{Architecture, Platform};
use obgp_build::progress::{Progress, Silent};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

/// An engine to test with.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    /// The engine that the environment selects, as for the tool itself.
    Machine,
    /// A current engine with the containerd image store, see `scripts/modern-engine`.
    Modern,
    /// A current engine with the classic image store.
    ModernClassic,
}

impl Which {
    /// If the modern engine does not run, prints how to start it and returns `None`; panics in CI.
    pub fn endpoint(self) -> Option<Endpoint> {
        match self {
            Self::Machine => Some(Endpoint::choose(&Settings::from_env()).unwrap()),
            Self::Modern => Self::started("OBGP_TEST_MODERN_HOST", "scripts/modern-engine up"),
            Self::ModernClassic => Self::started("OBGP_TEST_MODERN_CLASSIC_HOST", "scripts/modern-engine up --classic"),
        }
    }

    fn started(variable: &str, command: &str) -> Option<Endpoint> {
        let help = format!("{variable} is not set; `{command}` starts a modern engine and prints it");
        match std::env::var(variable) {
            Ok(host) => Some(Endpoint {
                address: Address::parse(&host, None).unwrap(),
                origin: Origin::DockerHost,
            }),
            Err(_) if std::env::var_os("CI").is_some() => panic!("{help}"),
            Err(_) => {
                eprintln!("SKIPPED: {help}");
                None
            }
        }
    }
}

/// Runs a test against an engine, and removes the images of the test even if it panics.
pub async fn on<F: Future<Output = ()>>(which: Which, test: impl FnOnce(std::sync::Arc<Lab>) -> F) {
    if let Some(endpoint) = which.endpoint() {
        on_endpoint(endpoint, test).await;
    }
}

pub async fn on_endpoint<F: Future<Output = ()>>(endpoint: Endpoint, test: impl FnOnce(std::sync::Arc<Lab>) -> F) {
    let engine = match Engine::connect(endpoint).await {
        Ok(engine) => engine,
        Err(error) => panic!("this test needs a Docker engine: {error}"),
    };
    let lab = std::sync::Arc::new(Lab {
        engine,
        images: Mutex::default(),
    });
    let outcome = std::panic::AssertUnwindSafe(test(lab.clone())).catch_unwind().await;
    let images = std::mem::take(&mut *lab.images.lock().unwrap());
    for image in images {
        if let Err(error) = lab.engine.remove_image(&image).await {
            eprintln!("left behind: {error}");
        }
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// An engine, and the images that a test creates on it.
pub struct Lab {
    pub engine: Engine,
    images: Mutex<Vec<String>>,
}

impl Lab {
    /// Returns a unique image name. The image is removed at the end of the test.
    pub fn image_name(&self) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("obgp-test/{}:{count}", std::process::id());
        self.will_remove(&name);
        name
    }

    pub fn will_remove(&self, image: &str) {
        self.images.lock().unwrap().push(image.to_string());
    }

    /// Loads a busybox image for the engine's platform, as `docker load` does.
    pub async fn shell_image(&self) -> String {
        let name = self.image_name();
        let archive = image_archive(&name, host_platform(), &busybox_layer());
        let chunks: Vec<std::io::Result<Bytes>> =
            archive.chunks(1 << 16).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        let loaded = self.engine.load(futures_util::stream::iter(chunks)).await.unwrap();
        let [loaded] = loaded.as_slice() else {
            panic!("expected one loaded image, not {loaded:?}");
        };
        assert_eq!(loaded.trim_start_matches("docker.io/"), name);
        name
    }

    /// Returns the engine's export of an image.
    pub async fn export(&self, image: &str) -> std::io::Result<Vec<u8>> {
        let pieces: Vec<Bytes> = self.engine.export(image).try_collect().await?;
        Ok(pieces.concat())
    }

    /// Solves without progress output.
    pub async fn solve(&self, request: &SolveRequest) -> Result<Solved, SolveError> {
        self.solve_with(request, &Silent).await
    }

    pub async fn solve_with(&self, request: &SolveRequest, progress: &dyn Progress) -> Result<Solved, SolveError> {
        buildkit::solve(&self.engine.clone().into(), request, progress, CancellationToken::new()).await
    }

    /// Returns a request to solve `dockerfile` and `files` for the engine's platform.
    pub fn request(&self, dockerfile: &str, files: &[(&str, &str)]) -> SolveRequest {
        let mut context = Context::new();
        context.add("Dockerfile", 0o644, dockerfile.to_string());
        for (path, content) in files {
            context.add(*path, 0o644, content.to_string());
        }
        SolveRequest {
            context: context.to_tar().unwrap(),
            dockerfile: "Dockerfile".into(),
            platform: host_platform(),
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            no_cache: false,
            cache: Cache::default(),
            secrets: BTreeMap::new(),
            image_name: self.image_name(),
            receiver: None,
            bases: BTreeMap::new(),
            attempts: 1,
        }
    }
}

pub fn host_platform() -> Platform {
    Platform(Architecture::host().expect("the tests run on amd64 or arm64"))
}

pub fn secret(text: &str) -> SecretBytes {
    SecretBytes(Bytes::copy_from_slice(text.as_bytes()))
}

/// The host's address on the network of its containers.
pub fn address_for_containers() -> String {
    let output = Command::new("ip")
        .args(["-4", "-oneline", "address", "show", "docker0"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let address = text.split_whitespace().skip_while(|word| *word != "inet").nth(1);
    let address = address.and_then(|address| address.split('/').next());
    address
        .unwrap_or_else(|| panic!("docker0 has no address: {text:?}"))
        .to_string()
}

/// Progress that records steps, log lines and notes.
#[derive(Default)]
pub struct Recorder {
    pub steps: Mutex<Vec<String>>,
    pub lines: Mutex<Vec<String>>,
    pub notes: Mutex<Vec<String>>,
}

impl Progress for Recorder {
    fn step(&self, text: &str) {
        self.steps.lock().unwrap().push(text.to_string());
    }
    fn bytes(&self, _: u64, _: Option<u64>) {}
    fn log(&self, line: &str) {
        self.lines.lock().unwrap().push(line.to_string());
    }
    fn note(&self, text: &str) {
        self.notes.lock().unwrap().push(text.to_string());
    }
}

/// A root file system of Debian's static busybox, as a layer.
pub fn busybox_layer() -> Vec<u8> {
    busybox_layer_with(&[], &[])
}

/// [`busybox_layer`] with additional busybox commands, and scripts by path.
pub fn busybox_layer_with(commands: &[&str], scripts: &[(&str, &str)]) -> Vec<u8> {
    let busybox = std::fs::read(busybox()).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content).unwrap();
    };
    let mounted = ["dev/", "media/", "mnt/", "proc/", "run/", "sys/"].map(|dir| (dir, 0o755));
    for (dir, mode) in [("bin/", 0o755), ("etc/", 0o755), ("tmp/", 0o1777)]
        .into_iter()
        .chain(mounted)
    {
        add(dir, tar::EntryType::Directory, mode, b"");
    }
    add("bin/busybox", tar::EntryType::Regular, 0o755, &busybox);
    add("etc/passwd", tar::EntryType::Regular, 0o644, b"root:x:0:0::/:/bin/sh\n");
    for (path, script) in scripts {
        add(path, tar::EntryType::Regular, 0o755, script.as_bytes());
    }
    let defaults = [
        "sh", "cat", "echo", "id", "ls", "sleep", "touch", "true", "false", "test", "head", "grep",
    ];
    for name in defaults.iter().chain(commands) {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_mtime(0);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{name}"), "busybox").unwrap();
    }
    tar.into_inner().unwrap()
}

/// Downloads busybox once per target directory. Nothing is installed.
pub fn busybox() -> PathBuf {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("busybox-static");
    if kept.exists() {
        return kept;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let script = "apt-get download -q busybox-static && dpkg-deb -x busybox-static_*.deb .";
    let output = Command::new("sh")
        .args(["-ec", script])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cannot get Debian's busybox-static ({script}): {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let found = ["bin/busybox", "usr/bin/busybox"].map(|path| dir.path().join(path));
    let found = found
        .iter()
        .find(|path| path.exists())
        .expect("the package contains busybox");
    std::fs::rename(found, &kept).unwrap();
    kept
}

/// A `docker save` archive with one layer.
pub fn image_archive(name: &str, platform: Platform, layer: &[u8]) -> Vec<u8> {
    let config = serde_json::json!({
        "architecture": platform.architecture().name(),
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex::encode(Sha256::digest(layer)))]},
        // A unique image ID: parallel tests that load and remove the same image disturb each other.
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": name}],
    })
    .to_string();
    let config_name = format!("{}.json", hex::encode(Sha256::digest(&config)));
    let manifest =
        serde_json::json!([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).to_string();
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in [
        (config_name.as_str(), config.as_bytes()),
        ("layer.tar", layer),
        ("manifest.json", manifest.as_bytes()),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content).unwrap();
    }
    tar.into_inner().unwrap()
}
