//! Receives the image of a solve from a BuildKit without an image store: its `oci` exporter sends a tar through the
//! session (`moby.filesync.v1.FileSend`) at the end of the solve.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_server::FileSend;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// The exporter's metadata before the image; both are digests.
const CONFIG: &str = "exporter-md-containerimage.config.digest";
const MANIFEST: &str = "exporter-md-containerimage.digest";

/// The tar of an OCI layout.
pub type Archive = BoxStream<'static, io::Result<Bytes>>;

/// Receives the images of a solve. A repeated solve may send an image twice.
#[tonic::async_trait]
pub trait Receive: Send + Sync {
    /// `image` is a digest that identifies this image. Returns `false` if the image is known and need not be sent. An
    /// error ends the solve; the receiver must remember its reason.
    async fn receive(&self, image: &str, archive: Archive) -> Result<bool, String>;
}

pub(super) struct Sink(pub Arc<dyn Receive>);

#[tonic::async_trait]
impl FileSend for Sink {
    type DiffCopyStream = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let metadata = |key| request.metadata().get(key).and_then(|digest| digest.to_str().ok());
        let image = metadata(CONFIG).or_else(|| metadata(MANIFEST)).map(str::to_string);
        let image = image.ok_or_else(|| Status::invalid_argument("the exporter's metadata has no image digest"))?;
        let chunks = request.into_inner().map(|message| match message {
            Ok(message) => Ok(Bytes::from(message.data)),
            Err(status) => Err(io::Error::other(status)),
        });
        match self.0.receive(&image, chunks.boxed()).await {
            Ok(true) => Ok(Response::new(Box::pin(futures_util::stream::empty()))),
            // Not a failure: the exporter then skips the transfer.
            Ok(false) => Err(Status::already_exists("the image is known")),
            Err(reason) => Err(Status::aborted(reason)),
        }
    }
}
