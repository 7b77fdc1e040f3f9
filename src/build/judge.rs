//! A target's image -> the verdict on it.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use super::Run;
use crate::image::Image;
use crate::image::state::State;
use crate::plan::ImagePlan;
use crate::verify::judge::terms;
use crate::verify::memory::{Known, Memory};
use crate::verify::{Contract, Expectation, Verdict};

/// What the images of a run are judged by.
pub struct Judging {
    run: Arc<Run>,
    contract: Contract,
    memory: Memory,
}

impl Judging {
    pub fn new(run: &Arc<Run>, contract: Contract, output: &Path) -> Self {
        Self {
            run: Arc::clone(run),
            contract,
            memory: Memory::new(output),
        }
    }

    /// Judges an image, or reuses the verdict of an earlier run. The files are read only if there is no such verdict; `state`
    /// may have them.
    pub(super) fn verdict(&self, plan: &ImagePlan, image: &Image, state: &State) -> anyhow::Result<Verdict> {
        let lock = std::fs::read_to_string(&plan.lock.path)
            .with_context(|| format!("reading {}", plan.lock.path.display()))?;
        let known = Known::new(&self.memory, self.terms(plan, &lock));
        if let Some(verdict) = known.recall(image) {
            return Ok(verdict);
        }
        image.recall(state);
        let expectation = Expectation {
            identity: &self.run.settings.file.user,
            distro: self.run.settings.distro(&plan.distro)?,
            project: &self.run.settings.file.project.name,
            reference: Some(&plan.reference),
            labels: &plan.labels,
            lock: Some(&lock),
            patches: Some(&plan.patches),
        };
        let verdict = self.contract.check(image, &expectation)?;
        known.remember(std::slice::from_ref(&verdict));
        Ok(verdict)
    }

    /// Everything besides the image that decides a verdict of this build, hashed.
    fn terms(&self, plan: &ImagePlan, lock: &str) -> anyhow::Result<[u8; 32]> {
        let more = [
            b"build".to_vec(),
            plan.distro.clone().into_bytes(),
            plan.reference.clone().into_bytes(),
            serde_json::to_vec(&plan.labels)?,
            lock.as_bytes().to_vec(),
            serde_json::to_vec(&plan.patches)?,
        ];
        Ok(terms(&self.run.settings.file, &self.contract, &more)?)
    }
}
