//! Runs `obgp-build build` for debian_bookworm on two engines, for their native platform.
//!
//! A build without cache takes minutes, so one test checks several things on the same image.

mod support;

use std::fs;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use obgp_build::layout::{LayoutImage, LayoutReference};
use serde_json::Value;
use support::Which;
use support::distribution::Distribution;

const DISTRO: &str = "debian_bookworm";
const PLATFORM: &str = "linux/amd64";

/// Words that are passed as secrets and must not be in any layer.
const SENTINELS: [&str; 3] = [
    "obgp-sentinel-in-ca-bundle",
    "obgp-sentinel-in-no-proxy",
    "obgp-sentinel-in-index",
];

fn obgp_build(host: &str, output: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_obgp-build"));
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("DOCKER_HOST", host)
        .env_remove("DOCKER_CONTEXT")
        .args([
            "--distro",
            DISTRO,
            "--platform",
            PLATFORM,
            "--json",
            "--progress",
            "quiet",
            "--output",
        ])
        .arg(output)
        .stdin(Stdio::null());
    command
}

fn report(output: &Output) -> Value {
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn host(which: Which) -> Option<String> {
    which.endpoint().map(|endpoint| endpoint.address.to_string())
}

/// Searches the unpacked layers and the configuration of every platform.
fn search_layers(layout: &Path, needles: &[&str]) -> Vec<String> {
    let reference = LayoutReference {
        dir: layout.to_path_buf(),
        tag: None,
    };
    let image = LayoutImage::open(&reference).unwrap();
    let mut found = Vec::new();
    for (_, manifest) in &image.platforms {
        let manifest: oci_spec::image::ImageManifest = image.layout().read_json(manifest).unwrap();
        for layer in manifest.layers() {
            let blob = image.layout().open_blob(layer).unwrap();
            let mut content = Vec::new();
            flate2::read::MultiGzDecoder::new(blob)
                .read_to_end(&mut content)
                .unwrap();
            for needle in needles {
                if content.windows(needle.len()).any(|window| window == needle.as_bytes()) {
                    found.push(format!("{needle} in {}", layer.digest()));
                }
            }
        }
        let config = image.layout().read_blob(manifest.config()).unwrap();
        let config = String::from_utf8(config).unwrap();
        found.extend(
            needles
                .iter()
                .filter(|n| config.contains(**n))
                .map(|n| format!("{n} in the configuration")),
        );
    }
    found
}

#[test]
fn two_engines_build_the_same_digest_without_traces_of_host_secrets() {
    let (Some(machine), Some(modern)) = (host(Which::Machine), host(Which::Modern)) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();

    // Only one engine gets the secrets, so a trace would also change the digest. Only the modern engine builds without
    // cache: the host's may be 20.10 on fuse-overlayfs, whose exports sometimes lose a directory under load.
    let bundle = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .expect("this machine has a CA bundle");
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, format!("# {}\n{bundle}", SENTINELS[0])).unwrap();
    let first = obgp_build(&modern, &dir.path().join("modern"))
        .arg("--no-cache")
        .env("SSL_CERT_FILE", &ca)
        .env("NO_PROXY", SENTINELS[1])
        .env(
            "PIP_INDEX_URL",
            format!("https://user:{}@pypi.org/simple", SENTINELS[2]),
        )
        .output()
        .unwrap();
    let first = report(&first);
    // Only the FROM steps, of the image and of the runtime, may be cached.
    let cached = first["images"][0]["platforms"][0]["cached_steps"].as_u64();
    assert!(cached.is_some_and(|steps| steps <= 2), "{first:#}");
    let second = report(&obgp_build(&machine, &dir.path().join("machine")).output().unwrap());
    assert_eq!(
        search_layers(&dir.path().join("modern/oci"), &SENTINELS),
        Vec::<String>::new()
    );
    assert_eq!(
        first["images"][0]["digest"], second["images"][0]["digest"],
        "the two engines' images differ; compare them with `obgp-build diff`"
    );

    // The search finds a word that is there.
    assert!(!search_layers(&dir.path().join("modern/oci"), &["ovn_bgp_agent"]).is_empty());

    // An unchanged image is not exported again.
    let again = report(&obgp_build(&machine, &dir.path().join("machine")).output().unwrap());
    assert_eq!(again["images"][0]["platforms"][0]["unchanged"], true);
    assert_eq!(again["images"][0]["digest"], first["images"][0]["digest"]);

    // A missing layer is restored.
    let blobs = dir.path().join("machine/oci/blobs/sha256");
    let largest = fs::read_dir(&blobs)
        .unwrap()
        .map(|e| e.unwrap())
        .max_by_key(|e| e.metadata().unwrap().len())
        .unwrap();
    fs::remove_file(largest.path()).unwrap();
    let restored = report(&obgp_build(&machine, &dir.path().join("machine")).output().unwrap());
    assert_eq!(restored["images"][0]["platforms"][0]["unchanged"], false);
    assert_eq!(restored["images"][0]["digest"], first["images"][0]["digest"]);
    assert!(largest.path().is_file());
}

