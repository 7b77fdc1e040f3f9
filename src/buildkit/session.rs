//! The session of a solve: the gRPC services that BuildKit calls for the context, secrets and registry credentials, and
//! without an image store for the bases and the result.

use std::collections::BTreeMap;
use std::pin::Pin;

use bollard_buildkit_proto::health::health_check_response::ServingStatus;
use bollard_buildkit_proto::health::health_server::{Health, HealthServer};
use bollard_buildkit_proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::{Secrets, SecretsServer};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use bollard_buildkit_proto::moby::filesync::v1::auth_server::{Auth, AuthServer};
use bollard_buildkit_proto::moby::filesync::v1::file_send_server::FileSendServer;
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use bollard_buildkit_proto::moby::upload::v1::BytesMessage;
use bollard_buildkit_proto::moby::upload::v1::upload_server::{Upload, UploadServer};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use hyper_util::rt::TokioExecutor;
use hyper_util::service::TowerToHyperService;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status, Streaming};

use super::content::{self, ContentServer, LocalCaches};
use super::daemon::Daemon;
use super::receive::Sink;
use super::{SecretBytes, SolveRequest};
use crate::engine::EngineError;
use crate::oci::docker_config::{self, Credentials};

/// Bytes of the upload per message. On old engines, gRPC's default receive limit is 4 MiB.
const UPLOAD_CHUNK: usize = 1 << 20;

/// Maximum size of a message of the result; BuildKit sends 3 MiB.
const RESULT_CHUNK: usize = 16 << 20;

/// The methods of every session. With `GetTokenAuthority`, BuildKit asks whether the client fetches the tokens of a
/// registry; this one only has tokens that are in docker's configuration. For others BuildKit requests credentials and
/// fetches tokens itself.
const METHODS: [&str; 6] = [
    "/grpc.health.v1.Health/Check",
    "/moby.upload.v1.Upload/Pull",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.filesync.v1.Auth/FetchToken",
    "/moby.filesync.v1.Auth/GetTokenAuthority",
];

/// An open session. Dropping it closes the session and its connection.
pub(super) struct Session {
    pub id: String,
    /// The URL from which the Dockerfile frontend fetches the context.
    pub context_url: String,
    server: JoinHandle<()>,
}

impl Session {
    pub async fn open(daemon: &Daemon, request: &SolveRequest, caches: &LocalCaches) -> Result<Self, EngineError> {
        let id = random_id();
        let path = format!("/{id}");
        let mut methods = METHODS.to_vec();
        let mut services = tonic::service::Routes::new(HealthServer::new(Alive))
            .add_service(UploadServer::new(ContextUpload {
                path: path.clone(),
                tar: request.context.clone(),
            }))
            .add_service(SecretsServer::new(SecretStore(request.secrets.clone())))
            .add_service(AuthServer::new(DockerLogins));
        let mut stores = caches.stores();
        stores.extend(request.bases.values().map(content::offer_base));
        if !stores.is_empty() {
            methods.extend(content::METHODS);
            services = services.add_service(ContentServer::new(stores));
        }
        if let Some(receiver) = &request.receiver {
            methods.push("/moby.filesync.v1.FileSend/DiffCopy");
            let sink = FileSendServer::new(Sink(receiver.clone()));
            services = services.add_service(sink.max_decoding_message_size(RESULT_CHUNK));
        }
        let mut headers = vec![
            ("X-Docker-Expose-Session-Uuid", id.as_str()),
            ("X-Docker-Expose-Session-Name", "obgp-build"),
            ("X-Docker-Expose-Session-Sharedkey", ""),
        ];
        headers.extend(
            methods
                .iter()
                .map(|method| ("X-Docker-Expose-Session-Grpc-Method", *method)),
        );
        let connection = daemon.session(&headers).await?;
        let server = tokio::spawn(async move {
            let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(4 << 20)
                .serve_connection(connection, TowerToHyperService::new(services))
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "the session's connection ended");
            }
        });
        Ok(Self {
            context_url: format!("http://buildkit-session{path}"),
            id,
            server,
        })
    }

    /// Whether the engine closed the connection.
    pub fn is_over(&self) -> bool {
        self.server.is_finished()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// 128 bits in hexadecimal. The ID must not be guessable: a client of the engine that knows it can use the session.
pub(super) fn random_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel has random numbers");
    hex::encode(bytes)
}

