//! Converts licence texts into SPDX expressions, if that is possible without guessing.
//!
//! <https://spdx.github.io/spdx-spec/v2.3/SPDX-license-expressions/>

use std::collections::BTreeSet;

use spdx::{Expression, LicenseId};

use super::component::identifier;

/// The licence of a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct License {
    /// A valid SPDX expression; `None` if the package declares no licence.
    pub expression: Option<String>,
    /// The names of the expression's `LicenseRef-…`.
    pub references: Vec<Reference>,
}

/// A name without an SPDX identifier, or with several possible ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `LicenseRef-<owner>-<name>`: two packages may use one name for different texts.
    pub id: String,
    /// As in the metadata.
    pub name: String,
}

impl License {
    /// Parses one licence, or several joined by operators, from the metadata of `owner`.
    pub fn parse(owner: &str, text: &str) -> Self {
        Self::all(owner, &BTreeSet::from([text.to_string()]))
    }

    /// Combines all of `names`.
    pub fn all(owner: &str, names: &BTreeSet<String>) -> Self {
        let mut references = References {
            owner,
            list: Vec::new(),
        };
        let mut parts: BTreeSet<String> = names
            .iter()
            .filter(|name| !name.trim().is_empty())
            .map(|name| expression(name, &mut references))
            .collect();
        if parts.len() > 1 {
            let grouped = |e: String| if e.contains(" OR ") { format!("({e})") } else { e };
            parts = parts.into_iter().map(grouped).collect();
        }
        License {
            expression: (!parts.is_empty()).then(|| parts.into_iter().collect::<Vec<_>>().join(" AND ")),
            references: references.list,
        }
    }

    /// Whether all licences are on SPDX's list.
    pub fn is_listed(&self) -> bool {
        self.expression.is_some() && self.references.is_empty()
    }
}

#[derive(Clone)]
struct References<'a> {
    owner: &'a str,
    list: Vec<Reference>,
}

impl References<'_> {
    fn to(&mut self, name: &str) -> String {
        /// Longer texts are sentences instead of names.
        const LONGEST: usize = 60;
        if let Some(known) = self.list.iter().find(|r| r.name == name) {
            return known.id.clone();
        }
        let short: String = name.chars().take(LONGEST).collect();
        let mut id = format!("LicenseRef-{}-{}", identifier(self.owner), identifier(&short));
        while self.list.iter().any(|r| r.id == id) {
            id.push_str("-x");
        }
        self.list.push(Reference {
            id: id.clone(),
            name: name.to_string(),
        });
        id
    }
}

/// Unambiguous names of a licence, in lower case. `BSD` or `GPL` alone are ambiguous.
const NAMES: &[(&str, &str)] = &[
    ("apache 2", "Apache-2.0"),
    ("apache 2.0", "Apache-2.0"),
    ("apache license 2.0", "Apache-2.0"),
    ("apache license, version 2.0", "Apache-2.0"),
    ("apache software license 2.0", "Apache-2.0"),
    ("apache-2", "Apache-2.0"),
    ("asl 2.0", "Apache-2.0"),
    ("bsd 2-clause", "BSD-2-Clause"),
    ("bsd 3-clause", "BSD-3-Clause"),
    ("3-clause bsd", "BSD-3-Clause"),
    ("new bsd", "BSD-3-Clause"),
    ("new bsd license", "BSD-3-Clause"),
    ("isc license", "ISC"),
    ("mit license", "MIT"),
    ("the mit license", "MIT"),
    ("mpl 2.0", "MPL-2.0"),
    ("psf license", "PSF-2.0"),
    // Names in Debian's copyright format; Artistic is the licence in /usr/share/common-licenses.
    ("artistic", "Artistic-1.0-Perl"),
    ("expat", "MIT"),
    ("cc0", "CC0-1.0"),
];

fn expression(text: &str, references: &mut References) -> String {
    let text = text.trim();
    let mut tried = references.clone();
    if let Some(known) = single(text) {
        return known;
    }
    match composed(text, &mut tried) {
        Some(expression) => {
            *references = tried;
            expression
        }
        None => references.to(text),
    }
}

