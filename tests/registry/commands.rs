//! The commands around a registry, against a real one: push, promote, inspect, prune, verify; logins, TLS, policies.

use std::path::{Path, PathBuf};

use super::MIB;
use super::support::distribution::{Distribution, Login, PASSWORD, USER};
use super::support::faults::{Fault, FaultyProxy, uploaded};
use super::support::tokens;
use super::support::tool::{Tool, stderr};
use obgp_build::oci::{Artifact, Content, Place};
use obgp_build::progress::Silent;
use obgp_build::publish::{Destination, publish};
use obgp_build::registry::{Access, fallback_tag};
use oci_spec::image::{Descriptor, MediaType};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Something signed and something that refers, as other parts of the program make them.
fn artifacts(index: &Descriptor, signer: &str) -> Vec<Artifact> {
    let payload = Content::new(
        "application/vnd.dev.cosign.simplesigning.v1+json".into(),
        b"{\"critical\":1}".to_vec(),
    );
    let config = Content::new(MediaType::ImageConfig, b"{\"rootfs\":{}}".to_vec());
    let mut layer = serde_json::to_value(&payload.descriptor).unwrap();
    layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signer });
    let signature = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest.to_string(),
        "config": config.descriptor,
        "layers": [layer],
    });
    let empty = Content::new(MediaType::EmptyJSON, b"{}".to_vec());
    let sbom = Content::new(
        "application/spdx+json".into(),
        b"{\"spdxVersion\":\"SPDX-2.3\"}".to_vec(),
    );
    let referrer = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest.to_string(),
        "artifactType": "application/spdx+json",
        "config": empty.descriptor,
        "layers": [sbom.descriptor],
        "subject": {"mediaType": index.media_type(), "digest": index.digest(), "size": index.size()},
        "annotations": {"by": signer},
    });
    let manifest = |value: Value| Content::new(MediaType::ImageManifest, value.to_string().into_bytes());
    vec![
        Artifact {
            manifest: manifest(signature),
            blobs: vec![payload, config],
            place: Place::Tag(format!("{}.sig", fallback_tag(index.digest()))),
        },
        Artifact {
            manifest: manifest(referrer),
            blobs: vec![sbom, empty],
            place: Place::Referrer,
        },
    ]
}

