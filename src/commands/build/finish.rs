//! The targets of an image -> its index and tag in the layout, what is said about it, and its place in a registry.

use jiff::Timestamp;
use oci_spec::image::{Descriptor, ImageConfiguration};

use super::super::image::layout_dir;
use super::super::{Failure, publishing, render};
use super::Build;
use super::target::{Finished, Job};
use crate::attest::{ImageForSbom, Subject, provenance};
use crate::cli::CompressionArg;
use crate::layout::{self, Tree};
use crate::oci::{ImageReference, Platform, RepositoryName};
use crate::plan::ImagePlan;
use crate::publish::{self, Destination, Published};
use crate::report::result::{BaseReport, Built, ImageReport, Outcome, PlatformReport};
use crate::sign::Attestation;
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

    pub(super) fn sboms(
        &self,
        image: &ImagePlan,
        platform: Platform,
        manifest: &Descriptor,
        config: &ImageConfiguration,
        tree: &Tree,
    ) -> anyhow::Result<Vec<Attestation>> {
        if self.key.is_none() {
            return Ok(Vec::new());
        }
        let about = ImageForSbom {
            platform,
            tree,
            config,
            digest: Some(manifest.digest().as_ref()),
        };
        publishing::sboms(&self.repository(image)?.to_string(), manifest, &about)
    }

    pub(super) fn provenance(
        &self,
        job: Job<'_>,
        manifest: &Descriptor,
        built: &Built,
        build_base: &BaseReport,
        (started, finished): (i64, i64),
    ) -> anyhow::Result<Attestation> {
        let run = provenance::Run {
            project: &self.settings.file.project.name,
            builder_id: &self.options.builder_id,
            // One that changes with every run would make another attestation of an image that did not change.
            invocation_id: None,
            builder: &job.builder.as_ref().into(),
            flags: provenance::Flags {
                no_cache: self.options.no_cache,
                locked: self.settings.locked,
                compression: match self.options.compression {
                    CompressionArg::Gzip => "gzip",
                    CompressionArg::Zstd => "zstd",
                },
                base: self.settings.base.as_deref(),
            },
            build_base: Some(build_base),
            started: Timestamp::from_second(started)?,
            finished: Timestamp::from_second(finished)?,
        };
        let subject = Subject::new(&self.repository(job.image)?.to_string(), manifest.digest());
        Ok(Attestation {
            statement: provenance::statement(subject, job.image, job.target, built, &run)?,
            predicate_type: provenance::PREDICATE_TYPE.to_string(),
            subject: manifest.clone(),
        })
    }

    /// The image under its name, and under the further tags.
    pub(super) async fn publish(&self, image: &ImagePlan, ready: Ready) -> anyhow::Result<Published> {
        let repository = self.repository(image)?;
        let tags = std::iter::once(&image.tag).chain(&self.options.extra_tag);
        let destinations: Vec<Destination> = tags
            .map(|tag| Destination {
                repository: repository.clone(),
                tag: tag.clone(),
            })
            .collect();
        let mut subjects = vec![Descriptor::clone(&ready.index)];
        subjects.extend(ready.manifests);
        let artifacts = publishing::artifacts(self.key.clone(), &repository, subjects, ready.attestations).await?;
        let registries = self.context.registries(&self.settings.file);
        let progress = self.context.terminal.line(&image.name);
        Ok(publish::publish(
            &self.layout,
            &ready.index,
            &destinations,
            &artifacts,
            &registries,
            progress.as_ref(),
            &self.context.cancel,
        )
        .await?)
    }

    /// Sets the image's tag in the layout if every platform was built and keeps the contract.
    pub(super) fn finish_image(
        &self,
        image: &ImagePlan,
        targets: Vec<(f64, anyhow::Result<Finished>)>,
    ) -> Result<(ImageReport, Option<Ready>), Failure> {
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
                let index = layout::write_index(&self.layout, &manifests, &image.labels)?;
                self.layout.set_tag(&image.tag, &index)?;
                let ready = Ready {
                    manifests: manifests.to_vec(),
                    index: manifests.map(|_| index),
                    attestations,
                };
                (Outcome::Done, Some(ready))
            }
            _ => (Outcome::BreaksContract, None),
        };
        let layout = format!("oci:{}:{}", layout_dir(&self.options.output).display(), image.tag);
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
