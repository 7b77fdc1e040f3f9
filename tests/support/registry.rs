//! A registry with one image that requires a login and can fail on demand. It implements the parts of the distribution
//! specification that a pull needs.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine as _;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use obgp_build::oci::Architecture;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub const USER: &str = "me";
pub const PASSWORD: &str = "correct-horse";
/// The token that a registry accepts instead, if it requires one.
pub const TOKEN: &str = "a-token-of-the-registry";

pub struct Registry {
    pub port: u16,
    /// While set, the registry requires [`TOKEN`], and no token service has it.
    pub bearer: AtomicBool,
    /// While set, the registry returns 503 for manifests.
    pub failing: AtomicBool,
    /// Number of 503 responses.
    pub failures: AtomicUsize,
    /// Number of requests with the right login.
    pub logins: AtomicUsize,
    /// Media type and content, by path.
    content: HashMap<String, (&'static str, Bytes)>,
}

impl Registry {
    /// Listens on every address, so that engines in containers reach it. Serves `test/base:1`, an index with one image
    /// per platform; all have this layer.
    pub async fn start(layer: Vec<u8>) -> Arc<Self> {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut content = HashMap::from([("/v2/".to_string(), ("application/json", Bytes::from_static(b"{}")))]);
        let mut put = |kind: &str, media_type: &'static str, bytes: Bytes| {
            let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
            let size = bytes.len();
            content.insert(format!("/v2/test/base/{kind}/{digest}"), (media_type, bytes));
            serde_json::json!({"mediaType": media_type, "digest": digest, "size": size})
        };
        let layer = put("blobs", "application/vnd.oci.image.layer.v1.tar", layer.into());
        let manifests = Architecture::ALL.map(|architecture| {
            let config = serde_json::json!({
                "architecture": architecture.name(),
                "os": "linux",
                "config": {"Env": ["PATH=/bin"], "Labels": {"port": port.to_string()}},
                "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
            });
            let config = put(
                "blobs",
                "application/vnd.oci.image.config.v1+json",
                config.to_string().into(),
            );
            let manifest = serde_json::json!({
                "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
            });
            let mut manifest = put("manifests", MANIFEST, manifest.to_string().into());
            manifest["platform"] = serde_json::json!({"os": "linux", "architecture": architecture.name()});
            manifest
        });
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string();
        put("manifests", INDEX, index.clone().into());
        content.insert("/v2/test/base/manifests/1".to_string(), (INDEX, index.into()));
        let registry = Arc::new(Self {
            port,
            bearer: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            failures: AtomicUsize::new(0),
            logins: AtomicUsize::new(0),
            content,
        });
        let serving = registry.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let registry = serving.clone();
                let service =
                    service_fn(move |request| std::future::ready(Ok::<_, Infallible>(registry.respond(&request))));
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service));
            }
        });
        registry
    }

    fn respond<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let plain = |status: StatusCode| Response::builder().status(status).body(Full::default()).unwrap();
        let login = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let given = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let (expected, challenge) = match self.bearer.load(Ordering::Relaxed) {
            true => {
                let realm = format!("Bearer realm=\"http://127.0.0.1:{}/token\",service=\"test\"", self.port);
                (format!("Bearer {TOKEN}"), realm)
            }
            false => (format!("Basic {login}"), "Basic realm=\"test\"".to_string()),
        };
        if given != Some(&expected) {
            let mut response = plain(StatusCode::UNAUTHORIZED);
            let challenge = challenge.parse().unwrap();
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            return response;
        }
        self.logins.fetch_add(1, Ordering::Relaxed);
        let path = request.uri().path();
        if self.failing.load(Ordering::Relaxed) && path.contains("/manifests/") {
            self.failures.fetch_add(1, Ordering::Relaxed);
            return plain(StatusCode::SERVICE_UNAVAILABLE);
        }
        let Some((media_type, content)) = self.content.get(path) else {
            return plain(StatusCode::NOT_FOUND);
        };
        let body = match *request.method() {
            Method::HEAD => Bytes::new(),
            _ => content.clone(),
        };
        Response::builder()
            .header(header::CONTENT_TYPE, *media_type)
            .header(header::CONTENT_LENGTH, content.len())
            .header(
                "Docker-Content-Digest",
                format!("sha256:{}", hex::encode(Sha256::digest(content))),
            )
            .body(Full::new(body))
            .unwrap()
    }
}
