//! Pushes images to real registries.

use std::process::Stdio;

use serde_json::json;

use super::verdicts::bytes_read;
use crate::MIB;
use crate::support::distribution::Distribution;
use crate::support::faults::{FaultyProxy, uploaded_bytes};
use crate::support::tool::{Tool, stderr};

#[tokio::test(flavor = "multi_thread")]
async fn push_uploads_blobs_first_and_sets_the_tag_last() {
    let tool = Tool::new("");
    let index = tool.project.make("7.0.0", 1, MIB);
    let registry = Distribution::start();
    let proxy = FaultyProxy::start(registry.address()).await;
    let to = format!("{}/team/agent", proxy.host());
    let pushed = tool.json(&["push", &tool.image("7.0.0"), &to]).await;
    assert_eq!(pushed["digest"], index.digest().to_string());
    let delivered = &pushed["destinations"][0];
    assert_eq!(delivered["reference"], format!("{to}:7.0.0"));
    assert_eq!(delivered["tag"]["change"], "created");
    assert_eq!(delivered["blobs"], json!({"uploaded": 6, "mounted": 0, "present": 0}));
    let requests = proxy.take_requests();
    let last_put = |part: &str| requests.iter().rposition(|request| request.is("PUT", part)).unwrap();
    let last_blob = requests.iter().rposition(|request| request.is_upload()).unwrap();
    let by_digest = last_put(&format!("/manifests/{}", index.digest()));
    let first_manifest = requests
        .iter()
        .position(|request| request.is("PUT", "/manifests/"))
        .unwrap();
    assert!(last_blob < first_manifest && first_manifest < by_digest && by_digest < last_put("/manifests/7.0.0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_push_uploads_nothing() {
    let tool = Tool::new("");
    tool.project.make("7.0.0", 1, MIB);
    let registry = Distribution::start();
    let proxy = FaultyProxy::start(registry.address()).await;
    let to = format!("{}/team/agent", proxy.host());
    tool.json(&["push", &tool.image("7.0.0"), &to]).await;
    proxy.take_requests();
    let again = tool.json(&["push", &tool.image("7.0.0"), &to]).await;
    assert_eq!(again["destinations"][0]["tag"]["change"], "unchanged");
    assert_eq!(again["destinations"][0]["blobs"]["present"], 6);
    let requests = proxy.take_requests();
    assert!(
        requests
            .iter()
            .all(|request| request.method == "HEAD" || request.method == "GET")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_repository_mounts_the_blobs_of_the_first() {
    let tool = Tool::new("");
    let registry = Distribution::start();
    let proxy = FaultyProxy::start(registry.address()).await;
    tool.project.make("7.0.1", 2, MIB);
    let both = [
        format!("{}/other/agent:a", proxy.host()),
        format!("{}/third/agent:b", proxy.host()),
    ];
    let pushed = tool.json(&["push", &tool.image("7.0.1"), &both[0], &both[1]]).await;
    assert_eq!(pushed["destinations"][0]["blobs"]["uploaded"], 6);
    assert_eq!(pushed["destinations"][1]["blobs"]["mounted"], 6);
    assert!(uploaded_bytes(&proxy.take_requests()) < 3 * MIB as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_two_registries_reads_each_blob_once() {
    let tool = Tool::new("");
    tool.project.make("t", 3, 8 * MIB);
    let registries = [Distribution::start(), Distribution::start()];
    let to: Vec<String> = registries.iter().map(|r| format!("{}/a/b:t", r.host())).collect();
    let mut command = tool.command(&["push", &tool.image("t"), "--json", &to[0], &to[1]]);
    let read = bytes_read(command.stdout(Stdio::null()).spawn().unwrap());
    // The push reads 16 MiB of blobs twice, to verify and to upload them, not once per registry.
    assert!(read < 42 * MIB as u64, "{read} bytes were read for 16 MiB");
    for reference in &to {
        let verified = tool.json(&["verify", reference]).await;
        assert_eq!(verified["passed"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_breaks_its_contract_is_not_pushed() {
    let tool = Tool::new("");
    tool.project.make_with("bad", 4, MIB, |image| {
        image.file("etc/sudoers.d/all", 0o440, "ALL ALL=(ALL) NOPASSWD: ALL\n")
    });
    let registry = Distribution::start();
    let proxy = FaultyProxy::start(registry.address()).await;
    let output = tool
        .output(&["push", &tool.image("bad"), &format!("{}/a/b:t", proxy.host())])
        .await;
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("sudoers"));
    assert!(proxy.take_requests().is_empty(), "the registry got a request");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_tag_is_never_moved() {
    let tool = Tool::new("[[registries]]\nhost = \"127.0.0.1:*\"\nimmutable = [\"team/agent:7.*\"]");
    let first = tool.project.make("first", 5, MIB);
    tool.project.make("second", 6, MIB);
    let registry = Distribution::start();
    let proxy = FaultyProxy::start(registry.address()).await;
    let to = |tag: &str| format!("{}/team/agent:{tag}", proxy.host());
    tool.json(&["push", &tool.image("first"), &to("7.0.0")]).await;
    tool.json(&["push", &tool.image("first"), &to("7.0.0")]).await;
    proxy.take_requests();
    let error = tool.failure(1, &["push", &tool.image("second"), &to("7.0.0")]).await;
    assert!(
        error.contains("immutable") && error.contains(&first.digest().to_string()),
        "{error}"
    );
    assert_eq!(uploaded_bytes(&proxy.take_requests()), 0);
    // Other tags can move.
    tool.json(&["push", &tool.image("first"), &to("latest")]).await;
    let moved = tool.json(&["push", &tool.image("second"), &to("latest")]).await;
    assert_eq!(moved["destinations"][0]["tag"]["from"], first.digest().to_string());
    let error = tool.failure(1, &["promote", &to("latest"), &to("7.0.0")]).await;
    assert!(error.contains("immutable"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_uses_little_memory_for_large_blobs() {
    let tool = Tool::new("");
    tool.project.make("t", 18, 48 * MIB);
    let registry = Distribution::start();
    let to = format!("{}/a/b:t", registry.host());
    let image = tool.image("t");
    let mut child = tool
        .command(&["push", &image, &to])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        if let Ok(text) = std::fs::read_to_string(&path)
            && let Some(line) = text.lines().find_map(|l| l.strip_prefix("VmHWM:"))
        {
            peak = line.trim().trim_end_matches(" kB").parse().unwrap_or(peak);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(child.wait().unwrap().success());
    assert!(peak > 0 && peak < 64 << 10, "{peak} KiB");
}
