//! Pushes to registries that take blobs and tags in their own ways.

use std::time::{Duration, Instant};

use http::Method;
use obgp_build::layout::Layout;

use crate::MIB;
use crate::support::habits::{Asked, Habit, HabitRegistry};
use crate::support::tool::Tool;

/// Pushes an image whose layers have `filler` bytes, and checks that it arrived. Returns the requests of the push.
async fn pushed(habits: &[Habit], filler: usize) -> Vec<Asked> {
    let tool = Tool::new("");
    let index = tool.project.make("t", 1, filler);
    let registry = HabitRegistry::start(habits.iter().cloned()).await;
    let to = format!("{}/a/b:t", registry.host());
    let pushed = tool.json(&["push", &tool.image("t"), &to]).await;
    assert_eq!(pushed["digest"], index.digest().to_string(), "{habits:?}");
    let requests = registry.take_requests();
    // Reads every layer from the registry.
    assert_eq!(tool.json(&["verify", &to]).await["passed"], true, "{habits:?}");
    requests
}

fn is_upload(request: &Asked) -> bool {
    request.is("PATCH", "/blobs/uploads/") || request.is("PUT", "/blobs/uploads/")
}

/// Bytes of accepted requests.
fn accepted(requests: &[Asked]) -> usize {
    let accepted = requests
        .iter()
        .filter(|request| is_upload(request) && request.status < 300);
    accepted.map(|request| request.sent).sum()
}

