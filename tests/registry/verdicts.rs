//! Reuse of cached verdicts, measured by the bytes that a push reads.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::MIB;
use crate::support::distribution::Distribution;
use crate::support::tool::{Tool, stderr};

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_is_reused_until_its_inputs_change() {
    let tool = Tool::new("");
    tool.project.make("t", 19, 8 * MIB);
    // The state directory of a build.
    let state = tool.project.path().join("dist/.obgp-build");
    std::fs::create_dir(&state).unwrap();
    let registry = Distribution::start();
    let (image, to) = (tool.image("t"), format!("{}/a/b:t", registry.host()));
    let push = || {
        let mut command = tool.command(&["push", &image, &to, "--json"]);
        bytes_read(command.stdout(Stdio::null()).spawn().unwrap())
    };
    let layers = 16 * MIB as u64;
    let append = |path: PathBuf, text: &str| {
        let content = std::fs::read_to_string(&path).unwrap() + text;
        std::fs::write(path, content).unwrap();
    };
    let assert_reused = |what: &str| {
        let read = push();
        assert!(read < layers / 4, "{what}: {read} bytes were read");
    };
    let assert_verified = |what: &str| {
        let read = push();
        assert!(read > layers, "{what}: only {read} bytes were read");
        assert_reused(what);
    };
    assert_verified("the first push");
    append(tool.project.build_toml(), "\n# changed\n");
    assert_verified("another build.toml");
    let contract = tool.project.path().join("images/ovn-bgp-agent.toml");
    append(contract.clone(), "\n# changed\n");
    assert_verified("another contract");
    let locks = tool.project.path().join("images/ovn-bgp-agent/locks");
    std::fs::create_dir_all(&locks).unwrap();
    std::fs::write(locks.join("6.0.0-py3.10.txt"), "").unwrap();
    assert_reused("a lock of another ref");
    std::fs::write(locks.join("7.0.0-py9.9.txt"), "").unwrap();
    assert_verified("another lock of this ref");
    std::fs::write(state.join("verdicts"), b"damaged").unwrap();
    assert_verified("damaged verdicts");
    // A verdict of the earlier contract does not count for a stricter one.
    let text = std::fs::read_to_string(&contract).unwrap();
    let leftovers = "[leftovers]\nforbidden = [\n";
    let stricter = text.replace(leftovers, &format!("{leftovers}    \"/usr/share/filler\",\n"));
    assert_ne!(stricter, text);
    std::fs::write(&contract, stricter).unwrap();
    let rejected = tool.output(&["push", &image, &to]).await;
    assert_eq!(rejected.status.code(), Some(3), "{}", stderr(&rejected));
    std::fs::write(&contract, text).unwrap();
    assert_reused("the restored contract");
}

/// A reused verdict skips reading the layers, but the registry still checks the digest of each blob.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_damaged_after_its_verdict_is_not_pushed() {
    let tool = Tool::new("");
    tool.project.make("t", 19, 8 * MIB);
    std::fs::create_dir(tool.project.path().join("dist/.obgp-build")).unwrap();
    let image = tool.image("t");
    let registry = Distribution::start();
    tool.json(&["push", &image, &format!("{}/a/b:t", registry.host())])
        .await;
    let layer = largest(&tool.project.path().join("dist/oci/blobs/sha256"));
    let mut content = std::fs::read(&layer).unwrap();
    content[MIB] ^= 1;
    std::fs::write(&layer, content).unwrap();
    let elsewhere = Distribution::start();
    let to = format!("{}/a/b:t", elsewhere.host());
    let error = tool.failure(1, &["push", &image, &to]).await;
    assert!(error.contains(layer.file_name().unwrap().to_str().unwrap()), "{error}");
    tool.failure(1, &["inspect", &to]).await;
}

fn largest(dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    files
        .max_by_key(|entry| entry.metadata().unwrap().len())
        .unwrap()
        .path()
}

/// Returns how many bytes a process reads until it ends: `rchar` of `/proc/PID/io`, see proc(5).
pub fn bytes_read(mut child: std::process::Child) -> u64 {
    let path = format!("/proc/{}/io", child.id());
    let mut last = 0;
    loop {
        if let Ok(text) = std::fs::read_to_string(&path)
            && let Some(n) = text.lines().find_map(|l| l.strip_prefix("rchar: ")?.parse().ok())
        {
            last = n;
        }
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return last;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
