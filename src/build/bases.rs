//! Provides the bases of targets: each once per builder, for all targets that use it there.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use super::Run;
use super::target::Job;
use crate::base::lookup::Lookup;
use crate::base::resolve::{self, BaseImage, BasePlan};
use crate::builders::Builder;
use crate::oci::Platform;
use crate::util::errors;

/// A base that several targets wait for.
type PendingBase = Shared<BoxFuture<'static, Result<BaseImage, errors::Shared>>>;

/// Provides the bases of a run.
pub struct Bases {
    run: Arc<Run>,
    /// Remembers what the plan found in registries.
    lookup: Lookup,
    /// Where bootstrapped bases are kept.
    cache: PathBuf,
    requested: Mutex<HashMap<Wanted, PendingBase>>,
}

/// A base that a builder needs.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Wanted {
    builder: String,
    distro: String,
    platform: Platform,
    /// The value of `--base`, if it applies to this base.
    base: Option<String>,
}

/// The bases of a target's stages.
pub(super) struct TargetBases {
    pub image: BaseImage,
    pub build: BaseImage,
    pub runtime: Option<BaseImage>,
}

impl Bases {
    pub fn new(run: &Arc<Run>, lookup: Lookup) -> Self {
        Self {
            run: Arc::clone(run),
            lookup,
            cache: crate::base::cache_directory(),
            requested: Mutex::default(),
        }
    }

    /// Provides the target's bases on its builder, all at the same time within `--jobs`.
    pub(super) async fn of(self: &Arc<Self>, job: Job<'_>) -> anyhow::Result<TargetBases> {
        let Job {
            builder, image, target, ..
        } = job;
        // The plan looked into one builder's engine; another builder's is asked when the target moves there.
        let planned = |plan: &BasePlan| (target.builder == builder.name).then(|| plan.clone());
        let own = |platform, plan| {
            let base = self.run.settings.base.as_deref();
            self.base(builder, &image.distro, base, platform, planned(plan))
        };
        let runtime = target.runtime.base().map(|plan| {
            let distro = &self.run.settings.file.runtime.distro;
            self.base(builder, distro, None, builder.native, planned(plan))
        });
        let runtime = async move {
            match runtime {
                Some(base) => base.await.map(Some),
                None => Ok(None),
            }
        };
        let (image, build, runtime) = tokio::join!(
            own(target.platform, &target.base),
            own(builder.native, &target.build_base),
            runtime
        );
        Ok(TargetBases {
            image: image?,
            build: build?,
            runtime: runtime?,
        })
    }

    fn base(
        self: &Arc<Self>,
        builder: &Arc<Builder>,
        distro: &str,
        base: Option<&str>,
        platform: Platform,
        plan: Option<BasePlan>,
    ) -> PendingBase {
        let wanted = Wanted {
            builder: builder.name.clone(),
            distro: distro.to_string(),
            platform,
            base: base.map(str::to_string),
        };
        let mut pending = self.requested.lock().unwrap_or_else(|e| e.into_inner());
        let begin = || {
            let (bases, builder, wanted) = (Arc::clone(self), Arc::clone(builder), wanted.clone());
            let task = tokio::spawn(async move { bases.provide(&builder, &wanted, plan).await });
            async move {
                let provided = task.await.unwrap_or_else(|e| Err(e.into()));
                provided.map_err(errors::Shared::from)
            }
            .boxed()
            .shared()
        };
        pending.entry(wanted.clone()).or_insert_with(begin).clone()
    }

    async fn provide(&self, builder: &Builder, wanted: &Wanted, plan: Option<BasePlan>) -> anyhow::Result<BaseImage> {
        let _permit = self.run.jobs.acquire().await?;
        let progress = self
            .run
            .lines
            .line(&format!("{} {} base", wanted.distro, wanted.platform));
        let request = resolve::Request {
            distro_name: &wanted.distro,
            distro: self.run.settings.distro(&wanted.distro)?,
            base: wanted.base.as_deref(),
            mode: self.run.settings.bootstrap,
            cache: &self.cache,
            lookup: &self.lookup,
        };
        let plan = match plan {
            Some(plan) => plan,
            None => resolve::plan(&builder.daemon, &request, wanted.platform).await?,
        };
        let provided = resolve::provide(&builder.daemon, &request, &plan, progress.as_ref(), &self.run.cancel);
        Ok(provided.await?)
    }
}
