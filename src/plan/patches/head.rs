//! Parses a patch into its DEP-3 header and the files it changes. <https://dep-team.pages.debian.net/deps/dep3/>
//!
//! Unknown input is an error: a mistyped field would otherwise be ignored silently.

use std::str::FromStr;

use jiff::civil::Date;
use pep440_rs::VersionSpecifiers;

use super::MAX_BYTES;

/// The header of a patch.
#[derive(Clone, Debug)]
pub struct Head {
    /// The summary; further lines describe the upstream defect and its symptoms.
    pub description: String,
    /// The origin of a third-party change.
    pub origin: Option<String>,
    pub author: Option<String>,
    /// The upstream bug report.
    pub bug: Option<String>,
    /// The upstream review, `no`, or `not-needed`.
    pub forwarded: String,
    /// The releases that need the patch.
    pub applies_to: VersionSpecifiers,
    pub drop_when: String,
    pub last_update: Date,
}

#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("it is not UTF-8 text with LF line ends, including the last line")]
    Text,
    #[error("line {line}: expected a header field (`Name: value`), or an empty line after the header")]
    Line { line: usize },
    #[error("unknown header field {0}")]
    Unknown(String),
    #[error("duplicate header field {0}")]
    Twice(String),
    #[error("missing header field {0}")]
    Missing(&'static str),
    #[error("{field}: {what}")]
    Value { field: &'static str, what: String },
    #[error("diff: {0}")]
    Diff(String),
}

const FIELDS: [&str; 8] = [
    "Description",
    "Origin",
    "Author",
    "Bug",
    "Forwarded",
    "Applies-To",
    "Drop-When",
    "Last-Update",
];

impl Head {
    /// Returns the header, and the diff after it as text.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &str), HeadError> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(HeadError::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| HeadError::Text)?;
        let control = |c: char| c.is_control() && c != '\n' && c != '\t';
        if !text.ends_with('\n') || text.contains(control) {
            return Err(HeadError::Text);
        }
        let (fields, diff) = fields(text)?;
        Ok((Self::of(&fields)?, diff))
    }

    /// The first line of the description.
    pub fn summary(&self) -> &str {
        self.description.lines().next().unwrap_or_default()
    }

    fn of(fields: &[(String, String)]) -> Result<Self, HeadError> {
        let value = |name: &str| {
            let found = fields.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| value.clone()).filter(|v| !v.is_empty())
        };
        let required = |name: &'static str| value(name).ok_or(HeadError::Missing(name));
        let (origin, author) = (value("Origin"), value("Author"));
        if origin.is_none() && author.is_none() {
            return Err(HeadError::Missing("Author, or Origin for a third-party change"));
        }
        Ok(Head {
            description: required("Description")?,
            origin,
            author,
            bug: value("Bug"),
            forwarded: required("Forwarded")?,
            applies_to: {
                let text = required("Applies-To")?;
                VersionSpecifiers::from_str(&text).map_err(|error| HeadError::Value {
                    field: "Applies-To",
                    what: format!("{text:?} is not a version specifier (PEP 440), such as >=5.0.0,<7: {error}"),
                })?
            },
            drop_when: required("Drop-When")?,
            last_update: {
                let text = required("Last-Update")?;
                Date::from_str(&text).map_err(|error| HeadError::Value {
                    field: "Last-Update",
                    what: format!("{text:?} is not a date, such as 2026-01-31: {error}"),
                })?
            },
        })
    }
}

type Fields = Vec<(String, String)>;

