//! Faults of registries and networks, tokens, and large layers.

use std::process::Command;
use std::sync::atomic::Ordering;

use super::proxy::{Proxy, proxy};
use super::registry::{Registry, noise, program};
use super::{assert_same, succeeds, sync};

#[test]
fn faults_are_retried() {
    let Some(program) = program() else { return };
    let (from, to) = (Registry::plain(&program), Registry::plain(&program));
    from.put_image("a", "1", &[&noise(5, 300_000), &noise(6, 2_000_000)]);
    let (source, destination) = (proxy(&from.address, None, true), proxy(&to.address, None, true));
    succeeds(sync(&[
        &format!("{}/a:1=a", source.address),
        "--local-repo",
        &destination.address,
    ]));
    assert_same(&from, "a", &to, "a", "1");
    for proxy in [&source, &destination] {
        let faults = proxy.faults.load(Ordering::Relaxed);
        assert!(faults >= 3, "only {faults} faults");
    }
}

#[test]
fn tokens_have_the_scope_of_the_request() {
    let Some(program) = program() else { return };
    let (from, to) = (Registry::plain(&program), Registry::plain(&program));
    from.put_image("a", "1", &[b"layer"]);
    let (source, destination) = (
        proxy(&from.address, Some("x.y.z"), false),
        proxy(&to.address, Some("p-q"), false),
    );
    succeeds(sync(&[
        &format!("{}/a:1=a", source.address),
        "--local-repo",
        &destination.address,
    ]));
    assert_same(&from, "a", &to, "a", "1");
    let scopes = |proxy: &Proxy| {
        proxy
            .scopes
            .lock()
            .unwrap()
            .join("\n")
            .replace("%3A", ":")
            .replace("%2C", ",")
    };
    assert!(scopes(&source).contains("repository:a:pull"), "{}", scopes(&source));
    assert!(!scopes(&source).contains("push"), "{}", scopes(&source));
    assert!(
        scopes(&destination).contains("repository:a:pull,push"),
        "{}",
        scopes(&destination)
    );
}

/// A 300 MB layer passes through a process with an address space of 120 MB, including its code.
#[test]
fn large_layers_need_little_memory() {
    let Some(program) = program() else { return };
    let (from, to) = (Registry::plain(&program), Registry::plain(&program));
    let index = from.put_image("a", "1", &[&noise(7, 300_000_000)]);
    let mut command = Command::new("prlimit");
    command
        .args(["--as=120000000", env!("CARGO_BIN_EXE_obgp-runtime"), "image-repo-sync"])
        .env("HOME", "/nonexistent");
    command.args([&format!("{}/a:1=a", from.address), "--local-repo", &to.address]);
    let result = succeeds(command);
    assert_eq!(result[0]["copied"]["digest"], index["digest"], "{result}");
    assert_same(&from, "a", &to, "a", "1");
}
