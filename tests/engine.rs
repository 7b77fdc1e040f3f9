//! Tests the engine and BuildKit clients on the host's engine and on a modern one (`scripts/modern-engine up`).

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use obgp_build::buildkit::{self, Daemon, SolveError};
use obgp_build::engine::{ContainerSpec, ImageStore};
use obgp_build::oci::{Architecture, Platform};
use obgp_build::progress::Silent;
use support::{Lab, Recorder, Which, host_platform, secret};
use tokio_util::sync::CancellationToken;

/// Every test runs on both engines.
macro_rules! on_both_engines {
    ($($test:ident),* $(,)?) => {
        mod machine {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() { super::support::on(super::Which::Machine, super::$test).await })*
        }
        mod modern {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() { super::support::on(super::Which::Modern, super::$test).await })*
        }
    };
}

on_both_engines!(
    an_engine_reports_its_version_and_platforms,
    a_repeated_solve_reuses_the_cache,
    a_secret_is_visible_in_its_step_only,
    a_failed_step_is_reported_with_its_output_and_lines,
    a_dockerfile_syntax_error_shows_the_line,
    a_foreign_platform_without_run_steps_needs_no_emulation,
    a_cancelled_solve_stops_on_the_engine,
    a_container_returns_its_output_and_is_removed,
    parallel_targets_share_common_steps,
    a_dropped_solve_stops_on_the_engine,
    a_step_that_fails_on_the_network_is_retried,
);

async fn an_engine_reports_its_version_and_platforms(lab: Arc<Lab>) {
    let info = lab.engine.info();
    assert!(info.version.starts_with(|c: char| c.is_ascii_digit()), "{info:?}");
    assert_eq!(info.os, "linux");
    assert!(info.data_root.starts_with('/'), "{info:?}");
    let platforms = Daemon::from(lab.engine.clone()).platforms().await.unwrap();
    assert!(platforms.contains(&host_platform().to_string()), "{platforms:?}");
    assert_eq!(lab.engine.inspect_image("obgp-test/no-such-image").await.unwrap(), None);
}

async fn a_repeated_solve_reuses_the_cache(lab: Arc<Lab>) {
    let base = lab.shell_image().await;
    let dockerfile = format!("FROM {base}\nARG WHO\nCOPY greeting /\nRUN echo $WHO > /who\n");
    let mut request = lab.request(&dockerfile, &[("greeting", "hello")]);
    request
        .build_args
        .insert("WHO".into(), format!("test {}", std::process::id()));
    request.labels.insert("org.example.a".into(), "b c".into());
    let first = lab.solve(&request).await.unwrap();
    let image = lab.engine.inspect_image(&request.image_name).await.unwrap().unwrap();
    assert_eq!(image.id, first.image_id);
    assert!(image.is_for(host_platform()));
    assert_eq!(image.labels.get("org.example.a").map(String::as_str), Some("b c"));
    assert_eq!(image.diff_ids.len(), 3);

    let again = lab.solve(&request).await.unwrap();
    // A step of FROM counts too where the engine has unpacked the base before.
    assert!(again.cached_steps >= 2, "{again:?}");
    let same = lab.engine.inspect_image(&request.image_name).await.unwrap().unwrap();
    assert_eq!(same.diff_ids, image.diff_ids);
    if lab.engine.info().store == ImageStore::Classic {
        assert_eq!(again.image_id, first.image_id);
    }

    // The exported archive holds one manifest, no attestations.
    let archive = lab.export(&request.image_name).await.unwrap();
    let manifests = read_entry(&archive, "manifest.json");
    let manifests: serde_json::Value = serde_json::from_slice(&manifests).unwrap();
    assert_eq!(manifests.as_array().unwrap().len(), 1);
    if lab.engine.info().store == ImageStore::Containerd {
        let index: serde_json::Value = serde_json::from_slice(&read_entry(&archive, "index.json")).unwrap();
        let media_type = index["manifests"][0]["mediaType"].as_str().unwrap();
        let of_one_image = media_type.ends_with("manifest.v1+json") || media_type.ends_with("manifest.v2+json");
        assert!(of_one_image, "an index was made: {index}");
    }
    assert!(lab.export("obgp-test/no-such").await.is_err());
}

fn read_entry(archive: &[u8], name: &str) -> Vec<u8> {
    let mut archive = tar::Archive::new(archive);
    let mut entries = archive.entries().unwrap();
    let mut entry = entries
        .find(|e| e.as_ref().unwrap().path().unwrap().to_str() == Some(name))
        .unwrap()
        .unwrap();
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
    content
}

