//! Runs a solve through BuildKit's control API, and reads its status stream.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1 as proto;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use futures_util::future::OptionFuture;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::cache;
use super::content::{self, LocalCaches};
use super::daemon::Daemon;
use super::error::SolveError;
use super::session::{Session, random_id};
use super::status::Tracker;
use super::{SolveRequest, Solved};
use crate::config::cache::{Cache, CacheEntry};
use crate::engine::{EngineError, ImageStore};
use crate::progress::Progress;

/// The time for the engine to finish a completed or cancelled solve: kill its processes, end the status stream.
const WIND_UP: Duration = Duration::from_secs(15);

pub(super) async fn solve_once(
    daemon: &Daemon,
    request: &SolveRequest,
    caches: &Arc<LocalCaches>,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Solved, SolveError> {
    let begun = async {
        let session = Session::open(daemon, request, caches).await?;
        let client = daemon.control().await?;
        Ok::<_, EngineError>((session, client))
    };
    let (session, client) = tokio::select! {
        begun = begun => begun?,
        () = cancel.cancelled() => return Err(SolveError::Cancelled),
    };
    let mut tracker = Tracker::new(progress);
    let message = solve_message(request, &caches.cache, &session, &random_id());
    match run(client, message, &mut tracker, cancel).await {
        Some(Ok(response)) => {
            // BuildKit uses this name for every export; the directory is on this machine.
            let (caches, manifest) = (
                Arc::clone(caches),
                response.exporter_response.get("cache.manifest").cloned(),
            );
            content::blocking(move || caches.finish(manifest.as_deref())).await?;
            solved(daemon, request, response, &tracker).await
        }
        Some(Err(status)) => Err(SolveError::from_status(
            daemon,
            request,
            status,
            &tracker,
            session.is_over(),
        )),
        None => Err(SolveError::Cancelled),
    }
}

/// Runs the solve and reads its status stream to the end. Returns `None` on cancel.
async fn run(
    mut client: ControlClient<Channel>,
    message: proto::SolveRequest,
    tracker: &mut Tracker<'_>,
    cancel: &CancellationToken,
) -> Option<Result<proto::SolveResponse, tonic::Status>> {
    let mut status_client = client.clone();
    let status = status_client.status(proto::StatusRequest {
        r#ref: message.r#ref.clone(),
    });
    // On cancel the solve is dropped. This resets its gRPC stream, and BuildKit cancels the work.
    let mut solve = Some(Box::pin(client.solve(message)));
    let mut status = Some(Box::pin(status));
    let mut updates: Option<tonic::Streaming<proto::StatusResponse>> = None;
    let mut outcome = None;
    let wind_up = tokio::time::sleep(Duration::MAX);
    tokio::pin!(wind_up);
    while solve.is_some() || status.is_some() || updates.is_some() {
        tokio::select! {
            Some(answer) = OptionFuture::from(solve.as_mut()) => {
                outcome = Some(answer.map(tonic::Response::into_inner));
                solve = None;
                wind_up.as_mut().reset(tokio::time::Instant::now() + WIND_UP);
            }
            () = cancel.cancelled(), if solve.is_some() => {
                solve = None;
                wind_up.as_mut().reset(tokio::time::Instant::now() + WIND_UP);
            }
            Some(answer) = OptionFuture::from(status.as_mut()) => {
                status = None;
                match answer {
                    Ok(stream) => updates = Some(stream.into_inner()),
                    Err(error) => tracing::debug!(%error, "no status stream for this solve"),
                }
            }
            Some(update) = OptionFuture::from(updates.as_mut().map(|stream| stream.message())) => {
                match update {
                    Ok(Some(update)) => tracker.update(update),
                    Ok(None) => updates = None,
                    Err(error) => {
                        tracing::debug!(%error, "the status stream broke off");
                        updates = None;
                    }
                }
            }
            () = &mut wind_up => {
                tracing::debug!("the engine did not end the status stream of a finished solve");
                updates = None;
                status = None;
            }
        }
    }
    outcome
}

fn solve_message(request: &SolveRequest, cache: &Cache, session: &Session, reference: &str) -> proto::SolveRequest {
    let mut attrs = HashMap::from([
        ("context".to_string(), session.context_url.clone()),
        ("filename".to_string(), request.dockerfile.clone()),
        ("platform".to_string(), request.platform.to_string()),
        // A base in the engine is used as it is, with both types of image store; BuildKit's default differs between them.
        ("image-resolve-mode".to_string(), "local".to_string()),
    ]);
    if request.no_cache {
        attrs.insert("no-cache".to_string(), String::new());
    }
    attrs.extend(
        request
            .build_args
            .iter()
            .map(|(name, value)| (format!("build-arg:{name}"), value.clone())),
    );
    attrs.extend(
        request
            .labels
            .iter()
            .map(|(name, value)| (format!("label:{name}"), value.clone())),
    );
    for (name, archive) in &request.bases {
        let digest = archive.manifest();
        let store = content::base_store(digest);
        attrs.insert(format!("context:{name}"), format!("oci-layout://{store}@{digest}"));
    }
    if !cache.from.is_empty() {
        // The Dockerfile frontend reads this attribute; the field of the same name is for solves without a frontend.
        attrs.insert("cache-imports".to_string(), cache::imports_attribute(&cache.from));
    }
    // Without an `attest:` attribute the engine adds no attestations, which would turn the image into an index.
    let (exporter, exporter_attrs) = exporter(request);
    proto::SolveRequest {
        r#ref: reference.to_string(),
        session: session.id.clone(),
        frontend: "dockerfile.v0".to_string(),
        frontend_attrs: attrs,
        // All engine versions know these two fields; newer ones read them as an entry of `exporters`.
        exporter_deprecated: exporter.to_string(),
        exporter_attrs_deprecated: exporter_attrs,
        cache: Some(proto::CacheOptions {
            exports: cache.to.iter().map(CacheEntry::to_proto).collect(),
            ..proto::CacheOptions::default()
        }),
        ..proto::SolveRequest::default()
    }
}

/// Exports into the engine's store, or through the session. A streamed image is compressed only for the transfer, and
/// therefore fast.
fn exporter(request: &SolveRequest) -> (&'static str, HashMap<String, String>) {
    let (exporter, attrs): (_, &[(&str, &str)]) = match request.receiver {
        None => ("moby", &[("name", &request.image_name)]),
        Some(_) => ("oci", &[("tar", "true"), ("compression", "zstd")]),
    };
    let attrs = attrs.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    (exporter, attrs.collect())
}

async fn solved(
    daemon: &Daemon,
    request: &SolveRequest,
    response: proto::SolveResponse,
    tracker: &Tracker<'_>,
) -> Result<Solved, SolveError> {
    let answer = response.exporter_response;
    tracing::debug!(?answer, "the exporter's answer");
    // 20.10 returns the config's digest under the key that later became the manifest's.
    let keys: &[&str] = match daemon.engine().map(|engine| engine.info().store) {
        Some(ImageStore::Containerd) => &["containerimage.digest"],
        Some(ImageStore::Classic) | None => &["containerimage.config.digest", "containerimage.digest"],
    };
    let image_id = match keys.iter().find_map(|key| answer.get(*key)) {
        Some(id) => id.clone(),
        None => {
            let found = match daemon.engine() {
                Some(engine) => engine.inspect_image(&request.image_name).await?,
                None => None,
            };
            let missing = || SolveError::NoImage {
                name: request.image_name.clone(),
            };
            found.ok_or_else(missing)?.id
        }
    };
    let (cached_steps, steps) = tracker.counts();
    Ok(Solved {
        image_id,
        cached_steps,
        steps,
    })
}
