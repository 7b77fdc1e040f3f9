//! A proxy in front of a registry that keeps a list of what is asked, and fails where a test says so.

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

/// What becomes of a request instead of passing on.
#[derive(Clone, Debug)]
pub enum Fault {
    /// An answer that the registry did not give, with these headers.
    Answer(u16, Vec<(&'static str, String)>),
    /// The connection ends after so many bytes of the request's body, which the registry gets.
    Cut(u64),
    /// The same, but as with proxies that pass on whole bodies only: the registry gets nothing.
    CutBuffered(u64),
    /// The registry does what it is asked, and its answer is lost.
    LoseAnswer,
    /// The connection ends after so many bytes of the answer.
    CutAnswer(u64),
    /// One byte of the request's body arrives changed.
    ChangeByte,
    /// One byte of the answer arrives changed.
    ChangeAnswer,
}

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    /// With the query.
    pub path: String,
    /// Bytes of its body that came.
    pub sent: Arc<AtomicU64>,
    /// Bytes of the answer's body that went.
    pub received: Arc<AtomicU64>,
}

impl Asked {
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }

    /// A piece of a blob's upload.
    pub fn uploads(&self) -> bool {
        self.path.contains("/blobs/uploads/") && matches!(self.method, Method::PATCH | Method::PUT)
    }
}

type Rule = Box<dyn FnMut(&Asked) -> Option<Fault> + Send>;

pub struct FaultyProxy {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    rule: Arc<Mutex<Rule>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl FaultyProxy {
    pub async fn start(registry: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_| None)));
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let (kept_asked, kept_rule) = (asked.clone(), rule.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (asked, rule, client) = (kept_asked.clone(), kept_rule.clone(), client.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let entry = Asked {
                        method: request.method().clone(),
                        path: request.uri().to_string(),
                        sent: Arc::default(),
                        received: Arc::default(),
                    };
                    asked.lock().unwrap().push(entry.clone());
                    let fault = (rule.lock().unwrap())(&entry);
                    pass(client.clone(), registry, request, entry, fault)
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service));
            }
        });
        Self {
            address,
            asked,
            rule,
            accepting,
        }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// From now on, this decides. It is asked once for each request.
    pub fn on(&self, rule: impl FnMut(&Asked) -> Option<Fault> + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// The first `times` requests that `which` is true of get the fault.
    pub fn fail(&self, times: usize, which: impl Fn(&Asked) -> bool + Send + 'static, fault: Fault) {
        let mut left = times;
        self.on(move |asked| {
            if left > 0 && which(asked) {
                left -= 1;
                return Some(fault.clone());
            }
            None
        });
    }

    /// What was asked since the last call.
    pub fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The bytes of blobs that were sent.
pub fn uploaded(asked: &[Asked]) -> u64 {
    let uploads = asked.iter().filter(|a| a.uploads());
    uploads.map(|a| a.sent.load(Ordering::Relaxed)).sum()
}

/// An error ends the connection without an answer.
async fn pass(
    client: Client<HttpConnector, Body>,
    registry: SocketAddr,
    request: Request<Incoming>,
    asked: Asked,
    fault: Option<Fault>,
) -> Result<Response<Body>, std::io::Error> {
    let broken = |what: &str| std::io::Error::other(what.to_string());
    if let Some(Fault::Answer(status, headers)) = &fault {
        // The body is taken, as a server does that means to keep the connection.
        let (_, body) = request.into_parts();
        let _ = body.collect().await;
        let mut response = Response::builder().status(*status);
        for (name, value) in headers {
            response = response.header(*name, value);
        }
        return Ok(response.body(whole(Bytes::new())).unwrap());
    }
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().unwrap().clone();
    // The Host header stays: the registry's Locations lead through here again.
    parts.uri = format!("http://{registry}{path}").parse().unwrap();
    let limit = match fault {
        Some(Fault::Cut(n) | Fault::CutBuffered(n)) => n,
        _ => u64::MAX,
    };
    let change = matches!(fault, Some(Fault::ChangeByte));
    let body = pour(body, asked.sent.clone(), limit, change);
    let body = if let Some(Fault::CutBuffered(_)) = fault {
        let mut body = body;
        while let Some(frame) = body.frame().await {
            frame?;
        }
        return Err(broken("shorter than the cut"));
    } else {
        body
    };
    let response = client.request(Request::from_parts(parts, body)).await;
    let response = response.map_err(|e| broken(&e.to_string()))?;
    if matches!(fault, Some(Fault::LoseAnswer)) {
        return Err(broken("the answer is lost"));
    }
    let (parts, body) = response.into_parts();
    let limit = match fault {
        Some(Fault::CutAnswer(n)) => n,
        _ => u64::MAX,
    };
    let change = matches!(fault, Some(Fault::ChangeAnswer));
    Ok(Response::from_parts(
        parts,
        pour(body, asked.received.clone(), limit, change),
    ))
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

/// A body passed on and counted, that breaks after `limit` bytes.
fn pour(body: Incoming, count: Arc<AtomicU64>, limit: u64, change: bool) -> Body {
    let mut changed = !change;
    let stream = BodyStream::new(body).map(move |frame| {
        let frame = frame.map_err(std::io::Error::other)?;
        let Ok(mut data) = frame.into_data() else {
            return Ok(Frame::data(Bytes::new()));
        };
        let before = count.fetch_add(data.len() as u64, Ordering::Relaxed);
        if before + data.len() as u64 > limit {
            return Err(std::io::Error::other("cut"));
        }
        if !changed && !data.is_empty() {
            let mut other = data.to_vec();
            other[0] ^= 1;
            data = other.into();
            changed = true;
        }
        Ok(Frame::data(data))
    });
    BodyExt::boxed(StreamBody::new(stream))
}
