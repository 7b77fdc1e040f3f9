//! The Docker API client: [`endpoint`] locates the engine, [`EngineInfo`] describes it; images and containers.
//!
//! bollard provides the typed API. It shares one HTTP client over [`Dialer`] with the BuildKit client, so unix sockets,
//! TCP with TLS and ssh behave alike for both.

mod address;
mod container;
mod dialer;
pub mod endpoint;
mod error;
mod images;
pub(crate) mod storage;
mod tar_split;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use address::Address;
pub use container::{ContainerOutput, ContainerSpec};
pub use dialer::{Dialer, Duplex};
pub use endpoint::{Endpoint, Origin};
pub use error::EngineError;
pub use images::EngineImage;

/// Timeout for a response's headers. For `load` and `export` the engine sends them after the work, so this only bounds
/// a hang; the dialer's timeout detects an absent engine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3600);

/// Timeout of simple requests (version, info).
const QUESTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Timeout of a ping; a slower engine counts as gone.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Upper limit of a JSON response, in bytes.
const ANSWER_LIMIT: usize = 16 << 20;

/// Upper limit of the reason for a rejected upgrade, in bytes.
const REFUSAL_LIMIT: usize = 4 << 10;

/// The API of Docker Engine 20.10, the oldest tested version.
const OLDEST_API: ApiVersion = ApiVersion { major: 1, minor: 41 };

type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A connected engine. Clones share the connections.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    http: Client<Connector, Body>,
    docker: Docker,
    info: EngineInfo,
    /// Held during a pull, see [`Engine::pull`].
    pulls: tokio::sync::Mutex<()>,
}

/// The engine's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// The engine's version: `28.5.2`.
    pub version: String,
    pub api_version: ApiVersion,
    pub store: ImageStore,
    /// OCI names: `linux`, `amd64`.
    pub os: String,
    pub architecture: String,
    /// Its data directory, on its own machine.
    pub data_root: String,
    /// The storage driver of its layers: `overlay2`.
    pub storage_driver: String,
    /// Unique to the engine's installation.
    pub id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    pub major: u32,
    pub minor: u32,
}

/// The engine's image store; it decides what an image ID is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageStore {
    /// The graph drivers' store: an image ID is the config's digest.
    Classic,
    /// containerd's store: an image ID is the digest of the manifest or index.
    Containerd,
}

impl Engine {
    /// Connects to the engine of the environment and docker's configuration, see [`Endpoint::from_env`].
    pub async fn from_env() -> Result<Self, EngineError> {
        Self::connect(Endpoint::from_env()?).await
    }

    /// Connects, reads the engine's description, and rejects old versions.
    pub async fn connect(endpoint: Endpoint) -> Result<Self, EngineError> {
        let dialer = Dialer::new(&endpoint.address).map_err(|source| EngineError::unreachable(&endpoint, source))?;
        let http: Client<Connector, Body> = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(Connector(dialer));
        let client = http.clone();
        let docker = Docker::connect_with_custom_transport(
            move |request: bollard::BollardRequest| {
                let client = client.clone();
                async move { Ok(client.request(request.map(|body| body.boxed_unsync())).await?) }
            },
            Some("http://docker"),
            ANSWER_TIMEOUT.as_secs(),
            API_DEFAULT_VERSION,
        )
        .map_err(|e| EngineError::api(&endpoint, "connecting", e))?;
        let info = tokio::time::timeout(QUESTION_TIMEOUT, ask(&docker, &endpoint))
            .await
            .unwrap_or_else(|_| {
                let seconds = QUESTION_TIMEOUT.as_secs();
                let source = std::io::Error::other(format!(
                    "it accepted the connection but did not answer within {seconds} s"
                ));
                Err(EngineError::unreachable(&endpoint, source))
            })?;
        if info.api_version < OLDEST_API {
            return Err(EngineError::TooOld {
                endpoint: endpoint.to_string(),
                version: info.version,
                api: info.api_version,
            });
        }
        tracing::debug!(%endpoint, version = %info.version, store = %info.store, "connected to the engine");
        Ok(Self {
            inner: Arc::new(Inner {
                endpoint,
                http,
                docker,
                info,
                pulls: tokio::sync::Mutex::default(),
            }),
        })
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// The description at the time of connecting.
    pub fn info(&self) -> &EngineInfo {
        &self.inner.info
    }

    /// Whether the engine still answers within seconds.
    pub async fn answers(&self) -> bool {
        matches!(
            tokio::time::timeout(PING_TIMEOUT, self.docker().ping()).await,
            Ok(Ok(_))
        )
    }

    fn docker(&self) -> &Docker {
        &self.inner.docker
    }

    fn api_error(&self, doing: impl Into<String>, source: bollard::errors::Error) -> EngineError {
        EngineError::api(&self.inner.endpoint, doing, source)
    }

    /// For requests that bollard does not support; `None` for 404.
    async fn get_json<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        doing: &str,
    ) -> Result<Option<T>, EngineError> {
        let failed = |e| self.api_error(doing, e);
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = Request::get(format!("http://docker{path}"))
            .body(body)
            .map_err(|e| failed(e.into()))?;
        let answer = async {
            let response = self.inner.http.request(request).await.map_err(|e| failed(e.into()))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
            let body = body.map_err(|e| failed(std::io::Error::other(e).into()))?.to_bytes();
            if status == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            if !status.is_success() {
                return Err(failed(bollard::errors::Error::DockerResponseServerError {
                    status_code: status.as_u16(),
                    message: String::from_utf8_lossy(&body).into_owned(),
                }));
            }
            serde_json::from_slice(&body).map(Some).map_err(|e| failed(e.into()))
        };
        tokio::time::timeout(QUESTION_TIMEOUT, answer)
            .await
            .unwrap_or_else(|_| Err(failed(bollard::errors::Error::RequestTimeoutError)))
    }