async fn a_secret_is_visible_in_its_step_only(lab: Arc<Lab>) {
    let base = lab.shell_image().await;
    let dockerfile = format!(
        "FROM {base}\n\
         RUN --mount=type=secret,id=given,required=true --mount=type=secret,id=absent \
         grep -q squeamish /run/secrets/given && test ! -e /run/secrets/absent && echo proved > /proof\n"
    );
    let mut request = lab.request(&dockerfile, &[]);
    request.secrets.insert("given".into(), secret("squeamish-ossifrage"));
    assert!(!format!("{request:?}").contains("ossifrage"));
    request.no_cache = true;
    lab.solve(&request).await.unwrap();
    let archive = lab.export(&request.image_name).await.unwrap();
    let has = |needle: &[u8]| archive.windows(needle.len()).any(|window| window == needle);
    assert!(!has(b"squeamish-ossifrage"));
    // The layers of the containerd store are compressed, so search the files in a container as well.
    let spec = spec(
        &request.image_name,
        &[
            "sh",
            "-c",
            "cat /proof; ls /run/secrets; grep -r squeamish /etc /tmp /run",
        ],
    );
    let output = lab.engine.run(&spec, &CancellationToken::new()).await.unwrap();
    assert_eq!(output.stdout.trim(), "proved", "{output:?}");

    let without = buildkit::SolveRequest {
        secrets: Default::default(),
        ..request
    };
    let error = lab.solve(&without).await.unwrap_err().to_string();
    assert!(error.contains("given"), "{error}");
}

async fn a_failed_step_is_reported_with_its_output_and_lines(lab: Arc<Lab>) {
    let base = lab.shell_image().await;
    let dockerfile =
        format!("FROM {base}\nENV A=b\nRUN echo one; \\\n    echo two >&2; \\\n    exit 42\nRUN echo never\n");
    let mut request = lab.request(&dockerfile, &[]);
    request.no_cache = true;
    let recorder = Recorder::default();
    let error = lab.solve_with(&request, &recorder).await.unwrap_err();
    let SolveError::Failed(failure) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(failure.exit_code, Some(42), "{error}");
    assert!(failure.step.as_deref().unwrap().contains("RUN echo one"), "{error}");
    // The lines are from two streams, which have no common order.
    let mut log = failure.log.clone();
    log.sort();
    assert_eq!(log, ["one", "two"], "{error}");
    let lines = failure.lines.as_ref().expect("the Dockerfile's lines");
    assert_eq!((lines.first, lines.text.len()), (3, 3), "{error}");
    assert!(!failure.transient);
    assert!(
        recorder
            .steps
            .lock()
            .unwrap()
            .iter()
            .any(|step| step.contains("RUN echo one"))
    );
    assert!(recorder.lines.lock().unwrap().contains(&"two".to_string()));
}

async fn a_step_that_fails_on_the_network_is_retried(lab: Arc<Lab>) {
    let base = lab.shell_image().await;
    let message = "Err:1 http://archive.example stable InRelease  Temporary failure resolving 'archive.example'";
    let mut request = lab.request(&format!("FROM {base}\nRUN echo \"{message}\"; exit 100\n"), &[]);
    request.attempts = 2;
    let recorder = Recorder::default();
    let error = lab.solve_with(&request, &recorder).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains(message), "{error}");
    let notes = recorder.notes.lock().unwrap();
    assert!(
        matches!(notes.as_slice(), [note] if note.contains("exit code 100; retrying in")),
        "{notes:?}"
    );
}

async fn a_dockerfile_syntax_error_shows_the_line(lab: Arc<Lab>) {
    let error = lab
        .solve(&lab.request("FROM scratch\nCOPPY a b\n", &[]))
        .await
        .unwrap_err();
    let SolveError::Failed(failure) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(failure.lines.as_ref().expect("lines").text, ["COPPY a b"], "{error}");
    assert!(error.to_string().contains("COPPY"), "{error}");
}

async fn a_foreign_platform_without_run_steps_needs_no_emulation(lab: Arc<Lab>) {
    let foreign = Platform(match host_platform().architecture() {
        Architecture::Amd64 => Architecture::Arm64,
        Architecture::Arm64 => Architecture::Amd64,
    });
    let mut request = lab.request("FROM scratch\nCOPY file /\n", &[("file", "x")]);
    request.platform = foreign;
    let solved = lab.solve(&request).await.unwrap();
    let image = lab.engine.inspect_image(&request.image_name).await.unwrap().unwrap();
    assert!(image.is_for(foreign), "{image:?}");
    assert_eq!(image.id, solved.image_id);
}

