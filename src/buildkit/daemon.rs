//! Connects to BuildKit at an endpoint: inside a Docker engine, over connections that the engine upgrades, or a
//! buildkitd, which speaks gRPC directly.
//!
//! A session is HTTP/2 with this program as the server. An engine has `/session` for it; a buildkitd tunnels its bytes
//! in the messages of the stream `Control.Session`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1 as proto;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use futures_util::StreamExt as _;
use hyper_util::rt::TokioIo;
use tokio_util::io::{ReaderStream, StreamReader};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Channel, Endpoint as ChannelEndpoint};
use tonic::{Code, Request};

use crate::engine::{Dialer, Endpoint, Engine, EngineError};

/// Status messages contain log output; BuildKit's client has the same limit.
const MESSAGE_LIMIT: usize = 16 << 20;

/// A solve can be silent for an hour, and a network can fail without a reset: send pings.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(60);

/// Timeout for detecting a buildkitd.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout of the version request; a slower daemon counts as gone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a session per message, and in flight.
const TUNNEL_CHUNK: usize = 64 << 10;
const TUNNEL_BUFFER: usize = 1 << 20;

/// The program that runs BuildKit.
#[derive(Clone)]
pub enum Daemon {
    /// Has an image store for bases and results.
    Engine(Engine),
    /// Has no image store: it reads bases in the session or pulls them, and streams results to this program.
    Buildkitd(Buildkitd),
}

/// A buildkitd that has answered. Clones share only its description.
#[derive(Clone)]
pub struct Buildkitd {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    dialer: Dialer,
    version: String,
    platforms: Vec<String>,
}

impl From<Engine> for Daemon {
    fn from(engine: Engine) -> Self {
        Self::Engine(engine)
    }
}

/// A byte stream in hyper's interface.
pub(super) trait Connection: hyper::rt::Read + hyper::rt::Write + Send + Unpin {}
impl<T: hyper::rt::Read + hyper::rt::Write + Send + Unpin> Connection for T {}

impl Daemon {
    pub fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Engine(engine) => engine.endpoint(),
            Self::Buildkitd(buildkitd) => &buildkitd.inner.endpoint,
        }
    }

    /// The engine that contains BuildKit, if any.
    pub fn engine(&self) -> Option<&Engine> {
        match self {
            Self::Engine(engine) => Some(engine),
            Self::Buildkitd(_) => None,
        }
    }

    /// Whether the daemon still answers within seconds.
    pub async fn answers(&self) -> bool {
        match self {
            Self::Engine(engine) => engine.answers().await,
            Self::Buildkitd(buildkitd) => {
                let asked = ask_version(buildkitd.inner.dialer.clone());
                matches!(tokio::time::timeout(ANSWER_TIMEOUT, asked).await, Ok(Ok(_)))
            }
        }
    }

    /// The platforms whose programs it can run, natively (the first) or with the kernel's binfmt_misc, in OCI's
    /// spelling (`linux/arm64`, `linux/arm/v7`). Builds without RUN steps work for every platform.
    pub async fn platforms(&self) -> Result<Vec<String>, EngineError> {
        match self {
            Self::Buildkitd(buildkitd) => Ok(buildkitd.inner.platforms.clone()),
            Self::Engine(_) => {
                let mut client = self.control().await?;
                let workers = client
                    .list_workers(proto::ListWorkersRequest::default())
                    .await
                    .map_err(|e| self.grpc_error("requesting BuildKit's platforms", &e))?;
                Ok(platforms(workers.into_inner()))
            }
        }
    }

    /// A control client on its own connection, which is closed with the client.
    pub(super) async fn control(&self) -> Result<ControlClient<Channel>, EngineError> {
        let client = match self {
            Self::Engine(engine) => client(engine.upgrade("/grpc", &[]).await?).await,
            Self::Buildkitd(buildkitd) => {
                let connection = buildkitd.inner.dialer.dial().await;
                let connection = connection.map_err(|e| self.grpc_error("connecting", &e))?;
                client(TokioIo::new(connection)).await
            }
        };
        client.map_err(|e| self.grpc_error("starting gRPC", &e))
    }

    /// A connection with BuildKit as the client. `headers` announce the session.
    pub(super) async fn session(&self, headers: &[(&str, &str)]) -> Result<Box<dyn Connection>, EngineError> {
        match self {
            Self::Engine(engine) => Ok(Box::new(engine.upgrade("/session", headers).await?)),
            Self::Buildkitd(_) => {
                let client = self.control().await?;
                let tunnel = tunnel(client, headers).await;
                tunnel.map_err(|status| self.grpc_error("opening a session", &status))
            }
        }
    }

    /// Converts an error of the gRPC services.
    pub(super) fn grpc_error(&self, doing: &str, source: &(dyn std::error::Error + 'static)) -> EngineError {
        match self {
            Self::Engine(engine) => engine.grpc_error(doing, source),
            Self::Buildkitd(buildkitd) => EngineError::buildkitd(&buildkitd.inner.endpoint, doing, source),
        }
    }
}