/// Parses names joined by operators and parentheses.
fn composed(text: &str, references: &mut References) -> Option<String> {
    // In Debian's format a comma groups the text before it: `A or B, and C` is `(A or B) and C`.
    let mut grouped = text.to_string();
    for operator in [" and ", " or "] {
        if let Some((before, after)) = text.rsplit_once(&format!(",{operator}")) {
            grouped = format!("({before}){operator}{after}");
        }
    }
    let spaced = grouped.replace('(', " ( ").replace(')', " ) ");
    let mut parts: Vec<String> = Vec::new();
    // Words up to the next operator or parenthesis are one name.
    let mut name: Vec<&str> = Vec::new();
    for word in spaced.split_whitespace().chain(["\0"]) {
        let operator = match word {
            "(" | ")" | "\0" => word,
            _ if word.eq_ignore_ascii_case("and") => "AND",
            _ if word.eq_ignore_ascii_case("or") => "OR",
            _ => {
                name.push(word);
                continue;
            }
        };
        if !name.is_empty() {
            let name = std::mem::take(&mut name).join(" ");
            parts.push(single(&name).unwrap_or_else(|| references.to(&name)));
        }
        if operator != "\0" {
            parts.push(operator.to_string());
        }
    }
    let joined = parts.join(" ").replace("( ", "(").replace(" )", ")");
    Expression::parse(&joined).ok().map(|_| joined)
}

/// Parses one licence, with or without an exception.
fn single(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    if let Some((_, id)) = NAMES.iter().find(|(written, _)| *written == lower) {
        return Some((*id).to_string());
    }
    if let Some(at) = lower.find(" with ") {
        let (license, exception) = (&name[..at], name[at + " with ".len()..].trim());
        let exception = exception
            .strip_suffix(" exception")
            .unwrap_or(exception)
            .replace(' ', "-");
        let id = spdx::exception_id(&exception)
            .or_else(|| spdx::exception_id(&format!("{exception}-exception")))
            .filter(|id| !id.is_deprecated())?;
        return Some(format!("{} WITH {}", single(license)?, id.name));
    }
    let (base, or_later) = match name.strip_suffix('+') {
        Some(base) => (base, true),
        None => (name, false),
    };
    if let Some(id) = gnu(base, or_later) {
        return Some(id.name.to_string());
    }
    let id = spdx::license_id(base)
        .or_else(|| by_any_case(base))
        .filter(|id| !id.is_deprecated())?;
    match or_later {
        false => Some(id.name.to_string()),
        true if id.is_gnu() => None,
        true => Some(format!("{}+", id.name)),
    }
}

/// `GPL-2`, `LGPL-2.1`, `GFDL-NIV-1.3`: the GNU licences have an identifier for `this version` and one for `or later`.
fn gnu(base: &str, or_later: bool) -> Option<LicenseId> {
    let upper = base.to_ascii_uppercase();
    let (family, version) = upper.rsplit_once('-')?;
    let version = match version.len() {
        1 => format!("{version}.0"),
        _ => version.to_string(),
    };
    let (family, invariants) = match family {
        "GFDL-NIV" => ("GFDL", "-no-invariants"),
        "GPL" | "LGPL" | "AGPL" | "GFDL" => (family, ""),
        _ => return None,
    };
    spdx::gnu_license_id(&format!("{family}-{version}{invariants}"), or_later)
}

fn by_any_case(name: &str) -> Option<LicenseId> {
    let known = spdx::identifiers::LICENSES.iter();
    let name = known.map(|l| l.name).find(|id| id.eq_ignore_ascii_case(name))?;
    spdx::license_id(name)
}

/// Trove classifiers of exactly one licence (PEP 639 lists the ambiguous ones).
const CLASSIFIERS: &[(&str, &str)] = &[
    ("Boost Software License 1.0 (BSL-1.0)", "BSL-1.0"),
    ("CC0 1.0 Universal (CC0 1.0) Public Domain Dedication", "CC0-1.0"),
    ("GNU General Public License v2 (GPLv2)", "GPL-2.0-only"),
    ("GNU General Public License v2 or later (GPLv2+)", "GPL-2.0-or-later"),
    ("GNU General Public License v3 (GPLv3)", "GPL-3.0-only"),
    ("GNU General Public License v3 or later (GPLv3+)", "GPL-3.0-or-later"),
    ("GNU Lesser General Public License v3 (LGPLv3)", "LGPL-3.0-only"),
    (
        "GNU Lesser General Public License v3 or later (LGPLv3+)",
        "LGPL-3.0-or-later",
    ),
    ("ISC License (ISCL)", "ISC"),
    ("MIT License", "MIT"),
    ("MIT No Attribution License (MIT-0)", "MIT-0"),
    ("Mozilla Public License 1.1 (MPL 1.1)", "MPL-1.1"),
    ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
    ("Python Software Foundation License", "PSF-2.0"),
    ("The Unlicense (Unlicense)", "Unlicense"),
    ("zlib/libpng License", "Zlib"),
];

