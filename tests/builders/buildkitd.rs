//! Tests a buildkitd as a builder.

use base64::Engine as _;
use obgp_build::engine::{Address, Engine};
use serde_json::{Value, json};

use crate::support::buildkitd::start;
use crate::support::project::{Project, base_layer};
use crate::support::registry::{PASSWORD, Registry, USER};
use crate::support::{Which, address_for_containers, proxy};
use crate::{assert_targets_move, each, report};

/// On a socket and over mutual TLS, with bases that only this host has.
#[tokio::test(flavor = "multi_thread")]
async fn a_buildkitd_builds_the_same_digest_as_an_engine() {
    let (Some(machine), Some(modern)) = (Which::Machine.endpoint(), Which::Modern.endpoint()) else {
        return;
    };
    let project = Project::new(&[&machine]);
    let dir = tempfile::tempdir().unwrap();
    let buildkitd = start(&modern, dir.path());
    project.builder("bare", &buildkitd.address.to_string(), "");
    project.builder_over_tls("far", &buildkitd, "").await;
    project.builder("engine", &machine.address.to_string(), "");

    let plan = project
        .command(&["plan", "--builder", "bare", "--json"])
        .output()
        .unwrap();
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(plan["builders"][0]["kind"], "buildkitd", "{plan:#}");
    assert_eq!(plan["builders"][0]["native"], "linux/amd64");
    assert_eq!(plan["images"][0]["targets"][0]["base"]["origin"], "bootstrap");

    let bare = report(&project.build("bare", &["--builder", "bare", "--no-cache"]));
    assert_eq!(each(&bare, "builder"), ["bare"; 2]);
    let engine = report(&project.build("engine", &["--builder", "engine"]));
    assert_eq!(each(&engine, "builder"), ["engine"; 2]);
    assert_eq!(each(&bare, "digest"), each(&engine, "digest"));
    let far = report(&project.build("far", &["--builder", "far"]));
    assert_eq!(each(&far, "digest"), each(&engine, "digest"));

    // An unchanged image is not sent again.
    let again = report(&project.build("far", &["--builder", "far"]));
    assert_eq!(each(&again, "unchanged"), [true; 2]);
    // A new output directory gets the whole image.
    let anew = report(&project.build("anew", &["--builder", "far"]));
    assert_eq!(each(&anew, "unchanged"), [false; 2]);
    assert_eq!(each(&anew, "digest"), each(&engine, "digest"));
    // A buildkitd keeps no images.
    assert!(each(&anew, "engine_image").iter().all(Value::is_null), "{anew:#}");
    let modern = Engine::connect(modern).await.unwrap();
    for distro in &project.distros {
        let name = format!("docker.io/obgp-test/ovn-bgp-agent:7.0.0-{distro}-amd64");
        assert_eq!(modern.inspect_image(&name).await.unwrap(), None);
    }
    project.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_of_a_dead_buildkitd_move_to_another_builder() {
    let (Some(machine), Some(modern)) = (Which::Machine.endpoint(), Which::Modern.endpoint()) else {
        return;
    };
    let project = Project::new(&[&machine]);
    let dir = tempfile::tempdir().unwrap();
    let doomed = proxy::Breakable::start(&start(&modern, dir.path()), dir.path());
    project.builder("doomed", &Address::Unix(doomed.socket.clone()).to_string(), "slots = 2");
    let plan = project.command(&["plan", "--json"]).output().unwrap();
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(plan["builders"][0]["kind"], "buildkitd", "{plan:#}");
    project.builder("heir", &machine.address.to_string(), "slots = 2");

    assert_targets_move(&project, doomed);
    project.clean().await;
}

/// The error is reported before the build starts.
#[tokio::test(flavor = "multi_thread")]
async fn options_that_a_buildkitd_lacks_are_rejected() {
    let Some(modern) = Which::Modern.endpoint() else { return };
    let project = Project::new(&[]);
    let dir = tempfile::tempdir().unwrap();
    project.builder("bare", &start(&modern, dir.path()).address.to_string(), "");
    let rejected = |args: &[&str]| {
        let output = project.command(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), stderr)
    };

    let (code, stderr) = rejected(&["build", "--smoke"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.contains("builder bare is a buildkitd, which runs no images"),
        "{stderr}"
    );

    let (code, stderr) = rejected(&["plan", "--cache-to", "type=inline"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("no builder can write a cache of type=inline"),
        "{stderr}"
    );

    let doctor = project.command(&["doctor", "--json"]).output().unwrap();
    let doctor: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let found = |check: &str| {
        let findings = doctor["findings"].as_array().unwrap();
        let finding = findings.iter().find(|finding| finding["check"] == check);
        finding.unwrap()["found"].as_str().unwrap().to_string()
    };
    assert!(found("engine").starts_with("builder bare: buildkitd "), "{doctor:#}");
    assert!(found("image store").contains("none"), "{doctor:#}");
}

/// The buildkitd itself pulls the base, by digest and with the user's login.
#[tokio::test(flavor = "multi_thread")]
async fn a_buildkitd_pulls_a_private_base_by_digest() {
    let Some(modern) = Which::Modern.endpoint() else { return };
    let registry = Registry::start(base_layer()).await;
    let host = format!("{}:{}", address_for_containers(), registry.port);
    let base = format!("{host}/test/base:1");
    let dir = tempfile::tempdir().unwrap();
    let login = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let config = json!({"auths": {host.as_str(): {"auth": login}}}).to_string();
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    let project = Project::new(&[&modern]);
    project.builder("bare", &start(&modern, dir.path()).address.to_string(), "");
    project.builder("engine", &modern.address.to_string(), "");
    let run = |command: &str, builder: &str, base: &str| {
        let of = [command, "--base", base, "--distro", &project.distros[0]];
        let mut command = project.command(&of);
        command.args(["--builder", builder, "--plain-http", "--json", "--progress", "quiet"]);
        command.env("DOCKER_CONFIG", dir.path());
        if of[0] == "build" {
            command.arg("--output").arg(project.output(builder));
        }
        command.output().unwrap()
    };

    let bare = report(&run("build", "bare", &base));
    let engine = report(&run("build", "engine", &base));
    let of = |report: &Value, field: &str| report["images"][0]["platforms"][0][field].clone();
    assert!(of(&bare, "digest").is_string(), "{bare:#}");
    assert_eq!(of(&bare, "digest"), of(&engine, "digest"));
    assert_eq!(of(&bare, "base"), of(&engine, "base"));

    // A base that does not exist.
    let missing = run("build", "bare", &format!("{host}/test/none:1"));
    let stderr = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert_eq!(missing.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("tried the registry, for"), "{stderr}");

    let plan: Value = serde_json::from_slice(&run("plan", "engine", &base).stdout).unwrap();
    let engine = Engine::connect(modern).await.unwrap();
    let pulled = plan["images"][0]["targets"][0]["base"]["engine_tag"].as_str().unwrap();
    assert!(engine.remove_image(pulled).await.unwrap(), "{plan:#}");
    project.clean().await;
}
