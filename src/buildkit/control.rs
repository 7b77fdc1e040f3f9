//! BuildKit's control API on the engine's `/grpc`: solve with its status stream, workers.

use std::collections::HashMap;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1 as proto;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use futures_util::future::OptionFuture;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::cache::{self, CacheEntry};
use super::error::SolveError;
use super::session::{Session, random_id};
use super::status::Tracker;
use super::{SolveRequest, Solved};
use crate::engine::{Address, Dialer, Engine, EngineError, ImageStore};
use crate::progress::Progress;

/// Status messages carry log output; BuildKit's own client allows as much.
const MESSAGE_LIMIT: usize = 16 << 20;

/// A solve can be silent for an hour, and a network can vanish meanwhile without a word: ask now and then.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(60);

/// How long the engine may take to wind up a solve that is over or cancelled: kill its processes, end the status stream.
const WIND_UP: Duration = Duration::from_secs(15);

/// How long a buildkitd may take to be recognised as one.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A control client on a connection of its own, which ends with it.
async fn connect(engine: &Engine) -> Result<ControlClient<Channel>, EngineError> {
    let connection = engine.upgrade("/grpc", &[]).await?;
    client(connection)
        .await
        .map_err(|e| engine.grpc_error("starting gRPC on /grpc", &e))
}

/// Speaks gRPC right away, as a buildkitd does; an engine does not understand that.
pub(super) async fn answers_alone(address: &Address) -> bool {
    let asked = async {
        let connection = Dialer::for_grpc(address).ok()?.dial().await.ok()?;
        let mut client = client(TokioIo::new(connection)).await.ok()?;
        client.list_workers(proto::ListWorkersRequest::default()).await.ok()
    };
    matches!(tokio::time::timeout(PROBE_TIMEOUT, asked).await, Ok(Some(_)))
}

async fn client<C>(connection: C) -> Result<ControlClient<Channel>, tonic::transport::Error>
where
    C: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let mut once = Some(connection);
    let connector = tower::service_fn(move |_: http::Uri| {
        // tonic would connect again after a break; what to do then is for `solve` to decide.
        let connection = once
            .take()
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        std::future::ready(connection)
    });
    let channel = Endpoint::from_static("http://buildkit")
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_PATIENCE)
        .connect_with_connector(connector)
        .await?;
    Ok(ControlClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT))
}

pub(super) async fn worker_platforms(engine: &Engine) -> Result<Vec<String>, EngineError> {
    let workers = connect(engine)
        .await?
        .list_workers(proto::ListWorkersRequest::default())
        .await
        .map_err(|e| engine.grpc_error("asking BuildKit for its platforms", &e))?;
    let mut platforms = Vec::new();
    for platform in workers
        .into_inner()
        .record
        .into_iter()
        .flat_map(|worker| worker.platforms)
    {
        let mut name = format!("{}/{}", platform.os, platform.architecture);
        if !platform.variant.is_empty() {
            name = format!("{name}/{}", platform.variant);
        }
        if !platforms.contains(&name) {
            platforms.push(name);
        }
    }
    Ok(platforms)
}

pub(super) async fn solve_once(
    engine: &Engine,
    request: &SolveRequest,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Solved, SolveError> {
    let begun = async {
        let session = Session::open(engine, request).await?;
        let client = connect(engine).await?;
        Ok::<_, EngineError>((session, client))
    };
    let (session, mut client) = tokio::select! {
        begun = begun => begun?,
        () = cancel.cancelled() => return Err(SolveError::Cancelled),
    };

    let reference = random_id();
    let mut status_client = client.clone();
    let solve = client.solve(solve_message(request, &session, &reference));
    let status = status_client.status(proto::StatusRequest {
        r#ref: reference.clone(),
    });
    let mut tracker = Tracker::new(progress);

    // The solve is dropped on cancel: that resets its gRPC stream, upon which BuildKit cancels the work.
    let mut solve = Some(Box::pin(solve));
    let mut status = Some(Box::pin(status));
    let mut updates: Option<tonic::Streaming<proto::StatusResponse>> = None;
    let mut outcome = None;
    let wind_up = tokio::time::sleep(Duration::MAX);
    tokio::pin!(wind_up);
    loop {
        tokio::select! {
            Some(answer) = OptionFuture::from(solve.as_mut()) => {
                outcome = Some(answer.map_err(Some));
                solve = None;
                wind_up.as_mut().reset(tokio::time::Instant::now() + WIND_UP);
            }
            () = cancel.cancelled(), if solve.is_some() => {
                outcome = Some(Err(None));
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
        if solve.is_none() && status.is_none() && updates.is_none() {
            break;
        }
    }
    match outcome {
        Some(Ok(response)) => solved(engine, request, response.into_inner(), &tracker).await,
        Some(Err(Some(status))) => Err(SolveError::from_status(
            engine,
            request,
            status,
            &tracker,
            session.is_over(),
        )),
        Some(Err(None)) | None => Err(SolveError::Cancelled),
    }
}

fn solve_message(request: &SolveRequest, session: &Session, reference: &str) -> proto::SolveRequest {
    let mut attrs = HashMap::from([
        ("context".to_string(), session.context_url.clone()),
        ("filename".to_string(), request.dockerfile.clone()),
        ("platform".to_string(), request.platform.to_string()),
        (
            "image-resolve-mode".to_string(),
            if request.pull { "pull" } else { "local" }.to_string(),
        ),
    ]);
    if let Some(target) = &request.target {
        attrs.insert("target".to_string(), target.clone());
    }
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
    if !request.cache.from.is_empty() {
        // The Dockerfile's frontend asks for these by itself; the field of the same name is for solves without one.
        attrs.insert(
            "cache-imports".to_string(),
            cache::imports_attribute(&request.cache.from),
        );
    }
    // No `attest:` attribute: the engine adds attestations, which would turn the image into an index, only on request.
    proto::SolveRequest {
        r#ref: reference.to_string(),
        session: session.id.clone(),
        frontend: "dockerfile.v0".to_string(),
        frontend_attrs: attrs,
        // Engines of every age know this pair of fields; newer ones take it for an entry of `exporters`.
        exporter_deprecated: "moby".to_string(),
        exporter_attrs_deprecated: HashMap::from([("name".to_string(), request.image_name.clone())]),
        cache: Some(proto::CacheOptions {
            exports: request.cache.to.iter().map(CacheEntry::to_proto).collect(),
            ..proto::CacheOptions::default()
        }),
        ..proto::SolveRequest::default()
    }
}

async fn solved(
    engine: &Engine,
    request: &SolveRequest,
    response: proto::SolveResponse,
    tracker: &Tracker<'_>,
) -> Result<Solved, SolveError> {
    let told = response.exporter_response;
    tracing::debug!(?told, "the exporter's answer");
    // 20.10 gives the config's digest under the name that later became the manifest's.
    let keys: &[&str] = match engine.info().store {
        ImageStore::Classic => &["containerimage.config.digest", "containerimage.digest"],
        ImageStore::Containerd => &["containerimage.digest"],
    };
    let image_id = match keys.iter().find_map(|key| told.get(*key)) {
        Some(id) => id.clone(),
        None => match engine.inspect_image(&request.image_name).await? {
            Some(image) => image.id,
            None => {
                return Err(SolveError::NoImage {
                    name: request.image_name.clone(),
                });
            }
        },
    };
    let (cached_steps, steps) = tracker.counts();
    Ok(Solved {
        image_id,
        cached_steps,
        steps,
    })
}
