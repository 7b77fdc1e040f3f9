//! Copies from a real registry (Debian's docker-registry) to another one with TLS and a login.

#[path = "../../../tests/support/debian.rs"]
mod debian;
mod faults;
mod proxy;
mod registry;

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use registry::{CONFIG, INDEX, MANIFEST, PASSWORD, Registry, USER, noise, program};

fn docker_config(directory: &Path, logins: &[(&str, &str)]) -> PathBuf {
    use base64::Engine as _;
    let auths: HashMap<&str, Value> = logins
        .iter()
        .map(|(host, password)| {
            let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
            (*host, json!({"auth": auth}))
        })
        .collect();
    let file = directory.join("config.json");
    fs::write(&file, json!({"auths": auths}).to_string()).unwrap();
    file
}

fn sync(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_obgp-runtime"));
    command
        .env_clear()
        .env("HOME", "/nonexistent")
        .arg("image-repo-sync")
        .args(arguments);
    command
}

fn succeeds(mut command: Command) -> Value {
    let output = command.arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn fails(mut command: Command, reason: &str) {
    let output = command.output().unwrap();
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains(reason),
        "{reason:?} is not in {}",
        stderr(&output)
    );
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every manifest and blob of the index is the same in both registries.
fn assert_same(from: &Registry, source: &str, to: &Registry, destination: &str, reference: &str) {
    let (status, media_type, content) = from.get(&format!("{source}/manifests/{reference}"));
    assert_eq!(status, 200, "{source}:{reference}");
    let there = to.get(&format!("{destination}/manifests/{reference}"));
    assert_eq!(there, (200, media_type, content.clone()), "{destination}:{reference}");
    let document: Value = serde_json::from_slice(&content).unwrap();
    for manifest in document["manifests"].as_array().into_iter().flatten() {
        assert_same(from, source, to, destination, manifest["digest"].as_str().unwrap());
    }
    for blob in document["layers"]
        .as_array()
        .into_iter()
        .flatten()
        .chain(document.get("config"))
    {
        let digest = blob["digest"].as_str().unwrap();
        let (_, _, content) = from.get(&format!("{source}/blobs/{digest}"));
        let there = to.get(&format!("{destination}/blobs/{digest}"));
        assert!(there.0 == 200 && there.2 == content, "{destination} {digest}");
    }
}

#[test]
fn all_platforms_and_signatures_are_copied_unchanged() {
    let Some(program) = program() else { return };
    let (from, to) = (Registry::plain(&program), Registry::guarded(&program));
    let index = from.put_image("team/app", "1.0", &[&noise(1, 3_000_000), &noise(2, 10)]);
    let digest = index["digest"].as_str().unwrap();
    // A signature in cosign 2's scheme, and one in OCI 1.1's scheme for registries without the referrers API.
    let payload = from.put_blob(
        "team/app",
        "application/vnd.dev.cosign.simplesigning.v1+json",
        b"signed",
    );
    let config = from.put_blob("team/app", CONFIG, b"{}");
    let signature = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [payload]});
    let tag = digest.replace(':', "-");
    from.put_manifest("team/app", Some(&format!("{tag}.sig")), MANIFEST, &signature);
    let mut referrer = signature.clone();
    referrer["subject"] = index.clone();
    referrer["artifactType"] = json!("application/vnd.dev.sigstore.bundle.v0.3+json");
    let mut referrer = from.put_manifest("team/app", None, MANIFEST, &referrer);
    referrer["artifactType"] = json!("application/vnd.dev.sigstore.bundle.v0.3+json");
    let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [referrer]});
    from.put_manifest("team/app", Some(&tag), INDEX, &list);

    let directory = tempfile::tempdir().unwrap();
    let config = docker_config(directory.path(), &[(&to.address, PASSWORD)])
        .display()
        .to_string();
    let image = format!("{}/team/app:1.0=mirror/app", from.address);
    let arguments = [
        image.as_str(),
        "--local-repo",
        &to.address,
        "--docker-config",
        &config,
        "--ca-file",
        &to.ca(),
    ]
    .map(str::to_string);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = &succeeds(sync(&arguments))[0];
    let copied = &result["copied"];
    assert_eq!(copied["digest"], digest, "{result}");
    assert_eq!(copied["companions"], 2, "{result}");
    assert_same(&from, "team/app", &to, "mirror/app", "1.0");
    assert_same(&from, "team/app", &to, "mirror/app", &format!("{tag}.sig"));
    let (status, _, list) = to.get(&format!("mirror/app/manifests/{tag}"));
    let list: Value = serde_json::from_slice(&list).unwrap();
    assert_eq!((status, &list["manifests"]), (200, &json!([referrer])));
    assert_same(
        &from,
        "team/app",
        &to,
        "mirror/app",
        referrer["digest"].as_str().unwrap(),
    );

    // A second run sends nothing.
    let result = &succeeds(sync(&arguments))[0]["copied"];
    assert_eq!(
        (&result["manifests"], &result["uploaded"], &result["companions"]),
        (&json!(0), &json!(0), &json!(2)),
        "{result}"
    );

    // The tag moves, and so does the mirror's. The layers are present.
    from.put_image("team/app", "1.0", &[&noise(1, 3_000_000), &noise(3, 10)]);
    let result = &succeeds(sync(&arguments))[0]["copied"];
    assert_eq!(
        (&result["uploaded"], &result["present"]),
        (&json!(1), &json!(8)),
        "{result}"
    );
    assert_same(&from, "team/app", &to, "mirror/app", "1.0");
}

