//! Documents about an image: its content (SBOM), and its origin (provenance).
//!
//! ```text
//! Tree + configuration ──sbom──> Sbom ──spdx, cyclonedx──> document ──┐
//! ImagePlan + Target + Run ───provenance──> predicate ───────────────┴─statement──> in-toto statement (unsigned)
//! ```
//!
//! This module never reads layers: the tree from the build or from `verify` is sufficient. Equal images give equal
//! documents, byte for byte.

pub mod component;
mod copyright;
mod crates;
pub mod cyclonedx;
mod deb;
mod license;
pub mod provenance;
mod pypi;
pub mod sbom;
pub mod spdx;
pub mod statement;
mod system;

use anyhow::Context as _;

use crate::sign::Attestation;

pub use license::License;
pub use sbom::{ImageForSbom, Sbom, SbomError};
pub use statement::{Statement, Subject};

/// The SBOM statements about `subject`, a manifest in the repository: SPDX and CycloneDX.
pub fn sbom_statements(
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

/// The SBOM statements of one platform's image.
pub fn sboms(
    repository: &str,
    manifest: &oci_spec::image::Descriptor,
    image: &ImageForSbom<'_>,
) -> anyhow::Result<Vec<Attestation>> {
    let sbom = Sbom::of(image).with_context(|| format!("the SBOM of {}", image.platform))?;
    for gap in &sbom.gaps {
        tracing::warn!(platform = %image.platform, "the SBOM is not complete: {gap}");
    }
    Ok(sbom_statements(repository, manifest, &sbom)?)
}
