//! The bases of targets: each once per builder, however many targets stand on it there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use anyhow::anyhow;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use super::Build;
use crate::base::resolve::{self, BaseImage, BasePlan};
use crate::builders::Builder;
use crate::oci::Platform;
use crate::plan::{ImagePlan, Target};

/// A base that several targets wait for.
type PendingBase = Shared<BoxFuture<'static, Result<BaseImage, String>>>;

/// Those that were asked for until now.
#[derive(Default)]
pub(super) struct Bases(Mutex<HashMap<Wanted, PendingBase>>);

/// A base that is to be in a builder's engine, or in its reach.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Wanted {
    builder: String,
    distro: String,
    platform: Platform,
    /// What `--base` says, for the bases that it is about.
    base: Option<String>,
}

/// What a target's stages stand on.
pub(super) struct TargetBases {
    pub image: BaseImage,
    pub build: BaseImage,
    pub runtime: Option<BaseImage>,
}

impl Build {
    /// The target's bases, with the builder. They begin at once, all within `--jobs`.
    pub(super) async fn bases_of(
        self: &Arc<Self>,
        image: &ImagePlan,
        target: &Target,
        builder: &Arc<Builder>,
    ) -> anyhow::Result<TargetBases> {
        // The plan looked into one builder's engine; what another one has is found out when it is its turn.
        let planned = |plan: &BasePlan| (target.builder == builder.name).then(|| plan.clone());
        let own = |platform, plan| {
            let base = self.inputs.settings.base.as_deref();
            self.base(builder, &image.distro, base, platform, planned(plan))
        };
        let runtime = target.runtime.base().map(|plan| {
            let distro = &self.inputs.settings.file.runtime.distro;
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
        let told = |error: String| anyhow!(error);
        Ok(TargetBases {
            image: image.map_err(told)?,
            build: build.map_err(told)?,
            runtime: runtime.map_err(told)?,
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
        let mut pending = self.bases.0.lock().unwrap_or_else(|e| e.into_inner());
        let begin = || {
            let (build, builder, wanted) = (Arc::clone(self), Arc::clone(builder), wanted.clone());
            let task = tokio::spawn(async move { build.provide_base(&builder, &wanted, plan).await });
            async move { task.await.map_err(|e| e.to_string())? }.boxed().shared()
        };
        pending.entry(wanted.clone()).or_insert_with(begin).clone()
    }

    async fn provide_base(
        &self,
        builder: &Builder,
        wanted: &Wanted,
        plan: Option<BasePlan>,
    ) -> Result<BaseImage, String> {
        let _permit = self.jobs.acquire().await.map_err(|e| e.to_string())?;
        let progress = self
            .inputs
            .lines
            .line(&format!("{} {} base", wanted.distro, wanted.platform));
        let request = resolve::Request {
            distro_name: &wanted.distro,
            distro: self.inputs.settings.distro(&wanted.distro).map_err(|e| e.to_string())?,
            base: wanted.base.as_deref(),
            mode: self.inputs.settings.bootstrap,
            cache: &self.cache,
            lookup: &self.inputs.lookup,
        };
        let plan = match plan {
            Some(plan) => plan,
            None => resolve::plan(&builder.daemon, &request, wanted.platform)
                .await
                .map_err(|e| e.to_string())?,
        };
        resolve::provide(&builder.daemon, &request, &plan, progress.as_ref(), &self.inputs.cancel)
            .await
            .map_err(|e| e.to_string())
    }
}
