//! Documents about an image: its content (SBOM), and its origin (provenance).
//!
//! ```text
//! Tree + configuration ──sbom──> Sbom ──spdx, cyclonedx──> document ──┐
//! ImagePlan + Target + Run ───provenance──> predicate ───────────────┴─statement──> in-toto statement (unsigned)
//! ```
//!
//! This module never reads layers: the tree from the build or from `verify` is sufficient. Equal images give equal
//! documents, byte for byte.

pub(crate) mod component;
mod copyright;
mod crates;
pub mod cyclonedx;
mod deb;
mod license;
pub mod provenance;
mod pypi;
pub(crate) mod sbom;
pub mod spdx;
pub(crate) mod statement;
mod system;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::image::state::State;
use crate::image::{Image, open};
use crate::sign::Attestation;

pub use license::License;
pub use sbom::{Sbom, SbomError};
pub use statement::{Statement, Subject};

/// The SBOM statements about `subject`, a manifest in the repository: SPDX and CycloneDX.
fn sbom_statements(
    repository: &str,
    subject: &oci_spec::image::Descriptor,
    sbom: &Sbom,
) -> serde_json::Result<Vec<Attestation>> {
    let about = || Subject::new(repository, subject.digest());
    let attestation = |predicate_type: &str, statement| Attestation {
        subject: subject.clone(),
        predicate_type: predicate_type.to_string(),
        statement,
    };
    Ok(vec![
        attestation(spdx::PREDICATE_TYPE, spdx::statement(about(), sbom)?),
        attestation(cyclonedx::PREDICATE_TYPE, cyclonedx::statement(about(), sbom)?),
    ])
}

/// The SBOM statements of an image, about its manifest.
pub fn sboms(repository: &str, image: &Image) -> anyhow::Result<Vec<Attestation>> {
    let platform = image.platform();
    let manifest = image
        .manifest()
        .context("an image in an engine has no manifest to attest")?;
    let sbom = Sbom::of(image).with_context(|| format!("the SBOM of {platform}"))?;
    for gap in &sbom.gaps {
        tracing::warn!(%platform, "the SBOM is not complete: {gap}");
    }
    Ok(sbom_statements(repository, manifest, &sbom)?)
}

/// The SBOM statements of several images, from the files that `state` has or else from their layers. The files are large:
/// those of one image are read at a time, and freed before the next.
pub async fn sboms_of_all(
    repository: &str,
    images: Vec<Image>,
    state: &State,
    cancel: &CancellationToken,
) -> anyhow::Result<Vec<Attestation>> {
    let mut attestations = Vec::new();
    for image in images {
        image.recall(state);
        for image in open::read(vec![image], cancel).await? {
            attestations.extend(sboms(repository, &image)?);
        }
    }
    Ok(attestations)
}