    /// Errors of the gRPC services, in the form of [`Self::api_error`].
    pub(crate) fn grpc_error(&self, doing: &str, source: &(dyn std::error::Error + 'static)) -> EngineError {
        EngineError::broken(&self.inner.endpoint, doing, source)
    }

    /// Posts to `path` and returns the connection after the engine has switched it to HTTP/2 (`Upgrade: h2c`). The
    /// engine offers BuildKit's gRPC services in this way.
    pub(crate) async fn upgrade(&self, path: &str, headers: &[(&str, &str)]) -> Result<Upgraded, EngineError> {
        let doing = format!("opening {path}");
        let mut request = Request::post(format!("http://docker{path}"))
            .header(http::header::CONNECTION, "Upgrade")
            .header(http::header::UPGRADE, "h2c");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = request
            .body(body)
            .map_err(|e| self.api_error(doing.clone(), e.into()))?;
        let response = tokio::time::timeout(QUESTION_TIMEOUT, self.inner.http.request(request))
            .await
            .map_err(|_| self.api_error(doing.clone(), bollard::errors::Error::RequestTimeoutError))?
            .map_err(|e| self.api_error(doing.clone(), e.into()))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            let body = Limited::new(response.into_body(), REFUSAL_LIMIT).collect().await;
            return Err(EngineError::NoBuildKit {
                endpoint: self.inner.endpoint.to_string(),
                path: path.to_string(),
                status: status.as_u16(),
                message: body
                    .map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_string())
                    .unwrap_or_default(),
            });
        }
        hyper::upgrade::on(response)
            .await
            .map_err(|e| self.api_error(doing, e.into()))
    }
}

async fn ask(docker: &Docker, endpoint: &Endpoint) -> Result<EngineInfo, EngineError> {
    // Either can take the engine some time.
    let (version, info) = tokio::join!(docker.version(), docker.info());
    let version = version.map_err(|e| EngineError::first_contact(endpoint, e))?;
    let info = info.map_err(|e| EngineError::api(endpoint, "requesting its description", e))?;
    let containerd = info
        .driver_status
        .iter()
        .flatten()
        .any(|pair| matches!(pair.as_slice(), [key, value] if key == "driver-type" && value.starts_with("io.containerd.snapshotter.")));
    let api = version.api_version.unwrap_or_default();
    Ok(EngineInfo {
        version: version.version.unwrap_or_default(),
        api_version: ApiVersion::parse(&api).ok_or_else(|| EngineError::NotDocker {
            endpoint: endpoint.to_string(),
            api,
        })?,
        store: match containerd {
            true => ImageStore::Containerd,
            false => ImageStore::Classic,
        },
        os: version.os.unwrap_or_default(),
        architecture: version.arch.unwrap_or_default(),
        data_root: info.docker_root_dir.unwrap_or_default(),
        storage_driver: info.driver.unwrap_or_default(),
        id: info.id.unwrap_or_default(),
    })
}

impl ApiVersion {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl fmt::Display for ImageStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Classic => "classic",
            Self::Containerd => "containerd",
        })
    }
}

/// [`Dialer`] as a hyper connector. Ignores the URI, because there is one engine.
#[derive(Clone)]
struct Connector(Dialer);

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.0.clone();
        Box::pin(async move { Ok(TokioIo::new(Wire(dialer.dial().await?))) })
    }
}

/// A dialled stream that hyper's client can pool.
struct Wire(Box<dyn Duplex>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
