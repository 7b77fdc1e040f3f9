//! A token service for docker-registry. It issues JSON web tokens, signed with a key whose certificate the registry
//! knows. <https://distribution.github.io/distribution/spec/auth/jwt/>

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, SigningKey};
use serde_json::json;
use tokio::net::TcpListener;

use super::distribution::{PASSWORD, USER};

pub struct TokenServer {
    address: SocketAddr,
    pub certificate: PathBuf,
    state: Arc<State>,
}

struct State {
    key: KeyPair,
    certificate: Vec<u8>,
    issued: AtomicUsize,
    expired: AtomicUsize,
}

impl TokenServer {
    pub async fn start(dir: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let signed = CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        let certificate = dir.join("tokens.pem");
        std::fs::write(&certificate, signed.pem()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = Arc::new(State {
            certificate: signed.der().to_vec(),
            key,
            issued: AtomicUsize::new(0),
            expired: AtomicUsize::new(0),
        });
        let server = Self {
            address: listener.local_addr().unwrap(),
            certificate,
            state: state.clone(),
        };
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let state = state.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    std::future::ready(Ok::<_, Infallible>(state.respond(&request)))
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service));
            }
        });
        server
    }

    pub fn realm(&self) -> String {
        format!("http://{}/token", self.address)
    }

    pub fn issued(&self) -> usize {
        self.state.issued.load(Ordering::SeqCst)
    }

    /// The next `count` tokens are already expired when issued.
    pub fn issue_expired(&self, count: usize) {
        self.state.expired.store(count, Ordering::SeqCst);
    }
}

impl State {
    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let login = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
        let given = request.headers().get(http::header::AUTHORIZATION);
        if given.is_none_or(|value| value.as_bytes() != login.as_bytes()) {
            let unauthorized = Response::builder().status(StatusCode::UNAUTHORIZED);
            return unauthorized.body(Full::default()).unwrap();
        }
        let query = request.uri().query().unwrap_or_default().as_bytes();
        let mut access = Vec::new();
        for (_, scope) in url::form_urlencoded::parse(query).filter(|(name, _)| name == "scope") {
            let mut parts = scope.splitn(3, ':');
            let (kind, name, actions) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
            access.push(json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}));
        }
        self.issued.fetch_add(1, Ordering::SeqCst);
        let expired = self
            .expired
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            .is_ok();
        let now = jiff::Timestamp::now().as_second();
        // The registry tolerates a clock skew of one minute.
        let expires = if expired { now - 120 } else { now + 3600 };
        let claims = json!({
            "iss": "tests", "sub": USER, "aud": "registry", "access": access,
            "iat": now - 200, "nbf": now - 200, "exp": expires, "jti": self.issued.load(Ordering::SeqCst).to_string(),
        });
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(&self.certificate)]});
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(raw_signature(&self.key.sign(signed.as_bytes()).unwrap()));
        let response = json!({"token": format!("{signed}.{signature}"), "expires_in": 3600});
        Response::new(Full::new(response.to_string().into()))
    }
}

/// Converts an ECDSA signature from DER (two integers) to the form of JSON web tokens: 32 bytes for each integer.
fn raw_signature(der: &[u8]) -> [u8; 64] {
    let mut out = [0; 64];
    let mut at = 2;
    for half in out.chunks_mut(32) {
        let length = der[at + 1] as usize;
        let integer = &der[at + 2..at + 2 + length];
        let integer = &integer[integer.len().saturating_sub(32)..];
        half[32 - integer.len()..].copy_from_slice(integer);
        at += 2 + length;
    }
    out
}
