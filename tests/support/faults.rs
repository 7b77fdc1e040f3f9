//! A proxy in front of a registry that logs requests and injects faults.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

type Body = BoxBody<Bytes, std::io::Error>;

/// A fault that the proxy injects into a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Responds with this status and these headers, without asking the registry.
    Respond(u16, Vec<(&'static str, String)>),
    /// Forwards this many bytes of the request body, then closes the connection.
    Cut(u64),
    /// Reads this many bytes of the request body, then closes the connection. The registry gets nothing, as behind a
    /// proxy that buffers whole bodies.
    CutBuffered(u64),
    /// Forwards the request and drops the response.
    DropResponse,
    /// Returns this many bytes of the response body, then closes the connection.
    CutResponse(u64),
    /// Changes one byte of the request body.
    CorruptRequest,
    /// Changes one byte of the response body.
    CorruptResponse,
}

/// A request that the proxy received.
#[derive(Clone, Debug)]
pub struct LoggedRequest {
    pub method: Method,
    /// Includes the query.
    pub path: String,
    /// Bytes of the request body that the proxy read.
    pub sent: Arc<AtomicU64>,
    /// Bytes of the response body that the proxy forwarded.
    pub received: Arc<AtomicU64>,
}

impl LoggedRequest {
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }

    /// Whether the request uploads bytes of a blob.
    pub fn is_upload(&self) -> bool {
        self.path.contains("/blobs/uploads/") && matches!(self.method, Method::PATCH | Method::PUT)
    }
}

type Rule = Box<dyn FnMut(&LoggedRequest) -> Option<Fault> + Send>;

pub struct FaultyProxy {
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<LoggedRequest>>>,
    rule: Arc<Mutex<Rule>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl FaultyProxy {
    pub async fn start(registry: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log: Arc<Mutex<Vec<LoggedRequest>>> = Arc::default();
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_| None)));
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let (shared_log, shared_rule) = (log.clone(), rule.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (log, rule, client) = (shared_log.clone(), shared_rule.clone(), client.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let entry = LoggedRequest {
                        method: request.method().clone(),
                        path: request.uri().to_string(),
                        sent: Arc::default(),
                        received: Arc::default(),
                    };
                    log.lock().unwrap().push(entry.clone());
                    let fault = (rule.lock().unwrap())(&entry);
                    forward(client.clone(), registry, request, entry, fault)
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service));
            }
        });
        Self {
            address,
            log,
            rule,
            accepting,
        }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Replaces the rule, which the proxy calls once for each request.
    pub fn set_rule(&self, rule: impl FnMut(&LoggedRequest) -> Option<Fault> + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// Injects the fault into the first `times` requests that match.
    pub fn fail(&self, times: usize, matches: impl Fn(&LoggedRequest) -> bool + Send + 'static, fault: Fault) {
        let mut left = times;
        self.set_rule(move |request| {
            if left > 0 && matches(request) {
                left -= 1;
                return Some(fault.clone());
            }
            None
        });
    }

    /// Returns the requests since the last call.
    pub fn take_requests(&self) -> Vec<LoggedRequest> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Sums the uploaded bytes of blobs.
pub fn uploaded_bytes(requests: &[LoggedRequest]) -> u64 {
    let uploads = requests.iter().filter(|request| request.is_upload());
    uploads.map(|request| request.sent.load(Ordering::Relaxed)).sum()
}

/// Forwards a request with a fault. An error closes the connection without a response.
async fn forward(
    client: Client<HttpConnector, Body>,
    registry: SocketAddr,
    request: Request<Incoming>,
    entry: LoggedRequest,
    fault: Option<Fault>,
) -> Result<Response<Body>, std::io::Error> {
    let broken = |what: &str| std::io::Error::other(what.to_string());
    if let Some(Fault::Respond(status, headers)) = &fault {
        // Read the body, as a server does to keep the connection open.
        let (_, body) = request.into_parts();
        let _ = body.collect().await;
        let mut response = Response::builder().status(*status);
        for (name, value) in headers {
            response = response.header(*name, value);
        }
        return Ok(response.body(empty_body()).unwrap());
    }
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().unwrap().clone();
    // Keep the Host header, so that the registry's Location headers point to this proxy.
    parts.uri = format!("http://{registry}{path}").parse().unwrap();
    let limit = match fault {
        Some(Fault::Cut(n) | Fault::CutBuffered(n)) => n,
        _ => u64::MAX,
    };
    let corrupt = matches!(fault, Some(Fault::CorruptRequest));
    let body = copy_body(body, entry.sent.clone(), limit, corrupt);
    let body = if let Some(Fault::CutBuffered(_)) = fault {
        let mut body = body;
        while let Some(frame) = body.frame().await {
            frame?;
        }
        return Err(broken("the body is shorter than the cut"));
    } else {
        body
    };
    let response = client.request(Request::from_parts(parts, body)).await;
    let response = response.map_err(|e| broken(&e.to_string()))?;
    if matches!(fault, Some(Fault::DropResponse)) {
        return Err(broken("the response is dropped"));
    }
    let (parts, body) = response.into_parts();
    let limit = match fault {
        Some(Fault::CutResponse(n)) => n,
        _ => u64::MAX,
    };
    let corrupt = matches!(fault, Some(Fault::CorruptResponse));
    Ok(Response::from_parts(
        parts,
        copy_body(body, entry.received.clone(), limit, corrupt),
    ))
}

fn empty_body() -> Body {
    Full::new(Bytes::new())
        .map_err(|never: Infallible| match never {})
        .boxed()
}

/// Counts the bytes of a body, corrupts one of them, and fails after `limit` bytes.
fn copy_body(body: Incoming, count: Arc<AtomicU64>, limit: u64, corrupt: bool) -> Body {
    let mut done = !corrupt;
    let stream = BodyStream::new(body).map(move |frame| {
        let frame = frame.map_err(std::io::Error::other)?;
        let Ok(mut data) = frame.into_data() else {
            return Ok(Frame::data(Bytes::new()));
        };
        let before = count.fetch_add(data.len() as u64, Ordering::Relaxed);
        if before + data.len() as u64 > limit {
            return Err(std::io::Error::other("cut"));
        }
        if !done && !data.is_empty() {
            let mut other = data.to_vec();
            other[0] ^= 1;
            data = other.into();
            done = true;
        }
        Ok(Frame::data(data))
    });
    BodyExt::boxed(StreamBody::new(stream))
}
