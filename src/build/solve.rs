//! A target and its bases -> the request for its builder, and the solve.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;

use super::Run;
use super::bases::TargetBases;
use super::target::Job;
use crate::buildkit::{self, Receive, SecretBytes, SolveError, SolveRequest, Solved};
use crate::plan;
use crate::plan::build_context::DOCKERFILE;

/// How often a solve that fails for a passing reason is tried.
const ATTEMPTS: u32 = 3;

pub struct Solver {
    pub run: Arc<Run>,
    /// Run every build step again.
    pub no_cache: bool,
}

impl Solver {
    /// Waits for one of the run's jobs, then for the builder.
    pub(super) async fn solve(&self, job: Job<'_>, request: &SolveRequest) -> Result<Solved, SolveError> {
        let Ok(_permit) = self.run.jobs.acquire().await else {
            return Err(SolveError::Cancelled);
        };
        let cancel = self.run.cancel.clone();
        buildkit::solve(&job.builder.daemon, request, job.progress.as_ref(), cancel).await
    }

    /// `receiver` takes the image of a builder that keeps no images.
    pub(super) fn request(
        &self,
        job: Job<'_>,
        bases: &TargetBases,
        receiver: Option<Arc<dyn Receive>>,
    ) -> anyhow::Result<SolveRequest> {
        let Job {
            builder, image, target, ..
        } = job;
        let base = &bases.image;
        let mut labels = image.labels.clone();
        labels.insert("org.opencontainers.image.base.name".into(), base.name.clone());
        labels.insert("org.opencontainers.image.base.digest".into(), base.digest.clone());
        let mut build_args = image.build_args(
            &self.run.settings,
            &plan::Bases {
                image: &base.from,
                build: &bases.build.from,
                runtime: bases.runtime.as_ref().map(|base| base.from.as_str()),
            },
        );
        build_args.extend(self.run.host.proxies.clone());
        let mut cache = target.cache.clone();
        cache.to.retain(|entry| entry.kind.can_be_written_by(&builder.daemon));
        let all = [&bases.image, &bases.build].into_iter().chain(&bases.runtime);
        let offered = all.filter_map(|base| Some((base.from.clone(), base.archive.clone()?)));
        Ok(SolveRequest {
            context: image.context.clone(),
            dockerfile: DOCKERFILE.to_string(),
            platform: target.platform,
            build_args,
            labels,
            no_cache: self.no_cache,
            cache,
            secrets: self.secrets()?,
            image_name: target.engine_tag.clone(),
            receiver,
            bases: offered.collect(),
            attempts: ATTEMPTS,
        })
    }

    fn secrets(&self) -> anyhow::Result<BTreeMap<String, SecretBytes>> {
        let mut secrets = BTreeMap::new();
        if let Some(path) = &self.run.host.ca_bundle {
            let bundle = std::fs::read(path).with_context(|| format!("reading the CA bundle {}", path.display()))?;
            secrets.insert("ca".to_string(), SecretBytes(bundle.into()));
        }
        if let Some(index) = &self.run.host.pip_index {
            secrets.insert("pip_index".to_string(), SecretBytes(index.clone().into()));
        }
        Ok(secrets)
    }
}
