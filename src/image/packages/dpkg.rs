//! `/var/lib/dpkg/status`, and `status.d` beside it, into packages.
//!
//! Files of `status.d` describe packages that parts were taken from without dpkg's knowledge; scanners read them too.
//! The format is Debian policy's control syntax (section 5.1): paragraphs of `Field: value`, continued by lines that
//! begin with white space, parted by empty lines.

use serde::Serialize;

use crate::layout::tree::{NodeKind, Tree};

pub const STATUS: &str = "var/lib/dpkg/status";
pub const STATUS_DIR: &str = "var/lib/dpkg/status.d";

/// [`Package::status`] of what `status.d` describes.
const PARTIAL: &str = "partial";

/// More paragraphs than any distribution has packages; a file beyond it is not a status file.
const MAX_PACKAGES: usize = 100_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub architecture: String,
    /// The three words of `Status`: what is wanted, the error flag, what is: `install ok installed`. Of a package of
    /// `status.d`: `partial`.
    pub status: String,
    /// The source package, where its name or its version differs from the binary's.
    pub source: Option<String>,
    /// The source's version, where it differs.
    pub source_version: Option<String>,
    pub maintainer: Option<String>,
    pub homepage: Option<String>,
    /// `Pre-Depends` and `Depends`: each a choice of package names.
    #[serde(skip)]
    pub depends: Vec<Vec<String>>,
    /// Names it answers to besides its own.
    #[serde(skip)]
    pub provides: Vec<String>,
    /// Its configuration files: path, and MD5 in hexadecimal as the package has it.
    #[serde(skip)]
    pub conffiles: Vec<(String, String)>,
}

impl Package {
    pub fn installed(&self) -> bool {
        self.status == "install ok installed"
    }

    /// Some of its files are there, without dpkg's knowledge.
    pub fn partial(&self) -> bool {
        self.status == PARTIAL
    }

    /// Whether dpkg has a list of its files: at least its configuration files are there.
    pub fn has_files(&self) -> bool {
        !self.partial() && !self.status.ends_with(" not-installed")
    }

