//! `[[builder]]`: targets on several engines and buildkitds at once, and elsewhere when one of them dies.
//!
//! The images are made by the project's own Dockerfile on a base of a few files, with build steps that do next to nothing,
//! so that a build takes seconds. They break the contract, which is not what these tests are about.

#[path = "../support/mod.rs"]
mod support;

mod buildkitd;
mod cache;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Output, Stdio};

use obgp_build::engine::Address;
use serde_json::Value;
use support::project::{self, PLATFORM, Project};
use support::{Which, proxy};

/// The result of a build that was done but for the contract.
fn report(output: &Output) -> Value {
    assert_eq!(
        output.status.code(),
        Some(3),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A field of each of the two images' one platform.
fn each(report: &Value, field: &str) -> [Value; 2] {
    [0, 1].map(|i| {
        let platform = &report["images"][i]["platforms"][0];
        assert!(platform["error"].is_null(), "{platform:#}");
        platform[field].clone()
    })
}

/// Builds without a cache; when that is some seconds before its end, `disturb` is called. With what the build told.
fn build_until_under_way(project: &Project, output: &str, disturb: impl FnOnce()) -> (Output, String) {
    let mut child = project
        .command(&["--progress", "plain", "--no-cache", "--json"])
        .args(["--output"])
        .arg(project.output(output))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    while !told.contains(project::UNDER_WAY) {
        assert!(
            lines.read_line(&mut told).unwrap() > 0,
            "it ended before it began:\n{told}"
        );
    }
    disturb();
    let rest = std::thread::spawn(move || {
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        rest
    });
    let output = child.wait_with_output().unwrap();
    told += &rest.join().unwrap();
    (output, told)
}

/// The machine's engine on its socket, the modern one over mutual TLS on loopback.
#[tokio::test(flavor = "multi_thread")]
async fn two_engines_build_at_once_one_of_them_over_mutual_tls() {
    let (Some(machine), Some(modern)) = (Which::Machine.endpoint(), Which::Modern.endpoint()) else {
        return;
    };
    let project = Project::new(&[&machine, &modern]);
    project.builder("near", &machine.address.to_string(), "slots = 1");
    project.builder_over_tls("far", &modern, "slots = 1").await;

    let plan = project.command(&["plan", "--json"]).output().unwrap();
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    let planned = |i: usize| plan["images"][i]["targets"][0]["builder"].clone();
    assert_eq!([planned(0), planned(1)], ["near", "far"], "{plan:#}");

    let both = report(&project.build("both", &[]));
    assert_eq!(each(&both, "builder"), ["near", "far"]);
    let stores: Vec<&Value> = both["builders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| &b["store"])
        .collect();
    assert_ne!(stores[0], stores[1], "these are two engines");

    // Each of them alone makes the same two images.
    for builder in ["near", "far"] {
        let alone = report(&project.build(builder, &["--builder", builder]));
        assert_eq!(each(&alone, "builder"), [builder; 2]);
        assert_eq!(each(&alone, "digest"), each(&both, "digest"), "by {builder}");
    }

    // Targets go where they went, and nothing is exported again.
    let again = report(&project.build("both", &[]));
    assert_eq!(each(&again, "builder"), ["near", "far"]);
    assert_eq!(each(&again, "unchanged"), [true; 2]);
    project.clean().await;
}

/// `doomed` dies while it builds: what it had is made by the builder `heir`, as if nothing had been.
fn dies_and_is_inherited(project: &Project, doomed: proxy::Breakable) {
    let (output, told) = build_until_under_way(project, "moved", || doomed.die());
    let moved = report(&output);
    assert_eq!(each(&moved, "builder"), ["heir"; 2], "{told}");
    assert!(told.contains("builder doomed is gone"), "{told}");

    let undisturbed = report(&project.build("undisturbed", &["--builder", "heir"]));
    assert_eq!(each(&moved, "digest"), each(&undisturbed, "digest"));
}

/// The builder's machine goes while it builds; its targets, the one under way and the one that waits, are built elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_builder_that_dies_has_its_targets_moved() {
    let (Some(machine), Some(modern)) = (Which::Machine.endpoint(), Which::Modern.endpoint()) else {
        return;
    };
    let project = Project::new(&[&machine, &modern]);
    let dir = tempfile::tempdir().unwrap();
    let doomed = proxy::Breakable::start(&machine, dir.path());
    project.builder("doomed", &Address::Unix(doomed.socket.clone()).to_string(), "slots = 2");
    // Both targets go to the first: the second may not have this platform as long as a native one lives.
    project.builder_over_tls("heir", &modern, "slots = 1").await;

    dies_and_is_inherited(&project, doomed);

    // With nobody left, it fails, and says of each why.
    let output = project.build("nobody", &["--builder", "doomed"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains(&format!("no builder of build.toml can build {PLATFORM}")),
        "{told}"
    );
    assert!(told.contains("doomed: cannot reach the Docker engine at"), "{told}");
    project.clean().await;
}

/// Those that are not there are left out with a warning, whatever is in their place.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_as_an_engine_is_left_out() {
    let machine = Which::Machine.endpoint().unwrap();
    let project = Project::new(&[&machine]);
    let dir = tempfile::tempdir().unwrap();
    // The BuildKit of 20.10 has neither Info nor bases from a session.
    let old = support::buildkitd::start(&machine, dir.path());
    project.builder("here", &machine.address.to_string(), "");
    project.builder("gone", "unix:///nonexistent/docker.sock", "");
    project.builder("old", &old.address.to_string(), "");

    let output = project.command(&["plan", "--json"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["images"][0]["targets"][0]["builder"], "here");
    let reason = |i: usize| plan["absent"][i]["reason"].as_str().unwrap().to_string();
    assert!(reason(0).contains("No such file"), "{}", reason(0));
    assert!(reason(1).contains("is too old"), "{}", reason(1));
    assert!(told.contains("warning: builder gone is skipped"), "{told}");

    let output = project.command(&["doctor", "--json"]).output().unwrap();
    let doctor: Value = serde_json::from_slice(&output.stdout).unwrap();
    let engines: Vec<_> = doctor["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|f| f["check"] == "engine")
        .map(|f| {
            (
                f["status"].as_str().unwrap(),
                f["found"].as_str().unwrap().split(':').next().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        engines,
        [
            ("ok", "builder here"),
            ("warn", "builder gone"),
            ("warn", "builder old")
        ]
    );
    project.clean().await;
}
