//! Tests `--cache-from` and `--cache-to`.

use std::process::Command;

use obgp_build::buildkit::{self, Archive, Buildkitd, Daemon, Receive, Solved};
use obgp_build::config::cache::Cache;
use obgp_build::engine::Endpoint;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::distribution::Distribution;
use crate::support::project::Project;
use crate::support::{self, Lab, Recorder, Which, address_for_containers};

/// Solves a Dockerfile with one step.
async fn solve(lab: &Lab, base: &str, step: &str, cache: Cache) -> Solved {
    let mut request = lab.request(&format!("FROM {base}\nRUN {step}\n"), &[]);
    request.cache = cache;
    lab.solve(&request).await.unwrap()
}

fn cache(from: &[String], to: &[String]) -> Cache {
    let parsed = |entries: &[String]| entries.iter().map(|e| e.parse().unwrap()).collect();
    Cache {
        from: parsed(from),
        to: parsed(to),
    }
}

/// Removes a step from an engine's own cache.
fn forget(engine: &Endpoint, step: &str) {
    let output = Command::new("docker")
        .args(["--host", &engine.address.to_string()])
        .args(["builder", "prune", "--force", "--all", "--filter"])
        .arg(format!("description=\"mount / from exec /bin/sh -c {step}\""))
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.contains("Total"), "{output:?}");
}

/// The registry cache provides a step that the engine's own cache has lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_cache_is_written_and_read() {
    let Some(modern) = Which::Modern.endpoint() else { return };
    let registry = Distribution::start_for_containers();
    let port = registry.address().port();
    let at = |tag: &str| {
        format!(
            "type=registry,ref={}:{port}/cache:{tag},mode=max",
            address_for_containers()
        )
    };
    support::on(Which::Modern, async |lab| {
        let base = lab.shell_image().await;
        let step = format!("echo {}-{port} > /made", std::process::id());
        let again = async |from: &[String]| {
            forget(&modern, &step);
            solve(&lab, &base, &step, cache(from, &[])).await
        };
        solve(&lab, &base, &step, cache(&[], &[at("x")])).await;
        let made = again(&[]).await;
        assert!(
            made.cached_steps < made.steps,
            "the step is not in the engine's cache: {made:?}"
        );
        // A missing cache is skipped, and the next one is used.
        let read = again(&[at("missing"), at("x")]).await;
        assert_eq!(read.cached_steps, made.cached_steps + 1, "{read:?}");
    })
    .await;
}