    /// Nothing but configuration files, or less, is left of it.
    pub fn removed(&self) -> bool {
        self.status.ends_with(" not-installed") || self.status.ends_with(" config-files")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DpkgError {
    #[error("/{STATUS} is missing, or too large to be kept")]
    Absent,
    #[error("/{STATUS_DIR}/{0} is not UTF-8, or too large to be kept")]
    Partial(String),
    #[error("/{STATUS} is not UTF-8")]
    Encoding,
    #[error("/{STATUS}, line {line}: {what}")]
    Syntax { line: usize, what: &'static str },
}

/// The packages that the image's own database names, in its order, and those of `status.d`.
pub fn packages(tree: &Tree) -> Result<Vec<Package>, DpkgError> {
    let bytes = tree.content(STATUS).ok_or(DpkgError::Absent)?;
    let mut packages = parse(std::str::from_utf8(bytes).map_err(|_| DpkgError::Encoding)?)?;
    for (name, node) in tree.children(STATUS_DIR) {
        if let NodeKind::File(file) = &node.kind {
            let text = file.content.as_deref().and_then(|c| std::str::from_utf8(c).ok());
            let text = text.ok_or_else(|| DpkgError::Partial(name.to_string()))?;
            // Control files of packages have no Status, which only dpkg's database gives them.
            packages.extend(parse(&format!("Status: {PARTIAL}\n{}\n", text.trim_start()))?);
        }
    }
    Ok(packages)
}

pub fn parse(text: &str) -> Result<Vec<Package>, DpkgError> {
    let mut packages = Vec::new();
    let mut fields: Vec<(&str, &str)> = Vec::new();
    let mut conffiles = Vec::new();
    let mut start = 1;
    for (at, line) in text.lines().chain(std::iter::once("")).enumerate() {
        let syntax = |what| DpkgError::Syntax { line: at + 1, what };
        if line.is_empty() {
            if !fields.is_empty() {
                if packages.len() == MAX_PACKAGES {
                    return Err(syntax("too many packages"));
                }
                let conffiles = std::mem::take(&mut conffiles);
                packages.push(Package {
                    conffiles,
                    ..package(&fields, start)?
                });
                fields.clear();
            }
        } else if line.starts_with([' ', '\t']) {
            let (field, _) = fields
                .last()
                .ok_or_else(|| syntax("a continuation line without a field"))?;
            // `PATH MD5`, then `obsolete` or `remove-on-upgrade`. Other continuations belong to descriptions.
            let mut words = line.split_whitespace();
            if field.eq_ignore_ascii_case("Conffiles")
                && let (Some(path), Some(md5)) = (words.next(), words.next())
            {
                conffiles.push((path.to_string(), md5.to_string()));
            }
        } else {
            if fields.is_empty() {
                start = at + 1;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| syntax("no `Field: value`"))?;
            fields.push((name, value.trim()));
        }
    }
    Ok(packages)
}

fn package(fields: &[(&str, &str)], line: usize) -> Result<Package, DpkgError> {
    let field = |name: &str| {
        fields
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.to_string())
    };
    let required = |name, what| {
        field(name)
            .filter(|v| !v.is_empty())
            .ok_or(DpkgError::Syntax { line, what })
    };
    let status = required("Status", "a package without Status")?;
    let name = required("Package", "a paragraph without Package")?;
    // A package that is wanted but was never unpacked has no version yet.
    let unpacked = !status.ends_with(" not-installed");
    let of_unpacked = |name, what| {
        if unpacked {
            required(name, what)
        } else {
            Ok(field(name).unwrap_or_default())
        }
    };
    let source = field("Source");
    let relations = |name: &str| field(name).as_deref().map(relations).unwrap_or_default();
    Ok(Package {
        version: of_unpacked("Version", "a package without Version")?,
        architecture: of_unpacked("Architecture", "a package without Architecture")?,
        // `Source: name (version)`: the version is given where it differs.
        source: source
            .as_deref()
            .and_then(|s| s.split_whitespace().next().map(str::to_string)),
        source_version: source
            .as_deref()
            .and_then(|s| Some(s.split_once('(')?.1.split_once(')')?.0.trim().to_string())),
        depends: [relations("Pre-Depends"), relations("Depends")].concat(),
        provides: relations("Provides").concat(),
        maintainer: field("Maintainer"),
        homepage: field("Homepage"),
        conffiles: Vec::new(),
        name,
        status,
    })
}

/// `a (>= 1) | b, c:any` names packages (Debian policy 7.1): the choices, each without versions and architectures.
fn relations(text: &str) -> Vec<Vec<String>> {
    let name = |choice: &str| {
        let end = choice.find([' ', '(', ':', '[', '<']).unwrap_or(choice.len());
        choice[..end].to_string()
    };
    text.split(',')
        .map(|choices| {
            choices
                .split('|')
                .map(|c| name(c.trim()))
                .filter(|n| !n.is_empty())
                .collect::<Vec<_>>()
        })
        .filter(|choices| !choices.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "Package: jq\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.6-2.1\nSource: jq (1.6)\n\
        Pre-Depends: dpkg (>= 1.15)\nDepends: libjq1 (= 1.6), debconf | debconf-2.0, python3:any <!x>\n\
        Conffiles:\n /etc/x 0123\nDescription: lightweight\n and flexible\n\n\nPackage: frr\nStatus: deinstall ok config-files\n\
        Architecture: amd64\nVersion: 8.4.4\n";

    #[test]
    fn reads_paragraphs() {
        let found = parse(TWO).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].name.as_str(), found[0].version.as_str()), ("jq", "1.6-2.1"));
        assert_eq!(found[0].source.as_deref(), Some("jq"));
        assert_eq!(found[0].source_version.as_deref(), Some("1.6"));
        assert_eq!(
            found[0].depends,
            [
                vec!["dpkg"],
                vec!["libjq1"],
                vec!["debconf", "debconf-2.0"],
                vec!["python3"]
            ]
        );
        assert_eq!(found[0].conffiles, [("/etc/x".to_string(), "0123".to_string())]);
        assert!(found[1].conffiles.is_empty());
        assert!(found[0].installed() && !found[1].installed() && found[1].removed());
    }

    #[test]
    fn says_where_it_is_broken() {
        let error = parse("Package: a\nStatus: install ok installed\nArchitecture: all\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "/var/lib/dpkg/status, line 1: a package without Version"
        );
        assert!(parse(" x\n").is_err());
        assert!(parse("nonsense\n").is_err());
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC*(\n\\PC*){0,8}") {
            let _ = parse(&text);
        }
    }
}
