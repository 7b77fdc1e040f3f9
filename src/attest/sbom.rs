//! Lists the content of an image, from its file tree and configuration, independent of the document format.

use std::collections::BTreeSet;

use jiff::Timestamp;
use oci_spec::image::ImageConfiguration;

use super::component::{Component, purl};
use super::system::System;
use super::{crates, deb, pypi};
use crate::image::packages::dpkg::{self, DpkgError};
use crate::image::{Image, ImageError};
use crate::oci::Platform;

/// The content of one platform's image. [`super::spdx`] and [`super::cyclonedx`] write it.
#[derive(Clone, Debug)]
pub struct Sbom {
    pub image: ImageFacts,
    pub system: System,
    /// Packages, distributions, crates, in this order, sorted as in the image.
    pub components: Vec<Component>,
    /// Paths that could not be read, with the reason: their content is missing above.
    pub gaps: Vec<String>,
}

/// The subject of the documents.
#[derive(Clone, Debug)]
pub struct ImageFacts {
    pub name: String,
    pub version: Option<String>,
    pub platform: Platform,
    pub digest: Option<String>,
    pub purl: String,
    pub vendor: Option<String>,
    pub homepage: Option<String>,
    /// The creation time of the image, also the documents' date, so that they depend only on the image.
    pub created: Timestamp,
}

#[derive(Debug, thiserror::Error)]
pub enum SbomError {
    #[error("listing the image's packages: {0}")]
    Packages(#[from] DpkgError),
    #[error("listing the image's packages: it has no /etc/os-release that names its distribution")]
    NoSystem,
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl Sbom {
    /// Fails if the packages cannot be listed; other unreadable content is recorded in `gaps`.
    pub fn of(image: &Image) -> Result<Self, SbomError> {
        let contents = image.contents()?;
        let tree = &contents.tree;
        let system = System::read(tree).ok_or(SbomError::NoSystem)?;
        let packages = dpkg::packages(tree)?;
        let (python, mut gaps) = pypi::components(image.platform(), contents, &packages);
        let (rust, more_gaps) = crates::components(tree);
        gaps.extend(more_gaps);
        let mut components = Vec::new();
        for group in [deb::components(tree, &packages, &system), python, rust] {
            let first = components.len();
            components.extend(group.into_iter().map(|mut component: Component| {
                component.depends_on.iter_mut().for_each(|at| *at += first);
                component
            }));
        }
        number_repeated(&mut components);
        Ok(Sbom {
            image: ImageFacts::new(image, &contents.config),
            system,
            components,
            gaps,
        })
    }

    /// `ovn-bgp-agent-7.0.0-linux-amd64`
    pub fn document_name(&self) -> String {
        let version = self.image.version.iter().map(|v| format!("-{v}")).collect::<String>();
        format!("{}{version}-{}", self.image.name, self.image.platform.slug())
    }

    /// The image's date in the format that both document formats accept.
    pub fn created(&self) -> String {
        self.image.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

/// Without this, a status file that lists a package twice would give two components the same identifier.
fn number_repeated(components: &mut [Component]) {
    let mut seen = BTreeSet::new();
    for (at, component) in components.iter_mut().enumerate() {
        if !seen.insert(component.id.clone()) {
            component.id = format!("{}-{at}", component.id);
        }
    }
}

impl ImageFacts {
    fn new(image: &Image, config: &ImageConfiguration) -> Self {
        let labels = config.labels_of_config();
        let label = |name: &str| {
            let value = labels?.get(&format!("org.opencontainers.image.{name}"))?;
            Some(value.clone()).filter(|v| !v.is_empty())
        };
        let name = label("title").unwrap_or_else(|| "image".to_string());
        let created = config.created().clone().or_else(|| label("created"));
        let digest = image.digest().map(str::to_string);
        let architecture = image.platform().architecture().name();
        ImageFacts {
            purl: purl(
                "oci",
                None,
                &name,
                digest.as_deref().unwrap_or_default(),
                &[("arch", architecture)],
            ),
            version: label("version"),
            platform: image.platform(),
            vendor: label("vendor"),
            homepage: label("url"),
            created: created.and_then(|c| c.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH),
            digest,
            name,
        }
    }

    /// The hexadecimal part of a SHA-256 digest.
    pub fn sha256(&self) -> Option<&str> {
        self.digest.as_deref()?.strip_prefix("sha256:")
    }
}