/// The licence in the classifiers, if there is exactly one.
pub fn of_classifiers(owner: &str, classifiers: &[String]) -> Option<License> {
    // `License :: OSI Approved` alone names no licence.
    let names: BTreeSet<&str> = classifiers
        .iter()
        .filter_map(|c| c.rsplit(" :: ").next())
        .filter(|n| !matches!(*n, "OSI Approved" | "License"))
        .collect();
    let name = match names.len() {
        1 => names.first()?,
        _ => return None,
    };
    let known = CLASSIFIERS.iter().find(|(classifier, _)| classifier == name);
    Some(match known {
        Some((_, id)) => License::parse(owner, id),
        None => License::parse(owner, name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_clear_gets_its_identifier_and_the_rest_a_reference() {
        for (written, expected) in [
            ("Apache-2.0", "Apache-2.0"),
            ("apache 2.0", "Apache-2.0"),
            ("Apache License, Version 2.0", "Apache-2.0"),
            ("MIT and ISC", "MIT AND ISC"),
            ("Apache-2.0 OR BSD-3-Clause", "Apache-2.0 OR BSD-3-Clause"),
            ("Apache-2.0 or BSD", "Apache-2.0 OR LicenseRef-x-BSD"),
            ("BSD", "LicenseRef-x-BSD"),
            ("GPL", "LicenseRef-x-GPL"),
            ("GPL-2", "GPL-2.0-only"),
            ("GPL-2+", "GPL-2.0-or-later"),
            ("GPL-3.0", "GPL-3.0-only"),
            ("LGPL-2.1+", "LGPL-2.1-or-later"),
            ("GFDL-NIV-1.3+", "GFDL-1.3-no-invariants-or-later"),
            ("GPL-2.0-or-later", "GPL-2.0-or-later"),
            ("BSD-3-clause", "BSD-3-Clause"),
            ("Expat", "MIT"),
            ("GPL-1+ or Artistic", "GPL-1.0-or-later OR Artistic-1.0-Perl"),
            (
                "GPL-1+ or Artistic, and Expat",
                "(GPL-1.0-or-later OR Artistic-1.0-Perl) AND MIT",
            ),
            (
                "GPL-2 with Linux-syscall-note exception",
                "GPL-2.0-only WITH Linux-syscall-note",
            ),
            (
                "GPL-3+ with Bison exception",
                "LicenseRef-x-GPL-3--with-Bison-exception",
            ),
            ("(MIT OR (ISC))", "(MIT OR (ISC))"),
            ("BSD OR", "LicenseRef-x-BSD-OR"),
            ("MIT)", "LicenseRef-x-MIT-"),
        ] {
            let found = License::parse("x", written);
            assert_eq!(found.expression.as_deref(), Some(expected), "{written:?}");
            let references = expected.matches("LicenseRef").count();
            assert_eq!(found.references.len(), references, "{written:?}");
        }
        assert_eq!(License::parse("x", " "), License::default());
    }

    #[test]
    fn all_of_several_are_joined() {
        let of = |list: &[&str]| License::all("x", &list.iter().map(|n| n.to_string()).collect());
        let expression = |list: &[&str]| of(list).expression.unwrap_or_default();
        assert_eq!(
            expression(&["GPL-2+ or Expat", "ISC"]),
            "(GPL-2.0-or-later OR MIT) AND ISC"
        );
        assert_eq!(expression(&["GPL-2+ or Expat"]), "GPL-2.0-or-later OR MIT");
        assert_eq!(
            expression(&["ISC", "BSLA", "BSLA or ISC"]),
            "(LicenseRef-x-BSLA OR ISC) AND ISC AND LicenseRef-x-BSLA"
        );
        // Two names with similar identifiers stay separate.
        assert_eq!(of(&["a+b", "a-b"]).references.len(), 2);
        assert_ne!(
            of(&["a+b", "a-b"]).references[0].id,
            of(&["a+b", "a-b"]).references[1].id
        );
    }

    #[test]
    fn classifiers_count_where_they_name_one() {
        let of = |list: &[&str]| {
            let classifiers: Vec<String> = list.iter().map(|c| format!("License :: {c}")).collect();
            of_classifiers("x", &classifiers).and_then(|l| l.expression)
        };
        assert_eq!(
            of(&["OSI Approved", "OSI Approved :: MIT License"]).as_deref(),
            Some("MIT")
        );
        assert_eq!(
            of(&["OSI Approved :: BSD License"]).as_deref(),
            Some("LicenseRef-x-BSD-License")
        );
        assert_eq!(of(&["OSI Approved :: MIT License", "Public Domain"]), None);
    }

    proptest::proptest! {
        #[test]
        fn what_it_calls_an_expression_is_one(text in "(MIT|ISC|GPL-2\\+|with|or|and|,|\\(|\\)| |é|x){0,12}") {
            if let Some(e) = License::parse("a+b", &text).expression {
                proptest::prop_assert!(Expression::parse(&e).is_ok(), "{e}");
            }
        }
    }
}
