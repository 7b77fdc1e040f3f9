//! A file tree and an image configuration -> what is in the image, whatever the document's format will be.

use std::collections::BTreeSet;

use jiff::Timestamp;
use oci_spec::image::ImageConfiguration;
use packageurl::PackageUrl;
use sha2::{Digest as _, Sha256};

use super::license::License;
use super::{crates, deb, pypi};
use crate::image::os_release::OsRelease;
use crate::image::packages::dpkg::{self, DpkgError};
use crate::layout::tree::Tree;
use crate::oci::Platform;

/// One platform's image, as the layout read it.
pub struct ImageForSbom<'a> {
    pub platform: Platform,
    pub tree: &'a Tree,
    pub config: &'a ImageConfiguration,
    /// `sha256:…` of the manifest; an engine's image has none.
    pub digest: Option<&'a str>,
}

/// What is in one platform's image. [`super::spdx`] and [`super::cyclonedx`] write it down.
#[derive(Clone, Debug)]
pub struct Sbom {
    pub image: Image,
    pub system: System,
    /// Packages, distributions, crates, in this order, as the image lists them.
    pub components: Vec<Component>,
    /// Where something is that could not be read, and why: what it holds is missing above.
    pub gaps: Vec<String>,
}

/// What the documents are about.
#[derive(Clone, Debug)]
pub struct Image {
    pub name: String,
    pub version: Option<String>,
    pub platform: Platform,
    pub digest: Option<String>,
    pub purl: String,
    pub vendor: Option<String>,
    pub homepage: Option<String>,
    /// When the image says it was made: the documents' date too, so that they are a function of the image.
    pub created: Timestamp,
}

/// Of os-release(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    pub id: String,
    pub version: String,
    pub pretty_name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Deb,
    Python,
    /// A Rust library inside a program.
    Crate,
    /// A native program in /usr/local, and the crate it was made from.
    Program,
}

#[derive(Clone, Debug)]
pub struct Component {
    /// Letters, digits, `.`, `-`; no other component of the image has it.
    pub id: String,
    pub kind: Kind,
    pub name: String,
    pub version: String,
    /// <https://github.com/package-url/purl-spec>
    pub purl: String,
    pub license: License,
    /// The file that says so.
    pub license_from: String,
    pub supplier: Option<Party>,
    pub homepage: Option<String>,
    /// The source package and its version, of Debian's packages.
    pub source: Option<(String, String)>,
    /// The repository and commit it was built from, where it says so: `git+URL@COMMIT`.
    pub download: Option<String>,
    /// The file or directory that says that it is there, without the leading slash.
    pub location: String,
    /// Some files of it only.
    pub partial: bool,
    /// What was changed in it, in this order.
    pub patches: Vec<Change>,
    /// Positions in [`Sbom::components`].
    pub depends_on: Vec<usize>,
}

/// A patch that a component has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub name: String,
    pub sha256: String,
    /// With its head, as it is in the image.
    pub text: String,
    pub summary: String,
    /// All of the patch's description.
    pub description: String,
    /// DEP-3: `backport, …` and `upstream, …` are changes of upstream's.
    pub origin: Option<String>,
    /// Upstream's report.
    pub bug: Option<String>,
}

/// Who maintains something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    pub name: String,
    pub address: Option<String>,
}

