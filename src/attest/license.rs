//! Licences as people write them -> SPDX expressions, where that can be done without guessing.
//!
//! <https://spdx.github.io/spdx-spec/v2.3/SPDX-license-expressions/>

use std::collections::BTreeSet;

use spdx::{Expression, LicenseId};

/// What a package says of its licence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum License {
    /// A valid SPDX expression.
    Expression(String),
    /// Names as they are written, not all of which have an SPDX identifier.
    Named(BTreeSet<String>),
    #[default]
    Unknown,
}

impl License {
    /// One licence, or several joined by operators, as a package's metadata has it.
    pub fn parse(text: &str) -> Self {
        match expression(text) {
            Some(expression) => License::Expression(expression),
            None => License::Named(BTreeSet::from([text.to_string()])),
        }
    }

    /// All of `names` at once.
    pub fn all(names: BTreeSet<String>) -> Self {
        let known: Option<BTreeSet<String>> = names.iter().map(|name| expression(name)).collect();
        match known {
            Some(known) if known.is_empty() => License::Unknown,
            Some(known) => {
                let whole = known.len() == 1;
                let group = |e: String| {
                    if e.contains(" OR ") && !whole {
                        format!("({e})")
                    } else {
                        e
                    }
                };
                License::Expression(known.into_iter().map(group).collect::<Vec<_>>().join(" AND "))
            }
            None => License::Named(names),
        }
    }
}

/// Words that stand for one licence and no other, in lower case. `BSD` or `GPL` alone are not among them.
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
    // The names of Debian's copyright format; Artistic is the licence in /usr/share/common-licenses.
    ("artistic", "Artistic-1.0-Perl"),
    ("expat", "MIT"),
    ("cc0", "CC0-1.0"),
];

fn expression(text: &str) -> Option<String> {
    let text = text.trim();
    if let Some(known) = single(text) {
        return Some(known);
    }
    // In Debian's format a comma closes what stands before it: `A or B, and C` is `(A or B) and C`.
    let mut grouped = text.to_string();
    for operator in [" and ", " or "] {
        if let Some((before, after)) = text.rsplit_once(&format!(",{operator}")) {
            grouped = format!("({before}){operator}{after}");
        }
    }
    let spaced = grouped.replace('(', " ( ").replace(')', " ) ");
    let mut parts: Vec<String> = Vec::new();
    // Words up to the next operator or bracket are one name.
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
            parts.push(single(&name.join(" "))?);
            name.clear();
        }
        if operator != "\0" {
            parts.push(operator.to_string());
        }
    }
    let joined = parts.join(" ").replace("( ", "(").replace(" )", ")");
    Expression::parse(&joined).ok().map(|_| joined)
}

/// One licence, with an exception or without.
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
    let id = spdx::license_id(base).or_else(|| by_any_case(base)).filter(|id| !id.is_deprecated())?;
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

/// Trove classifiers that name one licence (PEP 639 lists the ambiguous ones).
const CLASSIFIERS: &[(&str, &str)] = &[
    ("Boost Software License 1.0 (BSL-1.0)", "BSL-1.0"),
    ("CC0 1.0 Universal (CC0 1.0) Public Domain Dedication", "CC0-1.0"),
    ("GNU General Public License v2 (GPLv2)", "GPL-2.0-only"),
    ("GNU General Public License v2 or later (GPLv2+)", "GPL-2.0-or-later"),
    ("GNU General Public License v3 (GPLv3)", "GPL-3.0-only"),
    ("GNU General Public License v3 or later (GPLv3+)", "GPL-3.0-or-later"),
    ("GNU Lesser General Public License v3 (LGPLv3)", "LGPL-3.0-only"),
    ("GNU Lesser General Public License v3 or later (LGPLv3+)", "LGPL-3.0-or-later"),
    ("ISC License (ISCL)", "ISC"),
    ("MIT License", "MIT"),
    ("MIT No Attribution License (MIT-0)", "MIT-0"),
    ("Mozilla Public License 1.1 (MPL 1.1)", "MPL-1.1"),
    ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
    ("Python Software Foundation License", "PSF-2.0"),
    ("The Unlicense (Unlicense)", "Unlicense"),
    ("zlib/libpng License", "Zlib"),
];

