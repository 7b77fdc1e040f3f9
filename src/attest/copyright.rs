//! `/usr/share/doc/PACKAGE/copyright` -> the licences of a Debian package, where the file is in the machine-readable format.
//!
//! <https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/>

use std::collections::BTreeSet;

use super::license::License;
use crate::layout::tree::Tree;

pub fn license(tree: &Tree, package: &str) -> License {
    let path = format!("usr/share/doc/{package}/copyright");
    let text = tree.content(&path).and_then(|c| std::str::from_utf8(c).ok());
    text.map(parse).unwrap_or_default()
}

/// All licences that the paragraphs about files name. A free-form file says nothing here.
fn parse(text: &str) -> License {
    let mut paragraphs = text.split("\n\n");
    let Some(header) = paragraphs.next().filter(|p| field(p, "Format").is_some()) else {
        return License::Unknown;
    };
    let short_name = |paragraph| field(paragraph, "License").filter(|name| !name.is_empty());
    let mut names: BTreeSet<String> = paragraphs
        .filter(|p| field(p, "Files").is_some())
        .filter_map(short_name)
        .collect();
    if names.is_empty() {
        names.extend(short_name(header));
    }
    License::all(names)
}

/// The first line of a field's value.
fn field(paragraph: &str, name: &str) -> Option<String> {
    paragraph.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim().to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n";

    #[test]
    fn the_paragraphs_about_files_count() {
        let text = format!(
            "{FORMAT}Upstream-Name: x\n\nFiles: *\nCopyright: a\nLicense: GPL-2+\n\nFiles: debian/*\nCopyright: b\nLicense: Expat\n \
             Permission is\n\nLicense: GPL-2+\n Text. License: none\n"
        );
        assert_eq!(parse(&text), License::Expression("GPL-2.0-or-later AND MIT".into()));
        assert_eq!(
            parse(&format!("{FORMAT}License: ISC\n\nLicense: ISC\n Text\n")),
            License::Expression("ISC".into())
        );
    }

    #[test]
    fn a_name_without_identifier_leaves_names() {
        let text = format!("{FORMAT}\nFiles: *\nLicense: BSLA\n\nFiles: x\nLicense: ISC\n");
        let names = ["BSLA", "ISC"].map(str::to_string);
        assert_eq!(parse(&text), License::Named(names.into()));
    }

    #[test]
    fn prose_is_not_read() {
        assert_eq!(parse("This package is\n\nFiles: *\nLicense: MIT\n"), License::Unknown);
    }
}
