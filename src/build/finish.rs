//! The targets of an image -> its index and tag in the layout, what is said about it, and its place in a registry.

use jiff::Timestamp;
use oci_spec::image::Descriptor;

use super::Build;
use super::layout_dir;
use super::result::{Built, ImageReport, Outcome, PlatformReport};
use super::target::{Finished, Job};
use crate::attest::{self, Subject, provenance};
use crate::base::BaseReport;
use crate::image::Image;
use crate::layout::{self, Compression};
use crate::oci::{ImageReference, RepositoryName};
use crate::plan::ImagePlan;
use crate::publish::{self, Destination, Published};
use crate::sign::{self, Attestation};
use crate::util::errors::render;
use crate::verify::Verified;

/// A tagged image that may be published.
pub(super) struct Ready {
    index: Verified<Descriptor>,
    manifests: Vec<Descriptor>,
    attestations: Vec<Attestation>,
}

impl Build {
    fn repository(&self, image: &ImagePlan) -> anyhow::Result<RepositoryName> {
        Ok(image.name.parse::<ImageReference>()?.repository)
    }

    /// Empty if nothing is signed.
    pub(super) fn sboms(&self, plan: &ImagePlan, image: &Image) -> anyhow::Result<Vec<Attestation>> {
        match self.inputs.key {
            Some(_) => attest::sboms(&self.repository(plan)?.to_string(), image),
            None => Ok(Vec::new()),
        }
    }

    pub(super) fn provenance(
        &self,
        job: Job<'_>,
        manifest: &Descriptor,
        (emulated, base): (bool, &BaseReport),
        build_base: &BaseReport,
        (started, finished): (i64, i64),
    ) -> anyhow::Result<Attestation> {
        let run = provenance::Run {
            project: &self.inputs.settings.file.project.name,
            builder_id: &self.inputs.options.builder_id,
            // One that changes with every run would make another attestation of an image that did not change.
            invocation_id: None,
            builder: &job.builder.as_ref().into(),
            flags: provenance::Flags {
                no_cache: self.inputs.options.no_cache,
                locked: self.inputs.settings.locked,
                compression: match self.inputs.options.compression {
                    Compression::Gzip => "gzip",
                    Compression::Zstd => "zstd",
                },
                base: self.inputs.settings.base.as_deref(),
            },
            emulated,
            base,
            build_base: Some(build_base),
            started: Timestamp::from_second(started)?,
            finished: Timestamp::from_second(finished)?,
        };
        let subject = Subject::new(&self.repository(job.image)?.to_string(), manifest.digest());
        Ok(Attestation {
            statement: provenance::statement(subject, job.image, job.target, &run)?,
            predicate_type: provenance::PREDICATE_TYPE.to_string(),
            subject: manifest.clone(),
        })
    }

    /// The image under its name, and under the further tags.
    pub(super) async fn publish(&self, image: &ImagePlan, ready: Ready) -> anyhow::Result<Published> {
        let repository = self.repository(image)?;
        let tags = std::iter::once(&image.tag).chain(&self.inputs.options.extra_tags);
        let destinations: Vec<Destination> = tags
            .map(|tag| Destination {
                repository: repository.clone(),
                tag: tag.clone(),
            })
            .collect();
        let mut subjects = vec![Descriptor::clone(&ready.index)];
        subjects.extend(ready.manifests);
        let artifacts = sign::artifacts(self.inputs.key.clone(), &repository, subjects, ready.attestations).await?;
        let progress = self.inputs.lines.line(&image.name);
        Ok(publish::publish(
            &self.inputs.layout,
            &ready.index,
            &destinations,
            &artifacts,
            &self.inputs.registries,
            progress.as_ref(),
            &self.inputs.cancel,
        )
        .await?)
    }

    /// Sets the image's tag in the layout if every platform was built and keeps the contract.
    pub(super) fn finish_image(
        &self,
        image: &ImagePlan,
        targets: Vec<(f64, anyhow::Result<Finished>)>,
    ) -> anyhow::Result<(ImageReport, Option<Ready>)> {
        let mut platforms = Vec::new();
        let mut manifests = Vec::new();
        let mut attestations = Vec::new();
        for (target, (seconds, result)) in image.targets.iter().zip(targets) {
            let (error, built) = match result {
                Ok(finished) => {
                    manifests.push(finished.manifest);
                    attestations.extend(finished.attestations);
                    (None, Some(finished.built))
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
        let built: Vec<&Built> = platforms.iter().filter_map(|p| p.built.as_ref()).collect();
        let complete = built.len() == platforms.len();
        let smoked = built.iter().all(|b| b.smoke.iter().all(|s| s.passed));
        let verdicts = built.iter().map(|b| b.verdict.clone()).collect();
        let (outcome, ready) = match Verified::admit(manifests, verdicts) {
            _ if !complete => (Outcome::Failed, None),
            Ok(manifests) if smoked => {
                let index = layout::write_index(&self.inputs.layout, &manifests, &image.labels)?;
                self.inputs.layout.set_tag(&image.tag, &index)?;
                let ready = Ready {
                    manifests: manifests.to_vec(),
                    index: manifests.map(|_| index),
                    attestations,
                };
                (Outcome::Done, Some(ready))
            }
            _ => (Outcome::BreaksContract, None),
        };
        let layout = format!(
            "oci:{}:{}",
            layout_dir(&self.inputs.options.output).display(),
            image.tag
        );
        let report = ImageReport {
            name: image.name.clone(),
            distro: image.distro.clone(),
            reference: image.reference.clone(),
            source: image.source.clone(),
            outcome,
            layout: ready.as_ref().map(|_| layout),
            digest: ready.as_ref().map(|ready| ready.index.digest().to_string()),
            published: None,
            error: None,
            platforms,
        };
        Ok((report, ready))
    }
}
