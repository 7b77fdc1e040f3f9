//! A registry of one image that wants a login and can be told to fail. It speaks as much of the distribution specification
//! as a pull needs.

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
use obgp_build::platform::Platform;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

pub const USER: &str = "me";
pub const PASSWORD: &str = "correct-horse";

pub struct Registry {
    pub port: u16,
    /// While set, manifests are answered with 503.
    pub failing: AtomicBool,
    /// Requests refused because of that.
    pub refused: AtomicUsize,
    /// Requests that came with the right login.
    pub logins: AtomicUsize,
    /// Media type and content by path.
    content: HashMap<String, (&'static str, Bytes)>,
}

impl Registry {
    /// Listens on every address, so that engines in containers reach it. The image is `test/base:1`.
    pub async fn start(platform: Platform, layer: Vec<u8>) -> Arc<Self> {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let digest = |bytes: &[u8]| format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
        let layer_digest = digest(&layer);
        let config = serde_json::json!({
            "architecture": platform.architecture().name(),
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Labels": {"port": port.to_string()}},
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        })
        .to_string();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(config.as_bytes()),
                "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": layer_digest,
                "size": layer.len(),
            }],
        })
        .to_string();
        let blob = |bytes: &[u8]| format!("/v2/test/base/blobs/{}", digest(bytes));
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let content = HashMap::from([
            (
                blob(config.as_bytes()),
                ("application/octet-stream", Bytes::from(config.clone())),
            ),
            (blob(&layer), ("application/octet-stream", Bytes::from(layer))),
            (
                format!("/v2/test/base/manifests/{}", digest(manifest.as_bytes())),
                (manifest_type, Bytes::from(manifest.clone())),
            ),
            (
                "/v2/test/base/manifests/1".to_string(),
                (manifest_type, Bytes::from(manifest)),
            ),
            ("/v2/".to_string(), ("application/json", Bytes::from_static(b"{}"))),
        ]);
        let registry = Arc::new(Self {
            port,
            failing: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
            logins: AtomicUsize::new(0),
            content,
        });
        let serving = registry.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let registry = serving.clone();
                let service =
                    service_fn(move |request| std::future::ready(Ok::<_, Infallible>(registry.answer(&request))));
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service));
            }
        });
        registry
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let plain = |status: StatusCode| Response::builder().status(status).body(Full::default()).unwrap();
        let login = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let given = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        if given != Some(&format!("Basic {login}")) {
            let mut response = plain(StatusCode::UNAUTHORIZED);
            let challenge = header::HeaderValue::from_static("Basic realm=\"test\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            return response;
        }
        self.logins.fetch_add(1, Ordering::Relaxed);
        let path = request.uri().path();
        if self.failing.load(Ordering::Relaxed) && path.contains("/manifests/") {
            self.refused.fetch_add(1, Ordering::Relaxed);
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
