//! The image of a solve as it leaves a BuildKit that has no store for it: its `oci` exporter sends a tar through the
//! session (`moby.filesync.v1.FileSend`) while the solve ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_server::FileSend;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// What the exporter says of the image before it sends it; both are digests.
const CONFIG: &str = "exporter-md-containerimage.config.digest";
const MANIFEST: &str = "exporter-md-containerimage.digest";

/// The tar of an OCI layout.
pub type Archive = BoxStream<'static, io::Result<Bytes>>;

/// Takes images that a solve makes. A solve that is tried again may bring one twice.
#[tonic::async_trait]
pub trait Receive: Send + Sync {
    /// `image` is a digest that only this image has. `false` if it is known and need not be sent. An error ends the solve;
    /// why is for the receiver to remember.
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
        let told = |key| request.metadata().get(key).and_then(|digest| digest.to_str().ok());
        let image = told(CONFIG).or_else(|| told(MANIFEST)).map(str::to_string);
        let image = image.ok_or_else(|| Status::invalid_argument("the exporter does not say which image it sends"))?;
        let chunks = request.into_inner().map(|message| match message {
            Ok(message) => Ok(Bytes::from(message.data)),
            Err(status) => Err(io::Error::other(status)),
        });
        match self.0.receive(&image, chunks.boxed()).await {
            Ok(true) => Ok(Response::new(Box::pin(futures_util::stream::empty()))),
            // Not a failure: the exporter then leaves it.
            Ok(false) => Err(Status::already_exists("the image is known")),
            Err(reason) => Err(Status::aborted(reason)),
        }
    }
}