async fn a_cancelled_solve_stops_on_the_engine(lab: Arc<Lab>) {
    let base = lab.shell_image().await;
    // A unique duration identifies the process.
    let seconds = 100_000 + std::process::id();
    let mut request = lab.request(&format!("FROM {base}\nRUN echo asleep; sleep {seconds}\n"), &[]);
    request.no_cache = true;
    let cancel = CancellationToken::new();
    let recorder = Arc::new(Recorder::default());
    let solving = tokio::spawn({
        let (engine, cancel, recorder) = (lab.engine.clone(), cancel.clone(), recorder.clone());
        async move { buildkit::solve(&engine.into(), &request, recorder.as_ref(), cancel).await }
    });
    until("the step runs", || {
        recorder.lines.lock().unwrap().contains(&"asleep".to_string())
    })
    .await;
    assert!(is_running(seconds), "the process of the step is visible on the host");
    cancel.cancel();
    let cancelled = Instant::now();
    assert!(matches!(solving.await.unwrap(), Err(SolveError::Cancelled)));
    assert!(
        cancelled.elapsed() < Duration::from_secs(10),
        "it took {:?}",
        cancelled.elapsed()
    );
    assert!(!is_running(seconds), "the step still runs on the engine");
}

async fn a_dropped_solve_stops_on_the_engine(lab: Arc<Lab>) {
    let base = lab.shell_image().await;
    let seconds = 200_000 + std::process::id();
    let mut request = lab.request(&format!("FROM {base}\nRUN sleep {seconds}\n"), &[]);
    request.no_cache = true;
    let solving = tokio::spawn({
        let engine = lab.engine.clone();
        async move { buildkit::solve(&engine.into(), &request, &Silent, CancellationToken::new()).await }
    });
    until("the step runs", || is_running(seconds)).await;
    solving.abort();
    until("the step has stopped", || !is_running(seconds)).await;
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited for a minute: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The native stage of two platforms is the same step, which the engine runs once for two sessions. The session that
/// ends first must not end the other.
async fn parallel_targets_share_common_steps(lab: Arc<Lab>) {
    let base = lab.shell_image().await;
    let dockerfile = format!(
        "FROM --platform=$BUILDPLATFORM {base} AS native\nARG NONCE\nCOPY file /\n\
         RUN --mount=type=secret,id=s sleep 1; cat /run/secrets/s /file > /out; echo $NONCE >> /out\n\
         FROM scratch\nARG TARGETARCH\nCOPY --from=native /out /out-$TARGETARCH\n"
    );
    let solves = Architecture::ALL.map(|architecture| {
        let mut request = lab.request(&dockerfile, &[("file", "x")]);
        request.platform = Platform(architecture);
        request.secrets.insert("s".into(), secret("y"));
        request
            .build_args
            .insert("NONCE".into(), std::process::id().to_string());
        let lab = lab.clone();
        async move {
            lab.solve(&request).await.unwrap();
            let image = lab.engine.inspect_image(&request.image_name).await.unwrap().unwrap();
            assert!(image.is_for(request.platform), "{image:?}");
        }
    });
    futures_util::future::join_all(solves).await;
}

/// Whether `sleep SECONDS` runs on this host, in any container.
fn is_running(seconds: u32) -> bool {
    let wanted = format!("sleep\0{seconds}\0");
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|process| std::fs::read(process.path().join("cmdline")).is_ok_and(|line| line == wanted.as_bytes()))
}

fn spec(image: &str, command: &[&str]) -> ContainerSpec {
    ContainerSpec {
        image: image.into(),
        platform: host_platform(),
        user: None,
        read_only_rootfs: true,
        tmpfs: vec![],
        entrypoint: None,
        command: command.iter().map(|word| word.to_string()).collect(),
        env: vec![],
        timeout: Duration::from_secs(60),
    }
}

async fn a_container_returns_its_output_and_is_removed(lab: Arc<Lab>) {
    let base = lab.shell_image().await;
    let confined = ContainerSpec {
        user: Some("42:43".into()),
        tmpfs: vec!["/tmp".into()],
        ..spec(
            &base,
            &[
                "sh",
                "-c",
                "id -u; id -g; touch /tmp/a && echo ok; touch /b || echo ro >&2; exit 7",
            ],
        )
    };
    let output = lab.engine.run(&confined, &CancellationToken::new()).await.unwrap();
    assert_eq!(
        (output.exit_code, output.stdout.as_str()),
        (7, "42\n43\nok\n"),
        "{output:?}"
    );
    assert!(output.stderr.contains("ro"), "{output:?}");

    let endless = ContainerSpec {
        timeout: Duration::from_secs(1),
        ..spec(&base, &["sleep", "1000"])
    };
    let error = lab.engine.run(&endless, &CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("still running after 1 s"), "{error}");
    // An image in use by a container cannot be removed without force.
    assert!(lab.engine.remove_image(&base).await.unwrap());
}