/// Starts a build without cache and waits until the solve runs.
fn start_build(output: &Path) -> Option<std::process::Child> {
    let child = obgp_build(&host(Which::Modern)?, output)
        .arg("--no-cache")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(6));
    Some(child)
}

#[test]
fn ctrl_c_stops_the_build_and_leaves_a_valid_layout() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut child) = start_build(dir.path()) else {
        return;
    };
    assert!(
        child.try_wait().unwrap().is_none(),
        "the build ended before it was stopped"
    );
    let pid = rustix::process::Pid::from_child(&child);
    let signalled = Instant::now();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        signalled.elapsed() < Duration::from_secs(30),
        "it took {:?} to stop",
        signalled.elapsed()
    );
    assert_eq!(
        output.status.code(),
        Some(130),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"));
    assert!(output.stdout.is_empty(), "an interrupted run prints no result");
    assert_valid_layout(&dir.path().join("oci"));
}

#[test]
fn a_killed_build_leaves_a_valid_layout_and_the_next_build_completes() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut child) = start_build(dir.path()) else {
        return;
    };
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert_valid_layout(&dir.path().join("oci"));
    let host = host(Which::Modern).unwrap();
    let report = report(&obgp_build(&host, dir.path()).output().unwrap());
    assert_eq!(report["images"][0]["outcome"], "done");
    assert_valid_layout(&dir.path().join("oci"));
}

/// Kills build, push and signing at twenty times, five for each of four images. The tag always names the old or the new
/// image, signed.
#[test]
fn a_killed_push_keeps_the_tag_signed_and_the_next_run_completes() {
    let Some(host) = host(Which::Machine) else { return };
    let registry = Distribution::start();
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key.pem");
    let public = dir.path().join("public.pem");
    openssl(
        &[
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-out",
        ],
        &key,
    );
    openssl(&["pkey", "-pubout", "-in", key.to_str().unwrap(), "-out"], &public);
    let build = |round: u32| {
        let mut command = obgp_build(&host, &dir.path().join("output"));
        command
            .args(["--registry", &registry.host(), "--tag", "t", "--push", "--sign"])
            .arg(&key)
            // A label changes the image without running a step again.
            .args(["--label", &format!("org.example.round={round}")]);
        command
    };
    // Verifies the signature of the tag's image and returns the digest.
    let verified_digest = || {
        let output = Command::new(env!("CARGO_BIN_EXE_obgp-build"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args([
                "verify",
                &format!("{}/openstackhelm/ovn-bgp-agent:t", registry.host()),
                "--signatures-only",
            ])
            .args(["--json", "--progress", "quiet", "--key"])
            .arg(&public)
            .output()
            .unwrap();
        report(&output)["authentic"][0]["digest"].as_str().unwrap().to_string()
    };
    let digest = |report: Value| report["images"][0]["digest"].as_str().unwrap().to_string();
    digest(report(&build(0).output().unwrap()));
    let began = Instant::now();
    let mut current = digest(report(&build(1).output().unwrap()));
    let whole = began.elapsed();
    let (mut killed, mut seen) = (0, Vec::new());
    for kill in 0..20u32 {
        let round = 2 + kill / 5;
        let mut child = build(round)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(whole * kill / 20);
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        seen.push(verified_digest());
        if kill % 5 == 4 {
            let new = digest(report(&build(round).output().unwrap()));
            let between = seen.drain(..).find(|digest| *digest != current && *digest != new);
            assert_eq!(between, None, "neither the image before nor the new one");
            assert_eq!(verified_digest(), new);
            assert_valid_layout(&dir.path().join("output/oci"));
            current = new;
        }
    }
    assert!(killed >= 10, "only {killed} of 20 were killed before their end");
}

fn openssl(arguments: &[&str], output: &Path) {
    let status = Command::new("openssl").args(arguments).arg(output).status();
    assert!(status.expect("this test needs openssl").success());
}

/// Checks that every blob that `index.json` refers to exists.
fn assert_valid_layout(dir: &Path) {
    let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["schemaVersion"], 2);
    for entry in index["manifests"].as_array().unwrap() {
        let tag = entry["annotations"]["org.opencontainers.image.ref.name"]
            .as_str()
            .unwrap();
        let reference = LayoutReference {
            dir: dir.to_path_buf(),
            tag: Some(tag.to_string()),
        };
        let image = LayoutImage::open(&reference).unwrap();
        for (_, manifest) in &image.platforms {
            assert!(image.layout().holds(manifest), "{tag} is incomplete");
        }
    }
    assert_eq!(
        fs::read_to_string(dir.join("oci-layout")).unwrap().trim(),
        r#"{"imageLayoutVersion":"1.0.0"}"#
    );
}
