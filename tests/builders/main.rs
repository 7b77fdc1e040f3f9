//! Tests `[[builder]]`: targets are distributed to several engines and buildkitds, and move when a builder dies.
//!
//! The project's Dockerfile runs on a tiny base with trivial build steps, so that a build takes seconds. The images
//! break the contract, which these tests ignore.

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

/// Returns the report of a build that fails only the contract.
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

/// Returns a field of the only platform of both images.
fn each(report: &Value, field: &str) -> [Value; 2] {
    [0, 1].map(|i| {
        let platform = &report["images"][i]["platforms"][0];
        assert!(platform["error"].is_null(), "{platform:#}");
        platform[field].clone()
    })
}

/// Builds without a cache and calls `disturb` some seconds before the end. Returns the output and stderr.
fn build_until_under_way(project: &Project, output: &str, disturb: impl FnOnce()) -> (Output, String) {
    let mut child = project
        .command(&["--progress", "plain", "--no-cache", "--json"])
        .args(["--output"])
        .arg(project.output(output))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = String::new();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    while !stderr.contains(project::UNDER_WAY) {
        assert!(
            lines.read_line(&mut stderr).unwrap() > 0,
            "the build ended too early:\n{stderr}"
        );
    }
    disturb();
    let rest = std::thread::spawn(move || {
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        rest
    });
    let output = child.wait_with_output().unwrap();
    stderr += &rest.join().unwrap();
    (output, stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_cannot_be_written_does_not_hide_the_result() {
    let Some(machine) = Which::Machine.endpoint() else {
        return;
    };
    let project = Project::fast(&[&machine]);
    project.builder("near", &machine.address.to_string(), "");
    std::fs::create_dir_all(project.output("blocked").join("report.json/in-the-way")).unwrap();
    let output = project.build("blocked", &[]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("report.json"), "{stderr}");
    let built = report(&output);
    assert!(each(&built, "digest").iter().all(Value::is_string), "{built:#}");
    // The engine's storage was read, or not, and the report says so; the second time nothing is read.
    let from = each(&built, "read_from");
    assert!(
        from.iter()
            .all(|from| ["engine-storage", "engine-export"].contains(&from.as_str().unwrap())),
        "{from:?}"
    );
    let exported = report(&project.build("exported", &["--no-engine-storage"]));
    assert_eq!(each(&exported, "read_from"), ["engine-export"; 2]);
    assert_eq!(each(&exported, "digest"), each(&built, "digest"));
    // The same as text: the table fits a terminal of 80 columns.
    let mut text = project.command(&["--progress", "quiet"]);
    let text = text.arg("--output").arg(project.output("exported")).output().unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let in_table = |line: &&str| {
        ["   PLATFORM ", "   linux/amd64 "]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let rows: Vec<&str> = text.lines().filter(in_table).collect();
    assert!(
        rows.len() == 4 && rows.iter().all(|row| row.chars().count() <= 80),
        "{text}"
    );
    assert!(rows[1].contains("unchanged"), "{text}");
    project.clean().await;
}

/// The host's engine on its socket, the modern one over mutual TLS on loopback.
#[tokio::test(flavor = "multi_thread")]
async fn two_engines_build_in_parallel_one_over_mutual_tls() {
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
    assert_ne!(stores[0], stores[1], "the engines have different stores");

    // Each engine alone builds the same two images.
    for builder in ["near", "far"] {
        let alone = report(&project.build(builder, &["--builder", builder]));
        assert_eq!(each(&alone, "builder"), [builder; 2]);
        assert_eq!(each(&alone, "digest"), each(&both, "digest"), "by {builder}");
    }

    // Targets stay with their builder, and unchanged images are not exported again.
    let again = report(&project.build("both", &[]));
    assert_eq!(each(&again, "builder"), ["near", "far"]);
    assert_eq!(each(&again, "unchanged"), [true; 2]);
    project.clean().await;
}

/// Checks that the builder `heir` builds the same images when `doomed` dies during a build.
fn assert_targets_move(project: &Project, doomed: proxy::Breakable) {
    let (output, stderr) = build_until_under_way(project, "moved", || doomed.die());
    let moved = report(&output);
    assert_eq!(each(&moved, "builder"), ["heir"; 2], "{stderr}");
    assert!(stderr.contains("builder doomed is gone"), "{stderr}");

    let undisturbed = report(&project.build("undisturbed", &["--builder", "heir"]));
    assert_eq!(each(&moved, "digest"), each(&undisturbed, "digest"));
}

/// Both the running and the waiting target move.
#[tokio::test(flavor = "multi_thread")]
async fn targets_of_a_dead_builder_move_to_another_builder() {
    let (Some(machine), Some(modern)) = (Which::Machine.endpoint(), Which::Modern.endpoint()) else {
        return;
    };
    let project = Project::new(&[&machine, &modern]);
    let dir = tempfile::tempdir().unwrap();
    let doomed = proxy::Breakable::start(&machine, dir.path());
    project.builder("doomed", &Address::Unix(doomed.socket.clone()).to_string(), "slots = 2");
    // Both targets start on the first builder, because a native builder is preferred while it lives.
    project.builder_over_tls("heir", &modern, "slots = 1").await;

    assert_targets_move(&project, doomed);

    // Without a builder left, the build fails and reports the reason of each.
    let output = project.build("nobody", &["--builder", "doomed"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains(&format!("no builder of build.toml can build {PLATFORM}")),
        "{stderr}"
    );
    assert!(stderr.contains("doomed: cannot reach the Docker engine at"), "{stderr}");
    project.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_and_outdated_builders_are_skipped_with_a_warning() {
    let machine = Which::Machine.endpoint().unwrap();
    let project = Project::new(&[&machine]);
    let dir = tempfile::tempdir().unwrap();
    // The BuildKit of 20.10 supports neither Info nor bases from a session.
    let old = support::buildkitd::start(&machine, dir.path());
    project.builder("here", &machine.address.to_string(), "");
    project.builder("gone", "unix:///nonexistent/docker.sock", "");
    project.builder("old", &old.address.to_string(), "");

    let output = project.command(&["plan", "--json"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["images"][0]["targets"][0]["builder"], "here");
    let reason = |i: usize| plan["absent"][i]["reason"].as_str().unwrap().to_string();
    assert!(reason(0).contains("No such file"), "{}", reason(0));
    assert!(reason(1).contains("is too old"), "{}", reason(1));
    assert!(stderr.contains("warning: builder gone is skipped"), "{stderr}");

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

#[tokio::test(flavor = "multi_thread")]
async fn plan_prints_every_resolved_input() {
    let Some(machine) = Which::Machine.endpoint() else {
        return;
    };
    let project = Project::new(&[&machine]);
    project.builder("here", &machine.address.to_string(), "");
    let output = project.command(&["plan"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout)
        .replace(&machine.address.to_string(), "ADDRESS")
        .replace(env!("CARGO_TARGET_TMPDIR"), "TMPDIR")
        .replace(PLATFORM, "PLATFORM");
    // The engine's release, and whether it has the base, depend on the machine.
    insta::with_settings!({filters => vec![
        ("sha256:[0-9a-f]{12,64}", "DIGEST"),
        ("^engine .*", "ENGINE"),
        (r"(test_[ab])_\d+_\d+", "$1"),
        (r"-bootstrap(@DIGEST)? \(.*\)", "-bootstrap (ORIGIN)"),
        ("no later than [0-9TZ:-]+", "no later than DATE"),
    ]}, {
        insta::assert_snapshot!(text);
    });
    project.clean().await;
}