impl Party {
    /// `Name <address>`, or either; the first of several.
    pub fn parse(text: &str) -> Self {
        let plain = |text: &str| text.trim().trim_matches(['"', ',']).trim().to_string();
        if let Some((name, rest)) = text.split_once('<') {
            let address = plain(rest.split('>').next().unwrap_or_default());
            let name = Some(plain(name)).filter(|n| !n.is_empty());
            return Party {
                name: name.unwrap_or_else(|| address.clone()),
                address: Some(address).filter(|a| a.contains('@')),
            };
        }
        let first = plain(text.split(',').next().unwrap_or_default());
        Party {
            address: Some(first.clone()).filter(|a| a.contains('@') && !a.contains(' ')),
            name: first,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SbomError {
    #[error("cannot list the image's packages: {0}")]
    Packages(#[from] DpkgError),
    #[error("cannot list the image's packages: it has no /etc/os-release that says which distribution they are of")]
    NoSystem,
}

impl Sbom {
    /// An image whose packages cannot be listed has no SBOM; what else cannot be read is among the gaps.
    pub fn of(image: &ImageForSbom) -> Result<Self, SbomError> {
        let system = System::read(image.tree).ok_or(SbomError::NoSystem)?;
        let packages = dpkg::packages(image.tree)?;
        let (python, mut gaps) = pypi::components(image, &packages);
        let (rust, more_gaps) = crates::components(image.tree);
        gaps.extend(more_gaps);
        let mut components = Vec::new();
        for group in [deb::components(image.tree, &packages, &system), python, rust] {
            let first = components.len();
            components.extend(group.into_iter().map(|mut component: Component| {
                component.depends_on.iter_mut().for_each(|at| *at += first);
                component
            }));
        }
        number_repeated(&mut components);
        Ok(Sbom {
            image: Image::read(image),
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

    /// The image's date in the one form that both formats take.
    pub fn created(&self) -> String {
        self.image.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

/// A status file that lists one package twice would give two components one identifier.
fn number_repeated(components: &mut [Component]) {
    let mut seen = BTreeSet::new();
    for (at, component) in components.iter_mut().enumerate() {
        if !seen.insert(component.id.clone()) {
            component.id = format!("{}-{at}", component.id);
        }
    }
}

impl Image {
    fn read(image: &ImageForSbom) -> Self {
        let labels = image.config.labels_of_config();
        let label = |name: &str| {
            let value = labels?.get(&format!("org.opencontainers.image.{name}"))?;
            Some(value.clone()).filter(|v| !v.is_empty())
        };
        let name = label("title").unwrap_or_else(|| "image".to_string());
        let created = image.config.created().clone().or_else(|| label("created"));
        let digest = image.digest.map(str::to_string);
        let architecture = image.platform.architecture().name();
        Image {
            purl: purl(
                "oci",
                None,
                &name,
                digest.as_deref().unwrap_or_default(),
                &[("arch", architecture)],
            ),
            version: label("version"),
            platform: image.platform,
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

impl System {
    fn read(tree: &Tree) -> Option<Self> {
        let OsRelease {
            id,
            version_id,
            codename,
            pretty_name,
        } = OsRelease::read(tree)?;
        let or = |text: String, other: String| if text.is_empty() { other } else { text };
        (!id.is_empty()).then(|| System {
            pretty_name: or(pretty_name, id.clone()),
            // sid and testing have a name only.
            version: or(version_id, codename),
            id,
        })
    }

    /// `debian-12`, for purls.
    pub fn distro(&self) -> String {
        format!("{}-{}", self.id, self.version)
    }
}

/// A package URL. Parts that its type does not allow are left out: the name is what matters.
pub fn purl(
    ecosystem: &str,
    namespace: Option<&str>,
    name: &str,
    version: &str,
    qualifiers: &[(&str, &str)],
) -> String {
    let make = || {
        let mut url = PackageUrl::new(ecosystem, name)?;
        if let Some(namespace) = namespace {
            url.with_namespace(namespace)?;
        }
        if !version.is_empty() {
            url.with_version(version)?;
        }
        for (key, value) in qualifiers.iter().filter(|(_, value)| !value.is_empty()) {
            url.add_qualifier(*key, *value)?;
        }
        Ok::<_, packageurl::Error>(url.to_string())
    };
    make().unwrap_or_else(|error| {
        tracing::warn!(%error, ecosystem, name, version, "no package URL by the rules");
        format!("pkg:{ecosystem}/{}", identifier(name))
    })
}

/// An identifier that reads well and is another one for another purl or place.
pub fn component_id(kind: Kind, name: &str, distinct: &[&str]) -> String {
    let prefix = match kind {
        Kind::Deb => "deb",
        Kind::Python => "python",
        Kind::Crate | Kind::Program => "crate",
    };
    let hash = Sha256::digest(distinct.join("\n"));
    format!("{prefix}-{}-{}", identifier(name), hex::encode(&hash[..4]))
}

/// Letters, digits, `.` and `-`, which both formats take in identifiers.
pub fn identifier(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect()
}

/// A UUID (RFC 9562, version 8) made from content: the same content has the same.
pub fn uuid_of(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    parts.join("-")
}

/// What may stand where a document wants a web address.
pub fn web_address(text: &str) -> Option<String> {
    let url = url::Url::parse(text.trim()).ok()?;
    matches!(url.scheme(), "http" | "https").then(|| url.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parties_are_a_name_and_an_address() {
        let of = |text| {
            let party = Party::parse(text);
            (party.name, party.address)
        };
        let some = |name: &str, address: &str| (name.to_string(), Some(address.to_string()));
        assert_eq!(of("Debian Foo <foo@d.org>"), some("Debian Foo", "foo@d.org"));
        assert_eq!(of("\"A, B\" <a@b.org>, C <c@d.org>"), some("A, B", "a@b.org"));
        assert_eq!(of("a@b.org"), some("a@b.org", "a@b.org"));
        assert_eq!(of("<a@b.org>"), some("a@b.org", "a@b.org"));
        assert_eq!(of("A B"), ("A B".to_string(), None));
    }

    #[test]
    fn purls_are_encoded() {
        assert_eq!(
            purl(
                "deb",
                Some("debian"),
                "libstdc++6",
                "3:12.2+b1~x",
                &[("arch", "amd64"), ("upstream", "gcc-12@12 x")]
            ),
            "pkg:deb/debian/libstdc%2B%2B6@3:12.2%2Bb1~x?arch=amd64&upstream=gcc-12%4012%20x"
        );
        assert_eq!(
            purl("pypi", None, "oslo.config", "1.0", &[]),
            "pkg:pypi/oslo.config@1.0"
        );
    }

    #[test]
    fn identical_content_has_one_uuid() {
        assert_eq!(uuid_of(b"a"), uuid_of(b"a"));
        let uuid = uuid_of(b"b");
        assert_ne!(uuid_of(b"a"), uuid);
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "8"));
    }
}
