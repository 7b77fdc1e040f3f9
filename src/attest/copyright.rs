//! Reads `/usr/share/doc/PACKAGE/copyright` into the licences of a Debian package, if the file is machine-readable.
//!
//! <https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/>

use std::collections::BTreeSet;

use super::license::License;
use crate::layout::tree::Tree;

/// The path in Debian policy (section 12.5), without the leading slash.
pub fn path(package: &str) -> String {
    format!("usr/share/doc/{package}/copyright")
}

pub fn license(tree: &Tree, package: &str) -> License {
    let text = tree.content(&path(package)).and_then(|c| std::str::from_utf8(c).ok());
    let names = text.map(names).unwrap_or_default();
    License::all(&format!("deb-{package}"), &names)
}

/// All licences in the paragraphs about files. Empty for a free-form file.
fn names(text: &str) -> BTreeSet<String> {
    let mut paragraphs = text.split("\n\n");
    let Some(header) = paragraphs.next().filter(|p| field(p, "Format").is_some()) else {
        return BTreeSet::new();
    };
    let short_name = |paragraph| field(paragraph, "License").filter(|name| !name.is_empty());
    let mut names: BTreeSet<String> = paragraphs
        .filter(|p| field(p, "Files").is_some())
        .filter_map(short_name)
        .collect();
    if names.is_empty() {
        names.extend(short_name(header));
    }
    names
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
        assert_eq!(names(&text), ["Expat", "GPL-2+"].map(str::to_string).into());
        let header = format!("{FORMAT}License: ISC\n\nLicense: ISC\n Text\n");
        assert_eq!(names(&header), ["ISC".to_string()].into());
    }

    #[test]
    fn prose_is_not_read() {
        assert!(names("This package is\n\nFiles: *\nLicense: MIT\n").is_empty());
    }
}