impl Buildkitd {
    /// `None` if the server does not answer like a buildkitd; an engine does not accept gRPC directly.
    pub async fn connect(endpoint: Endpoint) -> Result<Option<Self>, EngineError> {
        let asked = async {
            let dialer = Dialer::for_grpc(&endpoint.address).ok()?;
            let connection = dialer.dial().await.ok()?;
            let mut client = client(TokioIo::new(connection)).await.ok()?;
            let workers = client.list_workers(proto::ListWorkersRequest::default());
            let platforms = platforms(workers.await.ok()?.into_inner());
            Some((dialer, platforms))
        };
        let Ok(Some((dialer, platforms))) = tokio::time::timeout(PROBE_TIMEOUT, asked).await else {
            return Ok(None);
        };
        let version = match ask_version(dialer.clone()).await {
            Ok(version) => version,
            Err(status) if status.code() == Code::Unimplemented => {
                return Err(EngineError::OldBuildkitd {
                    endpoint: endpoint.to_string(),
                });
            }
            Err(status) => return Err(EngineError::buildkitd(&endpoint, "requesting its version", &status)),
        };
        tracing::debug!(%endpoint, version, "connected to a buildkitd");
        Ok(Some(Self {
            inner: Arc::new(Inner {
                endpoint,
                dialer,
                version,
                platforms,
            }),
        }))
    }

    /// The version it reports: `v0.12.5`; empty if it reports none.
    pub fn version(&self) -> &str {
        &self.inner.version
    }
}

/// Available since BuildKit 0.11, which is also the first version that reads bases in a session.
async fn ask_version(dialer: Dialer) -> Result<String, tonic::Status> {
    let broken = |e: &dyn std::error::Error| tonic::Status::unavailable(e.to_string());
    let connection = dialer.dial().await.map_err(|e| broken(&e))?;
    let mut client = client(TokioIo::new(connection)).await.map_err(|e| broken(&e))?;
    let info = client.info(proto::InfoRequest::default()).await?.into_inner();
    Ok(info.buildkit_version.unwrap_or_default().version)
}

async fn client(connection: impl Connection + 'static) -> Result<ControlClient<Channel>, tonic::transport::Error> {
    let mut once = Some(connection);
    let connector = tower::service_fn(move |_: http::Uri| {
        // tonic would reconnect after a failure; but `solve` decides about retries.
        let connection = once
            .take()
            .ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset));
        std::future::ready(connection)
    });
    let channel = ChannelEndpoint::from_static("http://buildkit")
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_PATIENCE)
        .connect_with_connector(connector)
        .await?;
    Ok(ControlClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT))
}

async fn tunnel(
    mut client: ControlClient<Channel>,
    headers: &[(&str, &str)],
) -> Result<Box<dyn Connection>, tonic::Status> {
    let (ours, theirs) = tokio::io::duplex(TUNNEL_BUFFER);
    let outgoing = ReaderStream::with_capacity(theirs, TUNNEL_CHUNK)
        .filter_map(|chunk| std::future::ready(chunk.ok()))
        .map(|chunk| proto::BytesMessage { data: chunk.to_vec() });
    let mut request = Request::new(outgoing);
    for (name, value) in headers {
        let invalid = || tonic::Status::invalid_argument(format!("{name} has the invalid value {value:?}"));
        let key = AsciiMetadataKey::from_bytes(name.to_lowercase().as_bytes()).map_err(|_| invalid())?;
        let value: AsciiMetadataValue = value.parse().map_err(|_| invalid())?;
        request.metadata_mut().append(key, value);
    }
    let incoming = client.session(request).await?.into_inner();
    let incoming = incoming.map(|message| match message {
        Ok(message) => Ok(io::Cursor::new(message.data)),
        Err(status) => Err(io::Error::other(status)),
    });
    Ok(Box::new(TokioIo::new(tokio::io::join(
        StreamReader::new(incoming),
        ours,
    ))))
}

fn platforms(workers: proto::ListWorkersResponse) -> Vec<String> {
    let mut platforms = Vec::new();
    for platform in workers.record.into_iter().flat_map(|worker| worker.platforms) {
        let mut name = format!("{}/{}", platform.os, platform.architecture);
        if !platform.variant.is_empty() {
            name = format!("{name}/{}", platform.variant);
        }
        if !platforms.contains(&name) {
            platforms.push(name);
        }
    }
    platforms
}