async fn publish_with_artifacts(tool: &Tool, tag: &str, to: &[&str], signer: &str) {
    let (image, index) = tool.project.verified(tag);
    let to: Vec<Destination> = to
        .iter()
        .map(|text| Destination::new(&text.parse().unwrap(), None).unwrap())
        .collect();
    let cancel = CancellationToken::new();
    let made = artifacts(&image.descriptor, signer);
    publish(image.layout(), &index, &to, &made, &tool.registries(), &Silent, &cancel)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn push_sends_what_is_missing_and_sets_the_tag_last() {
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
    let asked = proxy.take();
    let at = |part: &str| {
        asked
            .iter()
            .rposition(|a| a.path.contains(part) && a.method == "PUT")
            .unwrap()
    };
    let last_blob = asked.iter().rposition(|a| a.uploads()).unwrap();
    let by_digest = at(&format!("/manifests/{}", index.digest()));
    let first_manifest = asked.iter().position(|a| a.is("PUT", "/manifests/")).unwrap();
    assert!(last_blob < first_manifest && first_manifest < by_digest && by_digest < at("/manifests/7.0.0"));
    // Again: nothing moves.
    let again = tool.json(&["push", &tool.image("7.0.0"), &to]).await;
    assert_eq!(again["destinations"][0]["tag"]["change"], "unchanged");
    assert_eq!(again["destinations"][0]["blobs"]["present"], 6);
    assert!(proxy.take().iter().all(|a| a.method == "HEAD" || a.method == "GET"));
    // Into another repository of the registry and under two tags: nothing is sent but what is new.
    tool.project.make("7.0.1", 2, MIB);
    let both = [
        format!("{}/other/agent:a", proxy.host()),
        format!("{}/third/agent:b", proxy.host()),
    ];
    let pushed = tool.json(&["push", &tool.image("7.0.1"), &both[0], &both[1]]).await;
    assert_eq!(pushed["destinations"][0]["blobs"]["uploaded"], 6);
    assert_eq!(pushed["destinations"][1]["blobs"]["mounted"], 6);
    assert!(uploaded(&proxy.take()) < 3 * MIB as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_two_registries_reads_each_blob_once() {
    let tool = Tool::new("");
    tool.project.make("t", 3, 8 * MIB);
    let registries = [Distribution::start(), Distribution::start()];
    let to: Vec<String> = registries.iter().map(|r| format!("{}/a/b:t", r.host())).collect();
    // The kernel's count of what the process read, with and without a second destination.
    let strace = |to: &[String]| {
        let mut arguments = vec!["push".to_string(), tool.image("t"), "--json".into()];
        arguments.extend(to.iter().cloned());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = tool.command(&arguments);
        let child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        reads_of(child)
    };
    let two = strace(&to);
    // 16 MiB of blobs are verified, then read for the push: twice, not three times.
    assert!(two < 42 * MIB as u64, "{two} bytes were read for 16 MiB");
    for reference in &to {
        let verified = tool.json(&["verify", reference]).await;
        assert_eq!(verified["passed"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_is_reused_until_its_inputs_change() {
    let tool = Tool::new("");
    tool.project.make("t", 19, 8 * MIB);
    // Where a build keeps what it remembers.
    let state = tool.project.path().join("dist/.obgp-build");
    std::fs::create_dir(&state).unwrap();
    let registry = Distribution::start();
    let (image, to) = (tool.image("t"), format!("{}/a/b:t", registry.host()));
    let push = || {
        let mut command = tool.command(&["push", &image, &to, "--json"]);
        reads_of(command.stdout(std::process::Stdio::null()).spawn().unwrap())
    };
    let layers = 16 * MIB as u64;
    let append = |path: PathBuf, text: &str| {
        let content = std::fs::read_to_string(&path).unwrap() + text;
        std::fs::write(path, content).unwrap();
    };
    let little = |what: &str| {
        let read = push();
        assert!(read < layers / 4, "{what}: {read} bytes were read");
    };
    let all = |what: &str| {
        let read = push();
        assert!(read > layers, "{what}: only {read} bytes were read");
        little(what);
    };
    all("the first push");
    append(tool.project.build_toml(), "\n# changed\n");
    all("another build.toml");
    let contract = tool.project.path().join("images/ovn-bgp-agent.toml");
    append(contract.clone(), "\n# changed\n");
    all("another contract");
    let locks = tool.project.path().join("images/ovn-bgp-agent/locks");
    std::fs::create_dir_all(&locks).unwrap();
    std::fs::write(locks.join("6.0.0-py3.10.txt"), "").unwrap();
    little("a lock of another ref");
    std::fs::write(locks.join("7.0.0-py9.9.txt"), "").unwrap();
    all("another lock of this ref");
    std::fs::write(state.join("verdicts"), b"damaged").unwrap();
    all("damaged verdicts");
    // A verdict by an earlier contract is none.
    let text = std::fs::read_to_string(&contract).unwrap();
    let leftovers = "[leftovers]\nforbidden = [\n";
    let stricter = text.replace(leftovers, &format!("{leftovers}    \"/usr/share/filler\",\n"));
    assert_ne!(stricter, text);
    std::fs::write(&contract, stricter).unwrap();
    let refused = tool.output(&["push", &image, &to]).await;
    assert_eq!(refused.status.code(), Some(3), "{}", stderr(&refused));
    std::fs::write(&contract, text).unwrap();
    little("the contract as it was");
    // It is about what has its digests: what does not is refused by the registry that would get it.
    let layer = largest(&tool.project.path().join("dist/oci/blobs/sha256"));
    let mut content = std::fs::read(&layer).unwrap();
    content[MIB] ^= 1;
    std::fs::write(&layer, content).unwrap();
    let elsewhere = Distribution::start();
    let to = format!("{}/a/b:t", elsewhere.host());
    let said = tool.failure(1, &["push", &image, &to]).await;
    assert!(said.contains(layer.file_name().unwrap().to_str().unwrap()), "{said}");
    tool.failure(1, &["inspect", &to]).await;
}

fn largest(dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    files
        .max_by_key(|entry| entry.metadata().unwrap().len())
        .unwrap()
        .path()
}

/// Bytes that a process reads until it ends (proc(5), `io`: rchar).
fn reads_of(mut child: std::process::Child) -> u64 {
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
    assert!(proxy.take().is_empty(), "the registry was asked something");
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
    proxy.take();
    let said = tool.failure(1, &["push", &tool.image("second"), &to("7.0.0")]).await;
    assert!(
        said.contains("immutable") && said.contains(&first.digest().to_string()),
        "{said}"
    );
    assert!(uploaded(&proxy.take()) == 0, "blobs were sent for nothing");
    // Other tags move.
    tool.json(&["push", &tool.image("first"), &to("latest")]).await;
    let moved = tool.json(&["push", &tool.image("second"), &to("latest")]).await;
    assert_eq!(moved["destinations"][0]["tag"]["from"], first.digest().to_string());
    let said = tool.failure(1, &["promote", &to("latest"), &to("7.0.0")]).await;
    assert!(said.contains("immutable"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn promote_copies_artifacts_and_mounts_blobs_within_a_registry() {
    let tool = Tool::new("");
    let index = tool.project.make("t", 7, 2 * MIB);
    let registry = Distribution::start();
    let proxy = FaultyProxy::start(registry.address()).await;
    let source = format!("{}/gate/agent:change_1_t", proxy.host());
    publish_with_artifacts(&tool, "t", &[&source], "alice").await;
    proxy.take();
    let to = format!("{}/team/agent:7.0.0", proxy.host());
    let retag = format!("{}/gate/agent:7.0.0", proxy.host());
    let promoted = tool.json(&["promote", &source, &to, &retag]).await;
    assert_eq!(promoted["digest"], index.digest().to_string());
    assert_eq!(promoted["bytes_sent"], 0);
    assert_eq!(promoted["destinations"][0]["blobs"]["mounted"], 6);
    assert_eq!(promoted["destinations"][0]["artifacts"], 2);
    let asked = proxy.take();
    assert_eq!(uploaded(&asked), 0);
    let position = |part: &str| asked.iter().rposition(|a| a.is("PUT", part)).unwrap();
    assert!(position(".sig") < position("/team/agent/manifests/7.0.0"));
    // To another registry, by digest.
    let elsewhere = Distribution::start();
    let by_digest = format!("{}/gate/agent@{}", proxy.host(), index.digest());
    let far = format!("{}/x/y:z", elsewhere.host());
    let promoted = tool.json(&["promote", &by_digest, &far]).await;
    assert_eq!(promoted["destinations"][0]["blobs"]["uploaded"], 6);
    assert_eq!(tool.json(&["verify", &far]).await["passed"], true);
    for reference in [&to, &retag, &far] {
        let shown = tool.json(&["inspect", reference]).await;
        assert_eq!(shown["digest"], index.digest().to_string());
        assert_eq!(shown["platforms"].as_array().unwrap().len(), 2);
        assert_eq!(
            shown["platforms"][0]["labels"]["org.opencontainers.image.version"],
            "7.0.0"
        );
        let kinds: Vec<&str> = shown["artifacts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| a["kind"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["signatures", "referrer"], "{reference}");
    }
    // A second signature joins the first.
    publish_with_artifacts(&tool, "t", &[&source], "bob").await;
    let shown = tool.json(&["inspect", &source]).await;
    assert_eq!(shown["artifacts"][0]["what"], "2");
    tool.json(&["promote", &source, &far]).await;
    assert_eq!(tool.json(&["inspect", &far]).await["artifacts"][0]["what"], "2");
    assert_eq!(
        tool.json(&["inspect", &far]).await["artifacts"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_detects_a_changed_byte_in_a_registry() {
    let tool = Tool::new("");
    let index = tool.project.make("t", 8, MIB);
    let registry = Distribution::start();
    let reference = format!("{}/a/b:t", registry.host());
    tool.json(&["push", &tool.image("t"), &reference]).await;
    let verified = tool.json(&["verify", &reference]).await;
    assert_eq!(verified["passed"], true);
    assert_eq!(verified["platforms"].as_array().unwrap().len(), 2);
    let (image, _) = tool.project.verified("t");
    let manifest: oci_spec::image::ImageManifest = image.layout().read_json(&image.platforms[1].1).unwrap();
    let blob = registry.blob_file(manifest.layers()[1].digest().as_ref());
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let said = tool.failure(1, &["verify", &reference]).await;
    assert!(said.contains("digest"), "{said}");
    let one = tool.json(&["verify", &reference, "--platform", "linux/amd64"]).await;
    assert_eq!(one["platforms"].as_array().unwrap().len(), 1);
    let missing = format!("{}/a/b:nothing", registry.host());
    assert!(
        tool.failure(1, &["verify", &missing])
            .await
            .contains("has no tag nothing")
    );
    assert!(!index.digest().to_string().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_removes_only_old_temporary_tags() {
    let tool = Tool::new("[[registries]]\nhost = \"127.0.0.1:*\"\ntemporary = [\"*:change_*\"]");
    tool.project.make("one", 9, MIB);
    tool.project.make("two", 10, MIB);
    let registry = Distribution::start();
    let repository = format!("{}/team/agent", registry.host());
    let tag = |tag: &str| format!("{repository}:{tag}");
    publish_with_artifacts(&tool, "one", &[&tag("change_1_x")], "alice").await;
    publish_with_artifacts(&tool, "two", &[&tag("change_2_x")], "alice").await;
    tool.json(&["promote", &tag("change_1_x"), &tag("7.0.0")]).await;
    // Fresh ones stay, and so does what has no known age.
    tool.project.make("three", 11, MIB);
    tool.json(&["push", &tool.image("three"), &tag("other_3")]).await;
    let kept = tool
        .json(&["prune", &repository, "--prefix", "change_", "--older-than", "1h"])
        .await;
    for judged in kept["tags"].as_array().unwrap() {
        assert_eq!(judged["removed"], false);
        assert_eq!(judged["kept"], "it is not old enough");
        assert!(judged["pushed"].is_string());
    }
    let unknown = tool
        .json(&["prune", &repository, "--prefix", "other_", "--older-than", "0s"])
        .await;
    assert_eq!(unknown["tags"][0]["kept"], "its age is unknown");
    let arguments = ["prune", &repository, "--prefix", "change_", "--older-than", "0s"];
    let dry = tool.json(&[&arguments[..], &["--dry-run"]].concat()).await;
    assert!(
        dry["tags"]
            .as_array()
            .unwrap()
            .iter()
            .all(|t| t["removed"] == false && t["kept"].is_null())
    );
    let removed = tool.json(&arguments).await;
    assert!(
        removed["tags"].as_array().unwrap().iter().all(|t| t["removed"] == true),
        "{removed}"
    );
    let name = tag("7.0.0")
        .parse::<obgp_build::oci::ImageReference>()
        .unwrap()
        .repository;
    let mut tags = tool
        .registries()
        .repository(&name, Access::Pull)
        .unwrap()
        .tags()
        .await
        .unwrap();
    tags.sort();
    let one = tool.project.verified("one").0.descriptor;
    let base = fallback_tag(one.digest());
    // The promoted image has its signature still; that of the one nobody promoted went with its tag.
    let mut expected = vec![
        "7.0.0".to_string(),
        "other_3".into(),
        base.clone(),
        format!("{base}.sig"),
    ];
    expected.sort();
    assert_eq!(tags, expected);
    assert_eq!(tool.json(&["verify", &tag("7.0.0")]).await["passed"], true);
    tool.failure(2, &["prune", &tag("7.0.0"), "--prefix", "x"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_come_from_dockers_config_and_a_missing_login_is_named() {
    let tool = Tool::new("");
    tool.project.make("t", 12, MIB);
    let registry = Distribution::start_with(Login::Basic, None);
    let to = format!("{}/a/b:t", registry.host());
    let said = tool.failure(1, &["push", &tool.image("t"), &to]).await;
    assert!(said.contains("docker login"), "{said}");
    tool.login(&registry.host());
    tool.json(&["push", &tool.image("t"), &to]).await;
    // A credential helper instead.
    let helper = tool.project.path().join("bin/docker-credential-test");
    std::fs::create_dir_all(helper.parent().unwrap()).unwrap();
    let answer = json!({ "ServerURL": registry.host(), "Username": USER, "Secret": PASSWORD });
    std::fs::write(&helper, format!("#!/bin/sh\ncat > /dev/null\necho '{answer}'\n")).unwrap();
    std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = json!({ "credHelpers": { registry.host(): "test" } });
    std::fs::write(tool.docker_config.join("config.json"), config.to_string()).unwrap();
    let mut tool = tool;
    let path = format!("{}:/usr/bin:/bin", helper.parent().unwrap().display());
    tool.environment.push(("PATH".into(), path));
    assert_eq!(tool.json(&["verify", &to]).await["passed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_renewed_once() {
    let tool = Tool::new("");
    tool.project.make("t", 13, MIB);
    let tokens = tokens::TokenServer::start(tool.project.path()).await;
    let login = Login::Token {
        realm: tokens.realm(),
        certificate: tokens.certificate.clone(),
    };
    let registry = Distribution::start_with(login, None);
    tool.login(&registry.host());
    let to = format!("{}/a/b:t", registry.host());
    tool.json(&["push", &tool.image("t"), &to]).await;
    assert_eq!(tokens.issued(), 1, "one token is enough for a push");
    // The next one is expired when it arrives, though the service says that it lives on.
    tokens.issue_expired(1);
    tool.project.make("u", 14, MIB);
    tool.json(&["push", &tool.image("u"), &format!("{}/a/b:u", registry.host())])
        .await;
    assert_eq!(tokens.issued(), 3);
    // Always expired: told, and not tried for ever.
    tokens.issue_expired(1000);
    let before = tokens.issued();
    let said = tool.failure(1, &["inspect", &to]).await;
    assert!(said.contains("denied"), "{said}");
    assert!(tokens.issued() - before <= 2);
    // Expired in mid-upload: the registry's refusal comes while the blob is on its way.
    tokens.issue_expired(0);
    let proxy = FaultyProxy::start(registry.address()).await;
    tool.login(&proxy.host());
    let challenge = format!("Bearer realm=\"{}\",service=\"registry\"", tokens.realm());
    proxy.fail(
        1,
        |a| a.uploads(),
        Fault::Answer(401, vec![("WWW-Authenticate", challenge)]),
    );
    tool.project.make("v", 15, 2 * MIB);
    tool.json(&["push", &tool.image("v"), &format!("{}/a/b:v", proxy.host())])
        .await;
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
        .stdout(std::process::Stdio::null())
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
    println!("peak of pushing 96 MiB: {peak} KiB");
}