#[test]
fn blobs_in_another_repository_are_mounted() {
    let Some(program) = program() else { return };
    let (from, to) = (Registry::plain(&program), Registry::plain(&program));
    let shared = noise(4, 100_000);
    from.put_image("a", "1", &[&shared]);
    from.put_image("b", "1", &[&shared]);
    let list = format!("{0}/a:1=a, {0}/b:1=b,,{0}/a:1=a", from.address);
    let mut command = sync(&[]);
    command.env("IMAGE_SYNC_LIST", &list).env("LOCAL_REPO", &to.address);
    let results = succeeds(command);
    assert_eq!(results.as_array().unwrap().len(), 2, "{results}");
    assert_eq!(results[0]["copied"]["mounted"], 0, "{results}");
    assert_eq!(
        (&results[1]["copied"]["mounted"], &results[1]["copied"]["uploaded"]),
        (&json!(4), &json!(0)),
        "{results}"
    );
    assert_same(&from, "b", &to, "b", "1");
    // Within one registry no blob passes through this program.
    let results = succeeds(sync(&[
        &format!("{}/a:1=c", from.address),
        "--local-repo",
        &from.address,
    ]));
    assert_eq!(results[0]["copied"]["uploaded"], 0, "{results}");
    assert_same(&from, "a", &from, "c", "1");
}

/// OpenStack-Helm's environment and names: LOCAL_REPO/IMAGE, as with `docker tag`.
#[test]
fn the_environment_of_openstack_helms_job_is_supported() {
    let Some(program) = program() else { return };
    // Names in the list have no port, so the registry uses port 80, on a loopback address of this test.
    let host = format!(
        "127.{}.{}.7",
        std::process::id() % 250 + 2,
        std::process::id() / 250 % 250
    );
    if TcpListener::bind(format!("{host}:80")).is_err() {
        assert!(std::env::var_os("CI").is_none(), "cannot listen on port 80");
        eprintln!("SKIPPED: cannot listen on port 80");
        return;
    }
    let (from, to) = (
        Registry::start(&program, &format!("{host}:80"), false),
        Registry::plain(&program),
    );
    let index = from.put_image("team/app", "1", &[b"layer"]);
    let mut command = sync(&[]);
    command
        .env("IMAGE_SYNC_LIST", format!("{host}/team/app:1,"))
        .env("LOCAL_REPO", format!("{}/", to.address));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = format!(
        "{}/{host}/team/app:1 {} copied 4 manifests, ",
        to.address,
        index["digest"].as_str().unwrap()
    );
    assert!(line.starts_with(&expected), "{line}");
    assert_same(&from, "team/app", &to, &format!("{host}/team/app"), "1");
    // A reference with only a digest, and a missing image next to an existing one.
    let digest = index["digest"].as_str().unwrap();
    let mut command = sync(&[]);
    command.env("LOCAL_REPO", format!("{}/cache", to.address));
    command.env(
        "IMAGE_SYNC_LIST",
        format!("{host}/team/none:1,{host}/team/app@{digest}"),
    );
    fails(command, "1 of 2 images were not copied");
    assert_same(&from, "team/app", &to, &format!("cache/{host}/team/app"), digest);
}

#[test]
fn authentication_errors_name_the_cause() {
    let Some(program) = program() else { return };
    let (from, to) = (Registry::plain(&program), Registry::guarded(&program));
    from.put_image("a", "1", &[b"layer"]);
    let image = format!("{}/a:1=a", from.address);
    let directory = tempfile::tempdir().unwrap();
    let arguments = [image.as_str(), "--local-repo", &to.address, "--ca-file", &to.ca()].map(str::to_string);
    let with_ca: Vec<&str> = arguments.iter().map(String::as_str).collect();
    fails(
        sync(&with_ca),
        "the registry requires a login, but the Docker configuration has none for it",
    );
    let wrong = docker_config(directory.path(), &[(&to.address, "wrong")]);
    let mut command = sync(&with_ca);
    command.env("DOCKER_CONFIG", directory.path());
    fails(
        command,
        "status 401 (UNAUTHORIZED: authentication required) (with the login from the Docker configuration)",
    );
    docker_config(directory.path(), &[(&to.address, PASSWORD)]);
    let wrong = wrong.display().to_string();
    fails(
        sync(&[&image, "--local-repo", &to.address, "--docker-config", &wrong]),
        "add its CA with --ca-file or SSL_CERT_FILE",
    );
    let mut command = sync(&[&image, "--local-repo", &to.address, "--docker-config", &wrong]);
    command.env("SSL_CERT_FILE", to.ca());
    succeeds(command);
    fails(
        sync(&[&image, "--local-repo", &to.address, "--docker-config", "/nonexistent"]),
        "there is no config.json",
    );
    fails(
        sync(&["", "--local-repo", &to.address]),
        "the list (IMAGE_SYNC_LIST) is empty",
    );
    fails(sync(&["h:1/a:1", "--local-repo", &to.address]), "IMAGE=NAME");
}
