//! Tests builds from a pulled base on each kind of builder.

use base64::Engine as _;
use obgp_build::engine::{Engine, ImageStore};
use obgp_build::oci::Platform;
use obgp_build::progress::Silent;
use serde_json::json;

use super::*;

async fn builds_from_a_pulled_base(which: Which) {
    let Some(machine) = endpoint(which) else { return };
    let engine = Engine::connect(machine.clone()).await.unwrap();
    let bases = Bases::start(which, Login::None);
    let project = Project::fast(&[&machine]);
    project.builder("one", &machine.address.to_string(), "slots = 2");
    for (name, digest) in [
        ("single:1", bases.push("single:1")),
        ("index:1", bases.push_index("index:1")),
    ] {
        let reference = bases.reference(name);
        project.will_remove_base(&digest);
        project.set_base(&reference);
        let pulled = planned(&command(&project, "plan", "never", &[]).output().unwrap());
        assert_eq!(pulled, vec![("registry".to_string(), Some(digest.clone())); 2]);
        // Two targets pull the same base in parallel.
        let built = report(&command(&project, "build", "never", &[]).output().unwrap());
        assert_based_on(&built, &reference, &digest);
        // The engine keeps the base under the tool's own tag only.
        let again = planned(&command(&project, "plan", "never", &[]).output().unwrap());
        assert_eq!(again, vec![("engine".to_string(), Some(digest.clone())); 2]);
        assert_eq!(engine.inspect_image(&reference).await.unwrap(), None);
        let by_digest = format!("{}@{digest}", reference.trim_end_matches(":1"));
        assert_eq!(engine.inspect_image(&by_digest).await.unwrap(), None);
    }
    project.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_engine_builds_from_a_pulled_base() {
    builds_from_a_pulled_base(Which::Machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_engine_builds_from_a_pulled_base() {
    builds_from_a_pulled_base(Which::Modern).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_engine_with_the_classic_store_builds_from_a_pulled_base() {
    builds_from_a_pulled_base(Which::ModernClassic).await;
}

/// A buildkitd keeps no images and pulls the planned digest.
#[tokio::test(flavor = "multi_thread")]
async fn a_buildkitd_builds_from_a_pulled_base() {
    let Some(modern) = endpoint(Which::Modern) else { return };
    let bases = Bases::start(Which::Modern, Login::None);
    let project = Project::fast(&[]);
    let dir = tempfile::tempdir().unwrap();
    let buildkitd = support::buildkitd::start(&modern, dir.path());
    project.builder("bare", &buildkitd.address.to_string(), "slots = 2");
    let pushed = [
        ("single:1", bases.push("single:1")),
        ("index:1", bases.push_index("index:1")),
    ];
    for (name, digest) in pushed {
        let reference = bases.reference(name);
        project.set_base(&reference);
        for mode in ["never", "auto"] {
            let plan = planned(&command(&project, "plan", mode, &[]).output().unwrap());
            assert_eq!(plan, vec![("registry".to_string(), Some(digest.clone())); 2]);
        }
        let built = report(&command(&project, "build", "never", &[]).output().unwrap());
        assert_based_on(&built, &reference, &digest);
    }
    project.set_base(&bases.reference("none:1"));
    let stderr = failure(&command(&project, "plan", "auto", &[]).output().unwrap());
    assert!(stderr.contains("has no tag"), "{stderr}");
    project.clean().await;
}

/// An image of the engine keeps its tag and digests, and is not pulled again.
async fn an_existing_image_is_left_unchanged(which: Which) {
    let Some(machine) = endpoint(which) else { return };
    let engine = Engine::connect(machine.clone()).await.unwrap();
    let bases = Bases::start(which, Login::None);
    let digest = bases.push_index("own:1");
    let reference = bases.reference("own:1");
    let project = Project::fast(&[&machine]);
    project.builder("one", &machine.address.to_string(), "slots = 2");
    project.set_base(&reference);
    project.will_remove_base(&digest);
    let docker = |arguments: &[&str]| {
        run(Command::new("docker")
            .args(["--host", &machine.address.to_string()])
            .args(arguments))
    };
    docker(&["pull", "--quiet", &reference]);
    let before = engine.inspect_image(&reference).await.unwrap().unwrap();
    assert!(
        before.repo_digests.iter().any(|known| known.ends_with(&digest)),
        "{before:?}"
    );

    let plan = planned(&command(&project, "plan", "auto", &[]).output().unwrap());
    assert_eq!(plan[0], ("engine".to_string(), Some(digest.clone())));
    let built = report(&command(&project, "build", "auto", &[]).output().unwrap());
    assert_based_on(&built, &reference, &digest);

    // When the tag moves in the registry, the new base is pulled and the engine keeps the old image.
    let newer = bases.push("own:1");
    project.will_remove_base(&newer);
    let built = report(&command(&project, "build", "auto", &[]).output().unwrap());
    assert_based_on(&built, &reference, &newer);
    let after = engine.inspect_image(&reference).await.unwrap().unwrap();
    assert_eq!(after.id, before.id);
    assert!(
        after.repo_digests.iter().any(|known| known.ends_with(&digest)),
        "{after:?}"
    );
    docker(&["rmi", &reference]);
    project.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_image_is_left_unchanged_on_the_hosts_engine() {
    an_existing_image_is_left_unchanged(Which::Machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_image_is_left_unchanged_on_a_modern_engine() {
    an_existing_image_is_left_unchanged(Which::Modern).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_image_is_left_unchanged_on_a_modern_engine_with_the_classic_store() {
    an_existing_image_is_left_unchanged(Which::ModernClassic).await;
}

/// Only the engine may use plain HTTP here, so it resolves and pulls the base for obgp-build.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_is_pulled_from_a_registry_that_only_the_engine_reaches() {
    for which in [Which::Modern, Which::ModernClassic] {
        let Some(machine) = endpoint(which) else { return };
        let engine = Engine::connect(machine.clone()).await.unwrap();
        let bases = Bases::start(which, Login::None);
        let digest = bases.push_index("far:1");
        let reference = bases.reference("far:1");
        let project = Project::fast(&[&machine]);
        project.builder("one", &machine.address.to_string(), "slots = 2");
        project.set_base(&reference);
        project.will_remove_base(&digest);
        let run = |subcommand: &str, output: &str| {
            let mut command = project.command(&[subcommand, "--bootstrap", "never", "--json", "--progress", "plain"]);
            command.args(output.split_whitespace()).output().unwrap()
        };
        let plan = planned(&run("plan", ""));
        assert_eq!(plan, vec![("registry".to_string(), Some(digest.clone())); 2]);
        let output = project.output("far");
        let built = report(&run("build", &format!("--output {}", output.display())));
        assert_based_on(&built, &reference, &digest);
        let by_digest = format!("{}@{digest}", reference.trim_end_matches(":1"));
        assert_eq!(engine.inspect_image(&by_digest).await.unwrap(), None);
        project.clean().await;
    }
}

/// The registry of `--base` requires a login.
#[tokio::test(flavor = "multi_thread")]
async fn the_base_flag_works_with_a_private_registry() {
    let Some(machine) = endpoint(Which::Machine) else {
        return;
    };
    let bases = Bases::start(Which::Machine, Login::Basic);
    let digest = bases.push("private:1");
    let reference = bases.reference("private:1");
    let project = Project::fast(&[&machine]);
    project.builder("one", &machine.address.to_string(), "");
    project.will_remove_base(&digest);
    let with_base = |subcommand: &str, mode: &str| {
        let arguments = ["--base", &reference, "--distro", &project.distros[0]];
        let mut command = command(&project, subcommand, mode, &arguments);
        command.env("DOCKER_CONFIG", bases.dir.path());
        command
    };
    std::fs::write(bases.dir.path().join("config.json"), "{}").unwrap();
    let stderr = failure(&with_base("plan", "auto").output().unwrap());
    assert!(stderr.contains("docker login"), "{stderr}");

    let login = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let config = json!({"auths": {bases.host.as_str(): {"auth": login}}}).to_string();
    std::fs::write(bases.dir.path().join("config.json"), config).unwrap();
    let built = report(&with_base("build", "never").output().unwrap());
    assert_based_on(&built, &reference, &digest);
    project.clean().await;
}

/// A loaded image has no digest in the classic store.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_without_a_digest_is_rejected_before_the_build() {
    let Some(machine) = endpoint(Which::Machine) else {
        return;
    };
    let engine = Engine::connect(machine.clone()).await.unwrap();
    assert_eq!(
        engine.info().store,
        ImageStore::Classic,
        "this test needs the classic store"
    );
    let name = format!("127.0.0.1:9/obgp-test/loaded:{}", std::process::id());
    let (archive, _) = base_archive(&name, &base_layer());
    let chunk = std::io::Result::Ok(bytes::Bytes::from(archive));
    engine.load(futures_util::stream::iter([chunk])).await.unwrap();
    let project = Project::fast(&[&machine]);
    project.builder("one", &machine.address.to_string(), "");
    let stderr = failure(
        &command(
            &project,
            "plan",
            "auto",
            &["--base", &name, "--distro", &project.distros[0]],
        )
        .output()
        .unwrap(),
    );
    engine.remove_image(&name).await.unwrap();
    assert!(stderr.contains("without a digest"), "{stderr}");
    project.clean().await;
}

/// Each of several parallel runs removes the reference of its own pull.
#[tokio::test(flavor = "multi_thread")]
async fn parallel_pulls_by_digest_leave_no_reference_behind() {
    for which in [Which::Machine, Which::Modern, Which::ModernClassic] {
        let Some(machine) = endpoint(which) else { return };
        let engine = Engine::connect(machine.clone()).await.unwrap();
        // A second connection, because the pulls of one connection are sequential.
        let other = Engine::connect(machine).await.unwrap();
        let bases = Bases::start(which, Login::None);
        let digest = bases.push("plain:1");
        let reference = format!("{}@{digest}", bases.reference("plain"));
        let name = format!("obgp-test/pulled:{}", std::process::id());
        let platform: Platform = PLATFORM.parse().unwrap();
        let runs = [&engine, &other, &engine, &other];
        let pulls = runs.map(|run| run.pull(&reference, platform, &name, &Silent));
        for pulled in futures_util::future::join_all(pulls).await {
            assert!(pulled.unwrap().is_for(platform));
        }
        assert_eq!(engine.inspect_image(&reference).await.unwrap(), None);
        assert!(engine.remove_image(&name).await.unwrap());
    }
}

/// The real image on a real base from a registry. The base is the bootstrapped one, so that steps of other tests can
/// come from the engine's cache.
#[tokio::test(flavor = "multi_thread")]
async fn the_image_on_a_pulled_base_keeps_its_contract() {
    let Some(machine) = endpoint(Which::Machine) else {
        return;
    };
    let distro = "debian_bookworm";
    let obgp_build = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_obgp-build"));
        command.env("DOCKER_HOST", machine.address.to_string());
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(arguments)
            .args(["--json", "--progress", "quiet"]);
        command.output().unwrap()
    };
    let made = report(&obgp_build(&["bootstrap", distro, "--platform", PLATFORM]));
    let bases = Bases::start(Which::Machine, Login::None);
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let (path, name) = (text(&made[0]["path"]), text(&made[0]["base"]["image_name"]));
    let from = format!("oci-archive:{path}:{}", name.rsplit(':').next().unwrap());
    bases.copy(&from, "debian:bookworm-slim");
    let (reference, digest) = (
        bases.reference("debian:bookworm-slim"),
        text(&made[0]["base"]["digest"]),
    );

    let output = bases.dir.path().join("dist");
    // A name of its own: other tests read the quickstart's image from the engine.
    let prefix = format!("obgp-test-{}", std::process::id());
    let name = ["--image-prefix", &prefix];
    let of = [
        name.as_slice(),
        &["--distro", distro, "--platform", PLATFORM, "--base", &reference],
    ]
    .concat();
    let built = obgp_build(&[&["build", "--output", output.to_str().unwrap()], of.as_slice()].concat());
    let plan = report(&obgp_build(&[&["plan"], of.as_slice()].concat()));
    let engine = Engine::connect(machine.clone()).await.unwrap();
    let kept = text(&plan["images"][0]["targets"][0]["base"]["engine_tag"]);
    assert!(engine.remove_image(&kept).await.unwrap(), "{plan:#}");
    let image = format!("{prefix}/ovn-bgp-agent:7.0.0-{distro}-amd64");
    engine.remove_image(&image).await.unwrap();
    let stdout = String::from_utf8_lossy(&built.stdout);
    assert_eq!(
        built.status.code(),
        Some(0),
        "{stdout}\n{}",
        String::from_utf8_lossy(&built.stderr)
    );
    assert_based_on(&report(&built), &reference, &digest);
}
