//! `os-release` of a file tree -> which distribution's release it says it is. os-release(5).

use crate::layout::tree::Tree;

/// A key that is missing is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// `debian`
    pub id: String,
    /// `12`; testing and unstable have none.
    pub version_id: String,
    /// `bookworm`
    pub codename: String,
    /// `Debian GNU/Linux 12 (bookworm)`
    pub pretty_name: String,
}

impl OsRelease {
    /// `None` if the tree has no such file, or not as UTF-8 text.
    pub fn read(tree: &Tree) -> Option<Self> {
        let text = tree
            .content("etc/os-release")
            .or_else(|| tree.content("usr/lib/os-release"))?;
        Some(Self::parse(std::str::from_utf8(text).ok()?))
    }

    fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim().trim_matches(['"', '\'']).to_string()
        };
        Self {
            id: value("ID"),
            version_id: value("VERSION_ID"),
            codename: value("VERSION_CODENAME"),
            pretty_name: value("PRETTY_NAME"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_and_without_quotes() {
        let read = OsRelease::parse("PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID='12'\n");
        assert_eq!(read.pretty_name, "Debian GNU/Linux 12 (bookworm)");
        assert_eq!((read.id.as_str(), read.version_id.as_str()), ("debian", "12"));
        assert_eq!(read.codename, "");
    }
}