/// The licence that classifiers name, if there is one of them only and it is not ambiguous.
pub fn of_classifiers(classifiers: &[String]) -> Option<License> {
    // `License :: OSI Approved` alone says nothing of which.
    let names: BTreeSet<&str> = classifiers
        .iter()
        .filter_map(|c| c.rsplit(" :: ").next())
        .filter(|n| !matches!(*n, "OSI Approved" | "License"))
        .collect();
    let name = match names.len() {
        1 => names.first()?,
        _ => return None,
    };
    Some(match CLASSIFIERS.iter().find(|(classifier, _)| classifier == name) {
        Some((_, id)) => License::Expression((*id).to_string()),
        None => License::Named(BTreeSet::from([(*name).to_string()])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_clear_becomes_an_expression_and_the_rest_does_not() {
        for (written, expected) in [
            ("Apache-2.0", Some("Apache-2.0")),
            ("apache 2.0", Some("Apache-2.0")),
            ("Apache License, Version 2.0", Some("Apache-2.0")),
            ("MIT and ISC", Some("MIT AND ISC")),
            ("Apache-2.0 OR BSD-3-Clause", Some("Apache-2.0 OR BSD-3-Clause")),
            ("Apache-2.0 or BSD", None),
            ("BSD", None),
            ("GPL", None),
            ("GPL-2", Some("GPL-2.0-only")),
            ("GPL-2+", Some("GPL-2.0-or-later")),
            ("GPL-3.0", Some("GPL-3.0-only")),
            ("LGPL-2.1+", Some("LGPL-2.1-or-later")),
            ("GFDL-NIV-1.3+", Some("GFDL-1.3-no-invariants-or-later")),
            ("GPL-2.0-or-later", Some("GPL-2.0-or-later")),
            ("BSD-3-clause", Some("BSD-3-Clause")),
            ("Expat", Some("MIT")),
            ("GPL-1+ or Artistic", Some("GPL-1.0-or-later OR Artistic-1.0-Perl")),
            (
                "GPL-1+ or Artistic, and Expat",
                Some("(GPL-1.0-or-later OR Artistic-1.0-Perl) AND MIT"),
            ),
            (
                "GPL-2 with Linux-syscall-note exception",
                Some("GPL-2.0-only WITH Linux-syscall-note"),
            ),
            ("(MIT OR (ISC))", Some("(MIT OR (ISC))")),
            ("MIT OR", None),
            ("MIT)", None),
            ("", None),
        ] {
            let found = match License::parse(written) {
                License::Expression(e) => Some(e),
                _ => None,
            };
            assert_eq!(found.as_deref(), expected, "{written:?}");
        }
    }

    #[test]
    fn all_of_several_are_joined_unless_one_is_unknown() {
        let names = |list: &[&str]| list.iter().map(|n| n.to_string()).collect::<BTreeSet<_>>();
        assert_eq!(
            License::all(names(&["GPL-2+ or Expat", "ISC"])),
            License::Expression("(GPL-2.0-or-later OR MIT) AND ISC".into())
        );
        assert_eq!(
            License::all(names(&["GPL-2+ or Expat"])),
            License::Expression("GPL-2.0-or-later OR MIT".into())
        );
        assert_eq!(License::all(names(&["ISC", "BSLA"])), License::Named(names(&["ISC", "BSLA"])));
        assert_eq!(License::all(names(&[])), License::Unknown);
    }

    #[test]
    fn classifiers_count_where_they_name_one() {
        let of = |list: &[&str]| of_classifiers(&list.iter().map(|c| format!("License :: {c}")).collect::<Vec<_>>());
        assert_eq!(
            of(&["OSI Approved", "OSI Approved :: MIT License"]),
            Some(License::Expression("MIT".into()))
        );
        assert!(matches!(of(&["OSI Approved :: BSD License"]), Some(License::Named(_))));
        assert_eq!(of(&["OSI Approved :: MIT License", "Public Domain"]), None);
    }

    proptest::proptest! {
        #[test]
        fn what_it_calls_an_expression_is_one(text in "(MIT|ISC|GPL-2\\+|with|or|and|,|\\(|\\)| |é){0,12}") {
            if let License::Expression(e) = License::parse(&text) {
                proptest::prop_assert!(Expression::parse(&e).is_ok(), "{e}");
            }
        }
    }
}