/// The engine closes sessions that do not answer health checks.
struct Alive;

#[tonic::async_trait]
impl Health for Alive {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse {
            status: ServingStatus::Serving.into(),
        }))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("only Check is offered"))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("only Check is offered"))
    }
}

/// Serves the context's tar at the one path that the solve names.
struct ContextUpload {
    path: String,
    tar: Bytes,
}

#[tonic::async_trait]
impl Upload for ContextUpload {
    type PullStream = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

    async fn pull(&self, request: Request<Streaming<BytesMessage>>) -> Result<Response<Self::PullStream>, Status> {
        let asked = request.metadata().get("urlpath").and_then(|path| path.to_str().ok());
        if asked != Some(self.path.as_str()) {
            return Err(Status::not_found("no such upload in this session"));
        }
        let tar = self.tar.clone();
        let starts = (0..tar.len()).step_by(UPLOAD_CHUNK);
        let chunks = futures_util::stream::iter(starts).map(move |start| {
            let end = tar.len().min(start + UPLOAD_CHUNK);
            Ok(BytesMessage {
                data: tar[start..end].to_vec(),
            })
        });
        Ok(Response::new(Box::pin(chunks)))
    }
}

struct SecretStore(BTreeMap<String, SecretBytes>);

#[tonic::async_trait]
impl Secrets for SecretStore {
    async fn get_secret(&self, request: Request<GetSecretRequest>) -> Result<Response<GetSecretResponse>, Status> {
        let id = &request.get_ref().id;
        // BuildKit treats NotFound as "absent" for optional secrets.
        let secret = self
            .0
            .get(id)
            .ok_or_else(|| Status::not_found(format!("no secret {id:?} was given to this build")))?;
        Ok(Response::new(GetSecretResponse {
            data: secret.0.to_vec(),
        }))
    }
}

/// Credentials from docker's configuration.
struct DockerLogins;

/// The token of a registry in docker's configuration; otherwise the status with which BuildKit requests credentials.
async fn registry_token(host: &str) -> Result<String, Status> {
    match docker_config::for_repository(host, "").await.credentials {
        Some(Credentials::RegistryToken(token)) => Ok(token),
        _ => Err(Status::unavailable(
            "no token of this registry is known; request credentials",
        )),
    }
}

#[tonic::async_trait]
impl Auth for DockerLogins {
    async fn credentials(&self, request: Request<CredentialsRequest>) -> Result<Response<CredentialsResponse>, Status> {
        let found = docker_config::for_repository(&request.get_ref().host, "").await;
        Ok(Response::new(match found.credentials {
            Some(Credentials::Password { username, password }) => CredentialsResponse {
                username,
                secret: password,
            },
            // BuildKit reads a secret without a user name as a refresh token.
            Some(Credentials::IdentityToken(token)) => CredentialsResponse {
                username: String::new(),
                secret: token,
            },
            // BuildKit takes a registry's token only from `fetch_token`.
            Some(Credentials::RegistryToken(_)) | None => CredentialsResponse::default(),
        }))
    }

    async fn fetch_token(&self, request: Request<FetchTokenRequest>) -> Result<Response<FetchTokenResponse>, Status> {
        let token = registry_token(&request.get_ref().host).await?;
        Ok(Response::new(FetchTokenResponse {
            token,
            ..FetchTokenResponse::default()
        }))
    }

    async fn get_token_authority(
        &self,
        request: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        registry_token(&request.get_ref().host).await?;
        // Another session could share this one's tokens if it proved that it has the key. No session has it.
        let mut public_key = vec![0; 32];
        getrandom::fill(&mut public_key).map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(Response::new(GetTokenAuthorityResponse { public_key }))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("credentials only"))
    }
}