/// The fields by name, with the lines of a value joined by newlines, and the text after the header.
fn fields(text: &str) -> Result<(Fields, &str), HeadError> {
    let mut fields = Fields::new();
    let mut rest = text;
    for line in 1.. {
        let (current, behind) = rest.split_once('\n').ok_or(HeadError::Diff("it is missing".into()))?;
        rest = behind;
        if current.is_empty() || current == "---" {
            break;
        }
        if let Some(more) = current.strip_prefix(' ') {
            let (_, value) = fields.last_mut().ok_or(HeadError::Line { line })?;
            value.push('\n');
            value.push_str(more.trim());
            continue;
        }
        let (name, value) = current.split_once(':').ok_or(HeadError::Line { line })?;
        if !FIELDS.contains(&name) {
            return Err(HeadError::Unknown(name.to_string()));
        }
        if fields.iter().any(|(known, _)| known == name) {
            return Err(HeadError::Twice(name.to_string()));
        }
        fields.push((name.to_string(), value.trim().to_string()));
    }
    Ok((fields, rest))
}

/// The path and the diff of each file that a unified diff changes or adds.
pub fn split<'a>(diff: &'a str, package: &str) -> Result<Vec<(&'a str, &'a str)>, HeadError> {
    let mut files: Vec<(&str, &str)> = Vec::new();
    let mut rest = diff;
    while !rest.is_empty() {
        let (one, behind) = rest.split_at(end_of_file(rest));
        rest = behind;
        let mut lines = one.lines();
        let (old, new) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let path = path_of(old, new, package)?;
        if files.iter().any(|(known, _)| *known == path) {
            return Err(HeadError::Diff(format!("{path} appears twice")));
        }
        // The parser counts lines and compares them with the hunk headers.
        let parsed = diffy::Patch::from_str(one).map_err(|error| HeadError::Diff(format!("{path}: {error}")))?;
        if parsed.hunks().is_empty() {
            return Err(HeadError::Diff(format!("{path} has no hunk")));
        }
        let hunks = parsed.hunks().iter().map(|hunk| 1 + hunk.lines().len());
        if one.lines().count() != 2 + hunks.sum::<usize>() {
            return Err(HeadError::Diff(format!("{path}: a line is outside of every hunk")));
        }
        files.push((path, one));
    }
    match files.is_empty() {
        true => Err(HeadError::Diff("it is missing".into())),
        false => Ok(files),
    }
}

/// The end of the first file's diff: before the next `---`, `+++` and `@@`. A removed line may begin with `---` too.
fn end_of_file(diff: &str) -> usize {
    let starts = diff.match_indices("\n--- ").map(|(at, _)| at + 1);
    let mut real = starts.filter(|at| {
        let mut lines = diff[*at..].lines().skip(1);
        let next = |line: Option<&str>, prefix| line.is_some_and(|l| l.starts_with(prefix));
        next(lines.next(), "+++ ") && next(lines.next(), "@@ ")
    });
    real.next().unwrap_or(diff.len())
}

