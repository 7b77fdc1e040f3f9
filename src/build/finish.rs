//! The targets of an image -> its index and tag in the layout, and its report.

use oci_spec::image::Descriptor;

use super::publisher::Ready;
use super::result::{Built, ImageReport, Outcome, PlatformReport};
use super::target::Finished;
use super::{Build, TargetResult};
use crate::layout::{self, StoreError};
use crate::plan::ImagePlan;
use crate::sign::Attestation;
use crate::util::errors::render;
use crate::verify::Verified;

impl Build {
    /// Sets the image's tag in the layout if every platform was built and keeps the contract. A tag that cannot be set is an
    /// error in the report.
    pub(super) fn finish_image(&self, image: &ImagePlan, targets: Vec<TargetResult>) -> (ImageReport, Option<Ready>) {
        let (platforms, finished) = sort(image, targets);
        let built: Vec<&Built> = platforms.iter().filter_map(|p| p.built.as_ref()).collect();
        let complete = built.len() == platforms.len();
        let (mut manifests, mut attestations) = (Vec::new(), Vec::new());
        for (manifest, stated) in finished {
            manifests.push(manifest);
            attestations.extend(stated);
        }
        let smoked = built.iter().all(|b| b.smoke.iter().all(|s| s.passed));
        let verdicts = built.iter().map(|b| b.verdict.clone()).collect();
        let (outcome, ready, error) = match Verified::admit(manifests, verdicts) {
            _ if !complete => (Outcome::Failed, None, None),
            Ok(manifests) if smoked => match self.tag(image, &manifests) {
                Ok(index) => {
                    let ready = Ready {
                        manifests: manifests.to_vec(),
                        index: manifests.map(|_| index),
                        attestations,
                    };
                    (Outcome::Done, Some(ready), None)
                }
                Err(error) => (Outcome::Failed, None, Some(render(&error.into()))),
            },
            _ => (Outcome::BreaksContract, None, None),
        };
        let layout = format!("oci:{}:{}", self.store.layout.root().display(), image.tag);
        let report = ImageReport {
            name: image.name.clone(),
            distro: image.distro.clone(),
            reference: image.reference.clone(),
            source: image.source.clone(),
            outcome,
            layout: ready.as_ref().map(|_| layout),
            digest: ready.as_ref().map(|ready| ready.index.digest().to_string()),
            verify: Vec::new(),
            published: None,
            error,
            platforms,
        };
        (report, ready)
    }

    fn tag(&self, image: &ImagePlan, manifests: &[Descriptor]) -> Result<Descriptor, StoreError> {
        let index = layout::write_index(&self.store.layout, manifests, &image.labels)?;
        self.store.layout.set_tag(&image.tag, &index)?;
        Ok(index)
    }

    pub(super) fn warn_of_lost_platforms(&self, image: &ImagePlan) {
        let built: Vec<_> = image.targets.iter().map(|target| target.platform).collect();
        let progress = self.run.lines.line(&image.distro);
        self.store
            .layout
            .warn_of_lost_platforms(&image.tag, &built, progress.as_ref());
    }
}

/// The reports on the platforms, and the manifest and attestations of each platform that was built.
fn sort(image: &ImagePlan, targets: Vec<TargetResult>) -> (Vec<PlatformReport>, Vec<(Descriptor, Vec<Attestation>)>) {
    let (mut platforms, mut finished) = (Vec::new(), Vec::new());
    for (target, (seconds, result)) in image.targets.iter().zip(targets) {
        let (error, built) = match result {
            Ok(Finished {
                manifest,
                built,
                attestations,
            }) => {
                finished.push((manifest, attestations));
                (None, Some(built))
            }
            Err(error) => (Some(render(&error)), None),
        };
        platforms.push(PlatformReport {
            platform: target.platform,
            seconds,
            error,
            built,
        });
    }
    (platforms, finished)
}
