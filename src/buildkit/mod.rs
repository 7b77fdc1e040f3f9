//! One Dockerfile and its context, for one platform -> an image, by the BuildKit of a Docker engine or a buildkitd.
//!
//! BuildKit is a gRPC service (`control`, and `daemon` for how it is reached). What it needs of us during a solve (the
//! context, secrets, registry logins) it asks for on a second connection, where we are the server, see `session`. Both
//! work alike on every engine since 20.10. An engine takes bases from its store and leaves the image there; a buildkitd
//! reads bases in the session (`content`) and sends the image through it (`receive`).

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

/// Everything a solve depends on.
#[derive(Clone)]
pub struct SolveRequest {
    /// An uncompressed tar with the Dockerfile in it, see [`context::Context`]. Owners in it are owners in the image, and
    /// equal bytes give cache hits.
    pub context: Bytes,
    /// Path of the Dockerfile in the context.
    pub dockerfile: String,
    pub platform: Platform,
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// The stage to stop at; the last one if `None`.
    pub target: Option<String>,
    pub no_cache: bool,
    /// Ask the registries whether a base has changed. Otherwise a base that the engine has is taken as it is, on both
    /// kinds of image store (BuildKit's own default differs between them).
    pub pull: bool,
    pub cache: Cache,
    /// By the `id` of `RUN --mount=type=secret,id=…`.
    pub secrets: BTreeMap<String, SecretBytes>,
    /// The name the image gets in the engine's store.
    pub image_name: String,
    /// Takes the image instead of the store. A buildkitd has no other way out for it.
    pub receiver: Option<Arc<dyn Receive>>,
    /// Bases that BuildKit reads out of the session, by what `FROM` calls them. Takes BuildKit 0.11.
    pub bases: BTreeMap<String, Arc<ImageArchive>>,
    /// How often a solve that failed for a passing reason is tried in all; at least once.
    pub attempts: u32,
}

impl fmt::Debug for SolveRequest {
    /// Without the contents, and without the build arguments' values: a proxy's URL may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SolveRequest")
            .field("context", &format_args!("{} bytes", self.context.len()))
            .field("dockerfile", &self.dockerfile)
            .field("platform", &self.platform)
            .field("build_args", &self.build_args.keys())
            .field("labels", &self.labels)
            .field("target", &self.target)
            .field("no_cache", &self.no_cache)
            .field("pull", &self.pull)
            .field("cache", &self.cache)
            .field("secrets", &self.secrets)
            .field("image_name", &self.image_name)
            .field("receiver", &self.receiver.is_some())
            .field("bases", &self.bases.keys())
            .field("attempts", &self.attempts)
            .finish()
    }
}

/// Bytes that no `Debug` output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(pub Bytes);

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

/// What a solve made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solved {
    /// As [`crate::engine::EngineImage::id`]; still right when the name has been given to another image since. Of an image
    /// that was streamed, the digest of its config.
    pub image_id: String,
    /// Steps the engine took from its cache, and steps in all.
    pub cached_steps: usize,
    pub steps: usize,
}

/// Builds `request` on `daemon`. Tried again, with growing pauses that `progress` is told of, when it failed for a reason
/// that passes. When `cancel` fires, BuildKit is told to stop and has stopped when this returns.
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
        progress.note(&format!(
            "{}: {}; trying again in {:.0} s",
            request.platform,
            error.brief(),
            pause.as_secs_f32().ceil()
        ));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cancel.cancelled() => return Err(SolveError::Cancelled),
        }
    }
}
