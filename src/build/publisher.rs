//! A finished image -> its statements, signatures, and place in a registry.

use std::sync::Arc;

use jiff::Timestamp;
use oci_spec::image::Descriptor;

use super::target::Job;
use super::{Run, Store};
use crate::attest::{self, Subject, provenance};
use crate::base::BaseReport;
use crate::image::Image;
use crate::image::state::State;
use crate::layout::Compression;
use crate::oci::{ImageReference, RepositoryName};
use crate::plan::ImagePlan;
use crate::publish::{self, Destination, Published};
use crate::registry::Registries;
use crate::sign::{self, Attestation, Key};
use crate::verify::Verified;

/// What becomes of images that passed.
pub struct Publisher {
    pub run: Arc<Run>,
    pub registries: Registries,
    /// Signs what is pushed.
    pub key: Option<Arc<Key>>,
    /// Push what passed, under the image's name.
    pub push: bool,
    /// Further tags for what is pushed.
    pub extra_tags: Vec<String>,
    /// A URI, as the provenance has it.
    pub builder_id: String,
}

/// A tagged image that may be published.
pub(super) struct Ready {
    pub index: Verified<Descriptor>,
    pub manifests: Vec<Descriptor>,
    pub attestations: Vec<Attestation>,
}

/// How one image was made, for its provenance.
pub(super) struct Making<'a> {
    pub base: &'a BaseReport,
    pub build_base: &'a BaseReport,
    pub emulated: bool,
    pub no_cache: bool,
    pub compression: Compression,
    /// When its build began and ended, in seconds since 1970.
    pub times: (i64, i64),
}

impl Publisher {
    /// Reads the image if it is not read yet; `state` may have its files. Empty if nothing is signed.
    pub(super) fn sboms(&self, plan: &ImagePlan, image: &Image, state: &State) -> anyhow::Result<Vec<Attestation>> {
        if self.key.is_none() {
            return Ok(Vec::new());
        }
        image.recall(state);
        attest::sboms(&repository(plan)?.to_string(), image)
    }

    /// `None` if nothing is signed.
    pub(super) fn provenance(
        &self,
        job: Job<'_>,
        manifest: &Descriptor,
        making: &Making<'_>,
    ) -> anyhow::Result<Option<Attestation>> {
        if self.key.is_none() {
            return Ok(None);
        }
        let settings = &self.run.settings;
        let run = provenance::Run {
            project: &settings.file.project.name,
            builder_id: &self.builder_id,
            builder: &job.builder.as_ref().into(),
            flags: provenance::Flags {
                no_cache: making.no_cache,
                locked: settings.locked,
                compression: match making.compression {
                    Compression::Gzip => "gzip",
                    Compression::Zstd => "zstd",
                },
                base: settings.base.as_deref(),
            },
            emulated: making.emulated,
            base: making.base,
            build_base: Some(making.build_base),
            started: Timestamp::from_second(making.times.0)?,
            finished: Timestamp::from_second(making.times.1)?,
        };
        let subject = Subject::new(&repository(job.image)?.to_string(), manifest.digest());
        Ok(Some(Attestation {
            statement: provenance::statement(subject, job.image, job.target, &run)?,
            predicate_type: provenance::PREDICATE_TYPE.to_string(),
            subject: manifest.clone(),
        }))
    }

    /// The image under its name, and under the further tags.
    pub(super) async fn publish(&self, store: &Store, image: &ImagePlan, ready: Ready) -> anyhow::Result<Published> {
        let repository = repository(image)?;
        let tags = std::iter::once(&image.tag).chain(&self.extra_tags);
        let destinations: Vec<Destination> = tags
            .map(|tag| Destination {
                repository: repository.clone(),
                tag: tag.clone(),
            })
            .collect();
        let mut subjects = vec![Descriptor::clone(&ready.index)];
        subjects.extend(ready.manifests);
        let artifacts = sign::artifacts(self.key.clone(), &repository, subjects, ready.attestations).await?;
        let progress = self.run.lines.line(&image.name);
        Ok(publish::publish(
            &store.layout,
            &ready.index,
            &destinations,
            &artifacts,
            &self.registries,
            progress.as_ref(),
            &self.run.cancel,
        )
        .await?)
    }
}

fn repository(image: &ImagePlan) -> anyhow::Result<RepositoryName> {
    Ok(image.name.parse::<ImageReference>()?.repository)
}
