//! A component of an image, and its identifiers in documents.

use packageurl::PackageUrl;
use sha2::{Digest as _, Sha256};

use super::license::License;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Deb,
    Python,
    /// A Rust library inside a program.
    Crate,
    /// A native program in /usr/local, with its crate.
    Program,
}

#[derive(Clone, Debug)]
pub struct Component {
    /// Letters, digits, `.`, `-`; unique within the image.
    pub id: String,
    pub kind: Kind,
    pub name: String,
    pub version: String,
    /// <https://github.com/package-url/purl-spec>
    pub purl: String,
    pub license: License,
    /// The file with the licence.
    pub license_from: String,
    pub supplier: Option<Party>,
    pub homepage: Option<String>,
    /// Source package and version, of Debian's packages.
    pub source: Option<(String, String)>,
    /// The repository and commit of its source, if recorded: `git+URL@COMMIT`.
    pub download: Option<String>,
    /// The file or directory that proves its presence, without the leading slash.
    pub location: String,
    /// Whether only some of its files are present.
    pub partial: bool,
    /// Patches, in order of application.
    pub patches: Vec<Change>,
    /// Positions in [`Sbom::components`](super::Sbom::components).
    pub depends_on: Vec<usize>,
}

/// A patch of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub name: String,
    pub sha256: String,
    /// Including its header, as in the image.
    pub text: String,
    pub summary: String,
    /// The whole description of the patch.
    pub description: String,
    /// DEP-3: `backport, …` and `upstream, …` are upstream changes.
    pub origin: Option<String>,
    /// The upstream bug report.
    pub bug: Option<String>,
}

/// A maintainer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    pub name: String,
    pub address: Option<String>,
}

impl Party {
    /// Parses `Name <address>`, or only one of them; of several, the first.
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

/// A package URL. Drops parts that the type does not allow: the name matters most.
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

/// A readable identifier, unique per purl and location.
pub fn component_id(kind: Kind, name: &str, distinct: &[&str]) -> String {
    let prefix = match kind {
        Kind::Deb => "deb",
        Kind::Python => "python",
        Kind::Crate | Kind::Program => "crate",
    };
    let hash = Sha256::digest(distinct.join("\n"));
    format!("{prefix}-{}-{}", identifier(name), hex::encode(&hash[..4]))
}

/// Letters, digits, `.` and `-`, which both formats accept in identifiers.
pub fn identifier(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect()
}

/// A UUID (RFC 9562, version 8) derived from content: equal content has an equal UUID.
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

/// `text`, if it is acceptable as a web address in a document.
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
