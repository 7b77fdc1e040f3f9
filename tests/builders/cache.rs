//! `--cache-from` and `--cache-to`.

use std::process::Command;

use obgp_build::buildkit::cache::Cache;
use obgp_build::buildkit::{self, Solved};
use obgp_build::engine::Endpoint;
use obgp_build::progress::Silent;
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use crate::project::Project;
use crate::support::distribution::Distribution;
use crate::support::{self, Lab, Which, address_for_containers};

/// A solve with one step.
async fn solve(lab: &Lab, base: &str, step: &str, cache: Cache) -> Solved {
    let mut request = lab.request(&format!("FROM {base}\nRUN {step}\n"), &[]);
    request.cache = cache;
    buildkit::solve(&lab.engine, &request, &Silent, CancellationToken::new())
        .await
        .unwrap()
}

fn cache(from: &[String], to: &[String]) -> Cache {
    let parsed = |entries: &[String]| entries.iter().map(|e| e.parse().unwrap()).collect();
    Cache {
        from: parsed(from),
        to: parsed(to),
    }
}

/// Takes a step out of an engine's own cache.
fn forget(engine: &Endpoint, step: &str) {
    let output = Command::new("docker")
        .args(["--host", &engine.address.to_string()])
        .args(["builder", "prune", "--force", "--all", "--filter"])
        .arg(format!("description=\"mount / from exec /bin/sh -c {step}\""))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("Total"), "{output:?}");
}

/// What an engine built once it need not build again, though its own cache has forgotten it.
#[tokio::test(flavor = "multi_thread")]
async fn a_cache_in_a_registry_is_written_and_read() {
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
        assert!(made.cached_steps < made.steps, "it was not forgotten: {made:?}");
        // A cache that is not there yet is no reason to fail, and none to do without the next.
        let read = again(&[at("missing"), at("x")]).await;
        assert_eq!(read.cached_steps, made.cached_steps + 1, "{read:?}");
    })
    .await;
}

/// The cache goes with the engine's image, to a registry by `docker push`.
#[tokio::test(flavor = "multi_thread")]
async fn an_inline_cache_is_in_the_engine_s_image_on_the_machine() {
    an_inline_cache_is_in_the_engine_s_image(Which::Machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inline_cache_is_in_the_engine_s_image_on_the_modern() {
    an_inline_cache_is_in_the_engine_s_image(Which::Modern).await;
}

async fn an_inline_cache_is_in_the_engine_s_image(which: Which) {
    support::on(which, async |lab| {
        let base = lab.shell_image().await;
        for (to, expected) in [(vec![], false), (vec!["type=inline".to_string()], true)] {
            let solved = solve(&lab, &base, "echo inline > /made", cache(&[], &to)).await;
            let mut exported = Vec::new();
            lab.engine
                .export(&solved.image_id)
                .read_to_end(&mut exported)
                .await
                .unwrap();
            let key = b"moby.buildkit.cache.v0";
            let found = exported.windows(key.len()).any(|window| window == key);
            assert_eq!(found, expected, "{to:?}");
        }
    })
    .await;
}

/// What cannot be done is said before anything starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_nobody_can_write_is_refused() {
    let (Some(machine), Some(modern)) = (Which::Machine.endpoint(), Which::Modern.endpoint()) else {
        return;
    };
    let project = Project::new(&[]);
    project.builder("classic", &machine.address.to_string(), "");
    project.builder("containerd", &modern.address.to_string(), "");
    let refused = |args: &[&str]| {
        let output = project.command(&["plan"]).args(args).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), told)
    };
    let place = "type=registry,ref=registry.example/cache:{distro}-{arch}";

    let (code, told) = refused(&["--builder", "classic", "--cache-to", place]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("no builder can write a cache of type=registry"), "{told}");

    let (code, told) = refused(&["--cache-to", place]);
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("builder classic cannot write a cache of type=registry"),
        "{told}"
    );

    let (code, told) = refused(&["--cache-to", "registry.example/cache:one"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("would overwrite each other's cache"), "{told}");
}