/// The cache is part of the image, so that `docker push` uploads it.
#[tokio::test(flavor = "multi_thread")]
async fn an_inline_cache_is_part_of_the_image_on_the_hosts_engine() {
    an_inline_cache_is_part_of_the_image(Which::Machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inline_cache_is_part_of_the_image_on_a_modern_engine() {
    an_inline_cache_is_part_of_the_image(Which::Modern).await;
}

async fn an_inline_cache_is_part_of_the_image(which: Which) {
    support::on(which, async |lab| {
        let base = lab.shell_image().await;
        for (to, expected) in [(vec![], false), (vec!["type=inline".to_string()], true)] {
            let solved = solve(&lab, &base, "echo inline > /made", cache(&[], &to)).await;
            let exported = lab.export(&solved.image_id).await.unwrap();
            let key = b"moby.buildkit.cache.v0";
            let found = exported.windows(key.len()).any(|window| window == key);
            assert_eq!(found, expected, "{to:?}");
        }
    })
    .await;
}

/// The error is reported before the build starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_no_builder_can_write_is_rejected() {
    let (Some(machine), Some(modern)) = (Which::Machine.endpoint(), Which::Modern.endpoint()) else {
        return;
    };
    let project = Project::new(&[]);
    project.builder("classic", &machine.address.to_string(), "");
    project.builder("containerd", &modern.address.to_string(), "");
    let plan = |args: &[&str]| {
        let output = project.command(&["plan"]).args(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), stderr)
    };
    let place = "type=registry,ref=registry.example/cache:{distro}-{arch}";

    let (code, stderr) = plan(&["--builder", "classic", "--cache-to", place]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("no builder can write a cache of type=registry"),
        "{stderr}"
    );

    let (code, stderr) = plan(&["--cache-to", place]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stderr.contains("builder classic cannot write a cache of type=registry"),
        "{stderr}"
    );

    let (code, stderr) = plan(&["--cache-to", "registry.example/cache:one"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("would overwrite each other's cache"), "{stderr}");
}

/// Discards the built image.
struct Discard;

#[tonic::async_trait]
impl Receive for Discard {
    async fn receive(&self, _: &str, _: Archive) -> Result<bool, String> {
        Ok(false)
    }
}

/// A directory of this host, by an engine and by a buildkitd.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_cache_is_written_and_read() {
    let Some(modern) = Which::Modern.endpoint() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let bare = crate::support::buildkitd::start(&modern, scratch.path());
    let bare = Daemon::Buildkitd(Buildkitd::connect(bare).await.unwrap().unwrap());
    support::on(Which::Modern, async |lab| {
        let base = lab.shell_image().await;
        for (daemon, name) in [(lab.engine.clone().into(), "engine"), (bare, "buildkitd")] {
            let directory = scratch.path().join(name);
            let at = |key: &str| format!("type=local,{key}={}", directory.display());
            let step = format!("echo {}-{name} > /made", std::process::id());
            let solve = async |from: &[String], to: &[String]| {
                forget(&modern, &step);
                let mut request = lab.request(&format!("FROM {base}\nRUN {step}\n"), &[]);
                request.cache = cache(from, to);
                request.receiver = Some(std::sync::Arc::new(Discard));
                let progress = Recorder::default();
                let solved = buildkit::solve(&daemon, &request, &progress, CancellationToken::new()).await;
                solved.unwrap();
                let steps = progress.steps.into_inner().unwrap();
                let cached = |line: &String| line.contains(&step) && line.ends_with("(cached)");
                (steps.iter().any(cached), progress.notes.into_inner().unwrap())
            };
            // A directory that does not exist yet causes no note.
            let (cached, notes) = solve(&[at("src")], &[at("dest") + ",mode=max"]).await;
            assert!(!cached && notes.is_empty(), "{notes:?}");
            // One run reads and writes the cache, as a pipeline does.
            let (cached, notes) = solve(&[at("src")], &[at("dest") + ",mode=max"]).await;
            assert!(cached && notes.is_empty(), "{name}: {notes:?}");

            let index = std::fs::read_to_string(directory.join("index.json")).unwrap();
            assert_eq!(index.matches("\"latest\"").count(), 1, "{index}");
            // A damaged cache is skipped with a note.
            let index: Value = serde_json::from_str(&index).unwrap();
            let digest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
            let path = directory.join("blobs").join(digest);
            let damaged = std::fs::read_to_string(&path)
                .unwrap()
                .replacen("sha256:", "sha256;", 1);
            std::fs::write(&path, damaged).unwrap();
            let (_, notes) = solve(&[at("src")], &[]).await;
            assert!(notes[0].contains("skipping a cache"), "{notes:?}");
        }

        // A directory with other files is not changed.
        let occupied = scratch.path().join("occupied");
        std::fs::create_dir(&occupied).unwrap();
        std::fs::write(occupied.join("letter.txt"), "").unwrap();
        let mut request = lab.request(&format!("FROM {base}\n"), &[]);
        request.cache = cache(&[], &[format!("type=local,dest={}", occupied.display())]);
        let error = lab.solve(&request).await.unwrap_err().to_string();
        assert!(error.contains("is not empty and not an OCI image layout"), "{error}");
        assert_eq!(std::fs::read_dir(&occupied).unwrap().count(), 1);
    })
    .await;
}