/// The bytes of both platforms' blobs: the fillers, and less than 1 MiB.
fn is_once(bytes: usize, filler: usize) -> bool {
    (2 * filler..2 * filler + MIB).contains(&bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_fit_the_limit_of_a_registry_and_no_accepted_chunk_is_sent_again() {
    for (habits, filler, limit, status) in [
        (vec![Habit::ChunkLimit(4 * MIB)], 40 * MIB, 4 * MIB, 416),
        (vec![Habit::ChunkLimit(MIB)], 40 * MIB, MIB, 416),
        (vec![Habit::BodyLimit(MIB)], 3 * MIB, MIB, 413),
        (
            vec![Habit::ChunkLimit(4 * MIB), Habit::StuckRange, Habit::Patch(201)],
            40 * MIB,
            4 * MIB,
            416,
        ),
    ] {
        let requests = pushed(&habits, filler).await;
        assert!(is_once(accepted(&requests), filler), "{habits:?}");
        let uploads: Vec<&Asked> = requests.iter().filter(|request| is_upload(request)).collect();
        assert!(
            uploads
                .iter()
                .all(|request| request.status >= 300 || request.sent <= limit)
        );
        // Both layers, in parallel, for each step down to the limit.
        let refused = uploads.iter().filter(|request| request.status == status).count();
        assert!((1..=4).contains(&refused), "{habits:?}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_success_of_a_chunk_counts_wherever_the_range_stands() {
    for status in [200, 201, 202, 204] {
        let requests = pushed(&[Habit::Patch(status), Habit::StuckRange], 70 * MIB).await;
        let sent: usize = requests.iter().filter(|r| is_upload(r)).map(|r| r.sent).sum();
        assert!(is_once(sent, 70 * MIB), "{status}: {sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_refuses_chunks_gets_each_blob_in_one_request() {
    for status in [400, 403, 404, 405, 415, 501] {
        let requests = pushed(&[Habit::OnlySinglePut(status)], 40 * MIB).await;
        assert!(is_once(accepted(&requests), 40 * MIB), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_mount_becomes_an_upload() {
    for status in [400, 401, 403, 404, 405, 429, 500, 501, 503] {
        let tool = Tool::new("");
        tool.project.make("t", 2, 4096);
        let registry = HabitRegistry::start([Habit::Mount(status)]).await;
        let to = ["a/b", "c/d"].map(|path| format!("{}/{path}:t", registry.host()));
        let started = Instant::now();
        let pushed = tool.json(&["push", &tool.image("t"), &to[0], &to[1]]).await;
        assert!(started.elapsed() < Duration::from_secs(20), "{status}");
        for delivered in pushed["destinations"].as_array().unwrap() {
            assert_eq!(delivered["blobs"]["uploaded"], 6, "{status}");
        }
        let mounts = registry.take_requests();
        assert!(mounts.iter().any(|request| request.is("POST", "mount=")), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_head_does_not_show_is_asked_with_get() {
    let tool = Tool::new("");
    tool.project.make("t", 3, 4096);
    for (status, habit) in [400, 403, 405, 501]
        .into_iter()
        .flat_map(|s| [(s, Habit::HeadBlob(s)), (s, Habit::HeadManifest(s))])
    {
        let registry = HabitRegistry::start([habit]).await;
        let to = format!("{}/a/b:t", registry.host());
        tool.json(&["push", &tool.image("t"), &to]).await;
        registry.take_requests();
        let again = tool.json(&["push", &tool.image("t"), &to]).await;
        assert_eq!(again["destinations"][0]["blobs"]["present"], 6, "{status}");
        assert_eq!(again["bytes_sent"], 0, "{status}");
        let requests = registry.take_requests();
        assert!(!requests.iter().any(|request| request.is("PUT", "")), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_shows_late_is_read_again_before_a_race_is_reported() {
    let tool = Tool::new("");
    tool.project.make("t", 4, 4096);
    let registry = HabitRegistry::start([Habit::LateTags(Duration::from_millis(2500))]).await;
    let to = format!("{}/a/b:t", registry.host());
    let pushed = tool.json(&["push", &tool.image("t"), &to]).await;
    assert_eq!(pushed["destinations"][0]["tag"]["change"], "created");
    // The old image is shown for a while.
    tool.project.make("t", 5, 4096);
    let output = tool.output(&["push", &tool.image("t"), &to]).await;
    let text = crate::support::tool::stderr(&output);
    assert!(output.status.success() && text.contains("reading it again"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_a_layout_of_skopeo_is_pushed_with_the_tag_of_its_name() {
    let tool = Tool::new("");
    let index = tool.project.make("t", 7, 4096);
    let dir = tool.project.image("t").dir;
    Layout::open_or_create(&dir)
        .unwrap()
        .set_tag("docker.io/a/b:7.0", &index)
        .unwrap();
    let registry = HabitRegistry::start([]).await;
    let image = format!("oci:{}:docker.io/a/b:7.0", dir.display());
    let to = format!("{}/c/d", registry.host());
    let pushed = tool.json(&["push", &image, &to]).await;
    assert_eq!(pushed["destinations"][0]["reference"], format!("{to}:7.0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_may_have_an_ipv6_address_and_localhost_is_both_addresses() {
    let tool = Tool::new("");
    tool.project.make("t", 6, 4096);
    let registry = HabitRegistry::start_on("::1", []).await;
    for host in [registry.host(), format!("localhost:{}", registry.port())] {
        let to = format!("{host}/a/b:t");
        let pushed = tool.json(&["push", &tool.image("t"), &to]).await;
        assert_eq!(pushed["destinations"][0]["reference"], to);
        assert_eq!(tool.json(&["verify", &to]).await["passed"], true);
    }
    let old = HabitRegistry::start([]).await;
    let to = format!("localhost:{}/a/b:t", old.port());
    tool.json(&["push", &tool.image("t"), &to]).await;
}

/// 307 and 308 keep method and body; the credentials stay with the registry's own name.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_of_an_upload_is_followed_with_the_body_and_without_the_credentials() {
    let cases = [
        (307, Method::POST),
        (307, Method::PATCH),
        (308, Method::PATCH),
        (308, Method::PUT),
    ];
    let tool = Tool::new("");
    let index = tool.project.make("t", 1, 33 * MIB);
    for (status, method) in cases {
        let habits = [Habit::Redirect(method.clone(), status), Habit::ExpiresIn(Some(300))];
        let registry = HabitRegistry::start(habits).await;
        tool.login(&registry.host());
        let to = format!("{}/a/b:t", registry.host());
        let pushed = tool.json(&["push", &tool.image("t"), &to]).await;
        assert_eq!(pushed["digest"], index.digest().to_string(), "{status} {method}");
        let requests = registry.take_requests();
        let (moved, own): (Vec<_>, Vec<_>) = requests
            .iter()
            .partition(|request| request.host.starts_with("localhost"));
        assert!(
            moved
                .iter()
                .any(|request| request.method == method && request.status < 300),
            "{status} {method}"
        );
        assert!(moved.iter().all(|request| !request.authorized), "{status} {method}");
        assert!(own.iter().any(|request| request.authorized), "{status} {method}");
        assert_eq!(tool.json(&["verify", &to]).await["passed"], true, "{status} {method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_a_push_does_not_create_is_named() {
    let tool = Tool::new("");
    tool.project.make("t", 1, 4096);
    let registry = HabitRegistry::start([Habit::NoNewRepository(404)]).await;
    let to = format!("{}/a/b:t", registry.host());
    let error = tool.failure(1, &["push", &tool.image("t"), &to]).await;
    assert!(error.contains("help: the registry has no such repository"), "{error}");
    registry.put(
        "a/b",
        None,
        "application/vnd.oci.image.manifest.v1+json",
        &serde_json::json!({}),
    );
    tool.json(&["push", &tool.image("t"), &to]).await;
}
