//! Identifies the distribution of an image's packages from os-release.

use crate::image::os_release::OsRelease;
use crate::layout::tree::Tree;

/// Fields of os-release(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    pub id: String,
    pub version: String,
    pub pretty_name: String,
}

impl System {
    pub fn read(tree: &Tree) -> Option<Self> {
        let OsRelease {
            id,
            version_id,
            codename,
            pretty_name,
        } = OsRelease::read(tree)?;
        let or = |text: String, other: String| if text.is_empty() { other } else { text };
        (!id.is_empty()).then(|| System {
            pretty_name: or(pretty_name, id.clone()),
            // sid and testing have only a name.
            version: or(version_id, codename),
            id,
        })
    }

    /// `debian-12`, for purls.
    pub fn distro(&self) -> String {
        format!("{}-{}", self.id, self.version)
    }
}