/// The path in `--- a/PATH` and `+++ b/PATH`, or in an added file's `+++ b/PATH`.
fn path_of<'a>(old: &str, new: &'a str, package: &str) -> Result<&'a str, HeadError> {
    let failed = |what: &str| Err(HeadError::Diff(format!("{what}, in: {old} | {new}")));
    let Some(path) = new.strip_prefix("+++ b/") else {
        return failed("expected `--- a/PATH` and `+++ b/PATH`; a patch cannot delete files");
    };
    if old != "--- /dev/null" && old.strip_prefix("--- a/") != Some(path) {
        return failed("the paths differ; a patch cannot rename files");
    }
    let mut parts = path.split('/');
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && (part.bytes()).all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    if parts.next() != Some(package) || !path.contains('/') || !parts.all(plain) {
        return failed(&format!("a patch may change files below {package}/ only"));
    }
    if path.split('/').any(|part| part == "tests") {
        return failed("the image has no tests; remove them from the patch");
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Description: Do this\n Because of\n that.\nAuthor: a\nBug: https://bugs.example.org/1\n\
        Forwarded: no\nApplies-To: >=5.0.0,<7\nDrop-When: it is in\nLast-Update: 2026-01-02\n";
    const DIFF: &str = "--- a/pkg/x.py\n+++ b/pkg/x.py\n@@ -1,2 +1,2 @@\n a\n--- b\n+-- c\n\
        --- /dev/null\n+++ b/pkg/new.py\n@@ -0,0 +1 @@\n+x\n";

    fn parse(head: &str, diff: &str) -> Result<(Head, Vec<String>), HeadError> {
        let text = format!("{head}\n{diff}");
        let (head, diff) = Head::parse(text.as_bytes())?;
        let files = split(diff, "pkg")?;
        Ok((head, files.into_iter().map(|(path, _)| path.to_string()).collect()))
    }

    #[test]
    fn a_head_and_a_diff_of_two_files() {
        let (head, files) = parse(HEAD, DIFF).unwrap();
        assert_eq!(head.description, "Do this\nBecause of\nthat.");
        assert_eq!(head.summary(), "Do this");
        assert_eq!(head.bug.as_deref(), Some("https://bugs.example.org/1"));
        assert!(head.applies_to.contains(&"6.1".parse().unwrap()));
        assert!(!head.applies_to.contains(&"7.0".parse().unwrap()));
        assert_eq!(files, ["pkg/x.py", "pkg/new.py"]);
    }

    #[test]
    fn heads_that_say_too_little_or_something_else_are_refused() {
        for (from, to, problem) in [
            ("Author: a\n", "", "field Author, or Origin"),
            ("Description: Do this\n Because of\n that.\n", "", "field Description"),
            ("Forwarded: no\n", "", "field Forwarded"),
            ("Applies-To: >=5.0.0,<7\n", "", "field Applies-To"),
            (
                "Applies-To: >=5.0.0,<7\n",
                "Applies-To: 7.x\n",
                "not a version specifier",
            ),
            ("Drop-When: it is in\n", "Drop-When:\n", "field Drop-When"),
            ("Last-Update: 2026-01-02", "Last-Update: 2026-02-30", "not a date"),
            ("Author: a\n", "Author: a\nAuthor: b\n", "duplicate header field Author"),
            (
                "Author: a\n",
                "Author: a\nAplies-To: >=1\n",
                "unknown header field Aplies-To",
            ),
            ("Author: a\n", "Author: a\nsome text\n", "line 5"),
            ("Description: Do", " Description: Do", "line 1"),
        ] {
            assert!(HEAD.contains(from));
            let error = parse(&HEAD.replacen(from, to, 1), DIFF).unwrap_err().to_string();
            assert!(error.contains(problem), "{error} / {problem}");
        }
    }

    #[test]
    fn diffs_that_do_something_else_are_refused() {
        for (from, to, problem) in [
            ("pkg/x.py", "other/x.py", "below pkg/ only"),
            ("pkg/x.py", "pkg/../x.py", "below pkg/ only"),
            ("pkg/x.py", "pkg/tests/x.py", "no tests"),
            ("+++ b/pkg/x.py", "+++ b/pkg/y.py", "the paths differ"),
            ("+++ b/pkg/x.py", "+++ /dev/null", "cannot delete files"),
            ("-1,2 +1,2", "-1,3 +1,2", "pkg/x.py: "),
            ("+++ b/pkg/new.py", "+++ b/pkg/x.py", "appears twice"),
            ("@@ -0,0 +1 @@\n+x\n", "GIT binary patch\n", "pkg/x.py: "),
            (
                "--- a/pkg/x.py",
                "diff --git a/pkg/x.py b/pkg/x.py\n--- a/pkg/x.py",
                "expected",
            ),
        ] {
            assert!(DIFF.contains(from));
            let error = parse(HEAD, &DIFF.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(problem), "{error} / {problem}");
        }
        assert!(parse(HEAD, "").unwrap_err().to_string().contains("it is missing"));
    }

    #[test]
    fn only_plain_text_is_read() {
        for text in ["\u{1b}[0m\n", "a\r\n", "no newline"] {
            let text = format!("{HEAD}\n{DIFF}{text}");
            assert!(matches!(Head::parse(text.as_bytes()), Err(HeadError::Text)));
        }
        assert!(matches!(Head::parse(b"\xff\n"), Err(HeadError::Text)));
    }
}
