//! Serves containerd's content service, which BuildKit calls in a session: it reads bases, and reads and writes local
//! caches.
//!
//! A session has several stores; the metadata of each call names one. The generated code of the vendored crates has no
//! server for it, so its few methods are dispatched here.

mod archive;
mod local;
mod proto;
mod write;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt as _};
use oci_spec::image::Digest;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

pub use archive::ImageArchive;
pub use local::{LocalCacheError, LocalCaches};
use proto::{
    Info, InfoRequest, InfoResponse, ReadContentRequest, ReadContentResponse, WriteContentRequest, WriteContentResponse,
};

use crate::layout::Layout;

/// The methods that the session announces.
pub(super) const METHODS: [&str; 3] = [INFO, READ, WRITE];
const INFO: &str = "/containerd.services.content.v1.Content/Info";
const READ: &str = "/containerd.services.content.v1.Content/Read";
const WRITE: &str = "/containerd.services.content.v1.Content/Write";

/// The metadata key that names the store.
const STORE: &str = "buildkit-attachable-store-id";

/// Bytes of a blob per message. gRPC's default receive limit is 4 MiB.
const CHUNK: u64 = 1 << 20;

/// Maximum length of an accepted message; BuildKit's own limit.
const MESSAGE_LIMIT: usize = 16 << 20;

/// The stores of a session, by ID.
pub(super) type Stores = BTreeMap<String, Store>;

#[derive(Clone)]
pub(super) enum Store {
    /// A base.
    Image(Arc<ImageArchive>),
    /// A local cache. The layout decides whether it is writable.
    Cache(Arc<Layout>),
}

impl Store {
    fn size(&self, digest: &str) -> Option<u64> {
        match self {
            Self::Image(archive) => archive.size(digest),
            Self::Cache(layout) => {
                let path = layout.blob_path(&digest.parse().ok()?).ok()?;
                std::fs::metadata(path).ok().filter(|m| m.is_file()).map(|m| m.len())
            }
        }
    }

    fn read_at(&self, digest: &str, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Image(archive) => archive.read_at(digest, buffer, offset),
            Self::Cache(layout) => {
                let digest = digest.parse().map_err(io::Error::other)?;
                let path = layout.blob_path(&digest).map_err(io::Error::other)?;
                File::open(path)?.read_exact_at(buffer, offset)
            }
        }
    }
}

/// Runs disk work on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The content service.
#[derive(Clone)]
pub(super) struct ContentServer(Arc<Stores>);

impl ContentServer {
    pub fn new(stores: Stores) -> Self {
        Self(Arc::new(stores))
    }
}

impl NamedService for ContentServer {
    const NAME: &'static str = "containerd.services.content.v1.Content";
}

impl tower::Service<http::Request<Body>> for ContentServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let stores = Arc::clone(&self.0);
        Box::pin(async move {
            Ok(match request.uri().path() {
                INFO => {
                    let method = service_fn(move |request| std::future::ready(info(&stores, &request)));
                    Grpc::new(ProstCodec::default()).unary(method, request).await
                }
                READ => {
                    let method = service_fn(move |request| std::future::ready(read(&stores, &request)));
                    Grpc::new(ProstCodec::default()).server_streaming(method, request).await
                }
                WRITE => {
                    let method = service_fn(move |request| std::future::ready(write(&stores, request)));
                    let mut grpc = Grpc::new(ProstCodec::default());
                    grpc = grpc.max_decoding_message_size(MESSAGE_LIMIT);
                    grpc.streaming(method, request).await
                }
                _ => Status::unimplemented("only reading and writing of blobs is supported").into_http(),
            })
        })
    }
}

/// The name of a base's store in `oci-layout://NAME@DIGEST`, in the form of a reference.
pub(super) fn base_store(manifest: &Digest) -> String {
    format!("base-{}", manifest.digest())
}

/// The store of a base, with the ID that BuildKit derives.
pub(super) fn offer_base(base: &Arc<ImageArchive>) -> (String, Store) {
    let id = format!("oci:{}", base_store(base.manifest()));
    (id, Store::Image(Arc::clone(base)))
}

fn store<T>(stores: &Stores, request: &Request<T>) -> Result<Store, Status> {
    let id = request.metadata().get(STORE).and_then(|id| id.to_str().ok());
    let id = id.unwrap_or_default();
    let store = stores.get(id).cloned();
    store.ok_or_else(|| Status::not_found(format!("no store {id:?} in this session")))
}

fn no_blob(digest: &str) -> Status {
    Status::not_found(format!("{digest} is not in this store"))
}

fn info(stores: &Stores, request: &Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
    let digest = &request.get_ref().digest;
    let size = store(stores, request)?.size(digest).ok_or_else(|| no_blob(digest))?;
    Ok(Response::new(InfoResponse {
        info: Some(Info {
            digest: digest.clone(),
            size: i64::try_from(size).unwrap_or(i64::MAX),
        }),
    }))
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Reads from the offset, up to the requested length or the end.
fn read(
    stores: &Stores,
    request: &Request<ReadContentRequest>,
) -> Result<Response<Answers<ReadContentResponse>>, Status> {
    let store = store(stores, request)?;
    let ReadContentRequest { digest, offset, size } = request.get_ref().clone();
    let total = store.size(&digest).ok_or_else(|| no_blob(&digest))?;
    let start = u64::try_from(offset).unwrap_or(0);
    if start > total {
        return Err(Status::out_of_range(format!("{digest} has {total} bytes")));
    }
    let end = match u64::try_from(size) {
        Ok(size @ 1..) => total.min(start.saturating_add(size)),
        _ => total,
    };
    let chunks = futures_util::stream::iter((start..end).step_by(CHUNK as usize));
    let chunks = chunks.then(move |at| {
        let (store, digest) = (store.clone(), digest.clone());
        async move {
            let read = blocking(move || {
                let mut data = vec![0; (end - at).min(CHUNK) as usize];
                store.read_at(&digest, &mut data, at)?;
                Ok::<_, io::Error>(data)
            });
            match read.await {
                Ok(data) => Ok(ReadContentResponse {
                    offset: i64::try_from(at).unwrap_or(i64::MAX),
                    data,
                }),
                Err(error) => Err(Status::data_loss(format!("reading a blob: {error}"))),
            }
        }
    });
    Ok(Response::new(Box::pin(chunks)))
}

/// Each blob has its own thread, because disks block.
fn write(
    stores: &Stores,
    request: Request<Streaming<WriteContentRequest>>,
) -> Result<Response<Answers<WriteContentResponse>>, Status> {
    let Store::Cache(layout) = store(stores, &request)? else {
        return Err(Status::permission_denied("bases are read-only"));
    };
    let mut messages = request.into_inner();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let next = || runtime.block_on(messages.message());
        let answer = |answer| {
            let gone = |_| Status::cancelled("the receiver is gone");
            sender.blocking_send(Ok(answer)).map_err(gone)
        };
        if let Err(status) = write::receive(&layout, next, answer) {
            let _ = sender.blocking_send(Err(status));
        }
    });
    let answers = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    Ok(Response::new(Box::pin(answers)))
}
