//! Builds a Dockerfile and its context, for one platform, into an image, with the BuildKit of a Docker engine or a
//! buildkitd.
//!
//! BuildKit is a gRPC service (`control`; `daemon` connects to it). During a solve it requests the context, secrets and
//! registry credentials over a second connection, where this program is the server, see `session`. Both work alike on
//! every engine since 20.10. An engine takes bases from its store and stores the image there; a buildkitd reads bases
//! in the session (`content`) and sends the image through it (`receive`).

mod cache;
mod content;
pub mod context;
mod control;
mod daemon;
mod dockerfile;
mod error;
mod receive;
mod session;
mod status;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::config::cache::Cache;
use crate::oci::Platform;
use crate::progress::Progress;

use content::LocalCaches;
pub use content::{ImageArchive, LocalCacheError};
pub use daemon::{Buildkitd, Daemon};
pub use error::{DockerfileLines, SolveError, StepFailure};
pub use receive::{Archive, Receive};

/// All inputs of a solve.
#[derive(Clone)]
pub struct SolveRequest {
    /// An uncompressed tar that includes the Dockerfile, see [`context::Context`]. Its owners become owners in the
    /// image. Equal bytes give cache hits.
    pub context: Bytes,
    /// Path of the Dockerfile in the context.
    pub dockerfile: String,
    pub platform: Platform,
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub no_cache: bool,
    pub cache: Cache,
    /// By the `id` in `RUN --mount=type=secret,id=…`.
    pub secrets: BTreeMap<String, SecretBytes>,
    /// The image's name in the engine's store.
    pub image_name: String,
    /// Receives the image instead of the store. Required for a buildkitd.
    pub receiver: Option<Arc<dyn Receive>>,
    /// Bases that BuildKit reads in the session, by their names in `FROM`. Requires BuildKit 0.11.
    pub bases: BTreeMap<String, Arc<ImageArchive>>,
    /// Maximum number of tries of a solve with transient failures; at least one.
    pub attempts: u32,
}

impl fmt::Debug for SolveRequest {
    /// Without contents and values of build arguments: a proxy's URL may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SolveRequest")
            .field("context", &format_args!("{} bytes", self.context.len()))
            .field("dockerfile", &self.dockerfile)
            .field("platform", &self.platform)
            .field("build_args", &self.build_args.keys())
            .field("labels", &self.labels)
            .field("no_cache", &self.no_cache)
            .field("cache", &self.cache)
            .field("secrets", &self.secrets)
            .field("image_name", &self.image_name)
            .field("receiver", &self.receiver.is_some())
            .field("bases", &self.bases.keys())
            .field("attempts", &self.attempts)
            .finish()
    }
}

/// Bytes that `Debug` output hides.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(pub Bytes);

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

/// The result of a solve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solved {
    /// Like [`crate::engine::EngineImage::id`]; stays valid if the name moves to another image. For a streamed image,
    /// the digest of its config.
    pub image_id: String,
    /// Cached steps, and all steps.
    pub cached_steps: usize,
    pub steps: usize,
}

/// Builds `request` on `daemon`. Retries transient failures with growing delays, and notes each in `progress`. On
/// `cancel`, the solve is stopped before this returns.
pub async fn solve(
    daemon: &Daemon,
    request: &SolveRequest,
    progress: &dyn Progress,
    cancel: CancellationToken,
) -> Result<Solved, SolveError> {
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(Duration::from_secs(30))
        .with_max_times(request.attempts.saturating_sub(1) as usize)
        .with_jitter()
        .build();
    let cache = request.cache.clone();
    let caches = Arc::new(content::blocking(move || LocalCaches::open(&cache)).await?);
    for warning in &caches.warnings {
        progress.note(&format!("warning: {}: {warning}", request.platform));
    }
    loop {
        let error = match control::solve_once(daemon, request, &caches, progress, &cancel).await {
            Ok(solved) => return Ok(solved),
            Err(error) if error.is_transient() => error,
            Err(error) => return Err(error),
        };
        let Some(pause) = pauses.next() else {
            return Err(error);
        };
        progress.wait(&format!("{}: {}; retrying", request.platform, error.brief()), pause);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cancel.cancelled() => return Err(SolveError::Cancelled),
        }
    }
}
