//! One Dockerfile and its context, for one platform -> an image in the engine's store, by the engine's own BuildKit.
//!
//! BuildKit is a gRPC service that the engine offers on an upgraded connection (`/grpc`, see `control`). What it needs
//! of us during a solve (the context, secrets, registry logins) it asks for on a second one (`/session`), where we are
//! the server, see `session`. Both work alike on every engine since 20.10.

pub mod cache;
pub mod context;
mod control;
mod dockerfile;
mod error;
mod session;
mod status;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::engine::{Address, Engine, EngineError};
use crate::platform::Platform;
use crate::progress::Progress;

use cache::Cache;
pub use error::{DockerfileLines, SolveError, StepFailure};

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

/// What a solve left in the engine's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solved {
    /// As [`crate::engine::EngineImage::id`]; still right when the name has been given to another image since.
    pub image_id: String,
    /// Steps the engine took from its cache, and steps in all.
    pub cached_steps: usize,
    pub steps: usize,
}

/// Builds `request` on `engine`. Tried again, with growing pauses that `progress` is told of, when it failed for a reason
/// that passes. When `cancel` fires, the engine is told to stop and has stopped when this returns.
pub async fn solve(
    engine: &Engine,
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
    loop {
        let error = match control::solve_once(engine, request, progress, &cancel).await {
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

/// Whether a BuildKit of its own answers there, without an engine around it.
pub async fn is_buildkitd(address: &Address) -> bool {
    control::answers_alone(address).await
}

impl Engine {
    /// The platforms that the engine's BuildKit can run steps of, natively or through the kernel's binfmt_misc, in OCI's
    /// spelling (`linux/arm64`, `linux/arm/v7`). Steps that run nothing can be built for any platform.
    pub async fn worker_platforms(&self) -> Result<Vec<String>, EngineError> {
        control::worker_platforms(self).await
    }
}
