//! A target's image -> the verdict on it, and its SBOMs if it is going to be signed.

use anyhow::Context as _;

use super::Build;
use crate::image::Image;
use crate::plan::ImagePlan;
use crate::sign::Attestation;
use crate::verify::judge::terms;
use crate::verify::memory::Known;
use crate::verify::{Expectation, Verdict};

pub(super) struct Judged {
    pub verdict: Verdict,
    pub compressed_bytes: u64,
    /// The SBOMs; empty if nothing is signed.
    pub attestations: Vec<Attestation>,
}

impl Build {
    /// Judges the image of a target, or reuses the verdict of an earlier run. The files are read only if the verdict or the
    /// SBOMs need them.
    pub(super) fn judge(&self, plan: &ImagePlan, image: &Image) -> anyhow::Result<Judged> {
        let compressed_bytes = image.compressed_size()?;
        let lock = std::fs::read_to_string(&plan.lock.path)
            .with_context(|| format!("reading {}", plan.lock.path.display()))?;
        let known = Known::new(&self.memory, self.terms(plan, &lock));
        let recalled = known.recall(image);
        if recalled.is_none() || self.inputs.key.is_some() {
            image.recall(&self.state);
        }
        let verdict = match recalled {
            Some(verdict) => verdict,
            None => {
                let verdict = self.inputs.contract.check(image, &self.expectation(plan, &lock)?)?;
                known.remember(std::slice::from_ref(&verdict));
                verdict
            }
        };
        Ok(Judged {
            attestations: self.sboms(plan, image)?,
            verdict,
            compressed_bytes,
        })
    }

    fn expectation<'a>(&'a self, plan: &'a ImagePlan, lock: &'a str) -> anyhow::Result<Expectation<'a>> {
        Ok(Expectation {
            identity: &self.inputs.settings.file.user,
            distro: self.inputs.settings.distro(&plan.distro)?,
            project: &self.inputs.settings.file.project.name,
            reference: Some(&plan.reference),
            labels: &plan.labels,
            lock: Some(lock),
            patches: Some(&plan.patches),
        })
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
        Ok(terms(&self.inputs.settings.file, &self.inputs.contract, &more)?)
    }
}
