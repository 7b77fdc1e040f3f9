//! A buildkitd as a builder.
//!
//! None is to be had from the archives that the tests use. What stands in for it is the BuildKit of the modern engine, by its
//! own API: no Docker API around it, no `/session`, no image store.

use std::path::Path;

use obgp_build::engine::{Address, Dialer, Endpoint, Origin};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use crate::project::Project;
use crate::support::{Which, proxy};
use crate::{build_until_under_way, each, report};

/// Listens in `dir` as a buildkitd does, gRPC from the first byte on, and joins each connection to the engine's BuildKit.
pub fn start(engine: &Endpoint, dir: &Path) -> Endpoint {
    let socket = dir.join("buildkitd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let dialer = Dialer::new(&engine.address).unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut buildkit = dialer.dial().await.unwrap();
            let upgrade = b"POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
            buildkit.write_all(upgrade).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(buildkit.read_u8().await.unwrap());
            }
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut buildkit).await });
        }
    });
    Endpoint {
        address: Address::Unix(socket),
        origin: Origin::DockerHost,
    }
}

/// On a socket and over mutual TLS, with bases that only this machine has.
#[tokio::test(flavor = "multi_thread")]
async fn a_buildkitd_makes_what_an_engine_makes() {
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

    // What is known is not sent again.
    let again = report(&project.build("far", &["--builder", "far"]));
    assert_eq!(each(&again, "unchanged"), [true; 2]);
    // Elsewhere it is not known.
    let anew = report(&project.build("anew", &["--builder", "far"]));
    assert_eq!(each(&anew, "unchanged"), [false; 2]);
    assert_eq!(each(&anew, "digest"), each(&engine, "digest"));
    // It keeps no images.
    assert!(each(&anew, "engine_image").iter().all(Value::is_null), "{anew:#}");
    let modern = obgp_build::engine::Engine::connect(modern).await.unwrap();
    for distro in &project.distros {
        let name = format!("docker.io/obgp-test/ovn-bgp-agent:7.0.0-{distro}-amd64");
        assert_eq!(modern.inspect_image(&name).await.unwrap(), None);
    }
    project.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buildkitd_that_dies_has_its_targets_moved() {
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

    let (output, told) = build_until_under_way(&project, "moved", || doomed.die());
    let moved = report(&output);
    assert_eq!(each(&moved, "builder"), ["heir"; 2], "{told}");
    assert!(told.contains("builder doomed is gone"), "{told}");
    let undisturbed = report(&project.build("undisturbed", &["--builder", "heir"]));
    assert_eq!(each(&moved, "digest"), each(&undisturbed, "digest"));
    project.clean().await;
}

/// What it cannot do is said before anything starts.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_buildkitd_cannot_do_is_refused() {
    let Some(modern) = Which::Modern.endpoint() else { return };
    let project = Project::new(&[]);
    let dir = tempfile::tempdir().unwrap();
    project.builder("bare", &start(&modern, dir.path()).address.to_string(), "");
    let refused = |args: &[&str]| {
        let output = project.command(args).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), told)
    };

    let (code, told) = refused(&["build", "--smoke"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(
        told.contains("builder bare is a buildkitd, which runs no images"),
        "{told}"
    );

    let (code, told) = refused(&["plan", "--cache-to", "type=inline"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("no builder can write a cache of type=inline"), "{told}");

    // An image that only an engine could have.
    let only = ["--distro", &project.distros[0]];
    let (code, told) = refused(&[&["build", "--base", "127.0.0.1:9/none:here"], &only[..]].concat());
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("tried the registry, for 127.0.0.1:9/none:here"), "{told}");
}
