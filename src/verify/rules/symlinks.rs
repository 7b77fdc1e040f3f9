//! Rule about symbolic links: every target exists, inside the image.

use super::Rule;
use crate::layout::tree::{NodeKind, Unresolved};
use crate::verify::Context;
use crate::verify::verdict::Evidence;

pub const SYMLINKS: Rule = Rule {
    id: "symlinks",
    title: "Every symbolic link has a target inside the image",
    check: symlinks,
};

fn symlinks(context: &Context, evidence: &mut Evidence) {
    let terms = &context.terms.symlinks;
    let mut count = 0;
    for (path, node) in context.tree.iter() {
        let NodeKind::Symlink(target) = &node.kind else {
            continue;
        };
        count += 1;
        if escapes(path, target) {
            evidence.file(
                path,
                node.layer,
                "a target inside the image",
                format_args!("{target}: above the root"),
            );
            continue;
        }
        let lead = match context.tree.resolve(path) {
            Ok(_) => continue,
            Err(Unresolved::Loop(at)) => format!("{target}: a loop at /{at}"),
            // The last target of a chain must exist at run time.
            Err(Unresolved::Missing(at)) if terms.runtime.matches(&at) => continue,
            Err(Unresolved::Missing(at)) => format!("{target}: /{at} does not exist"),
        };
        if !terms.dangling.matches(path) {
            evidence.file(path, node.layer, "a target that exists", lead);
        }
    }
    evidence.checked(count, "symbolic links");
}

/// Whether `..` in a relative target climbs above the root. The kernel stops at the root; a program that unpacks the
/// layer may not.
fn escapes(path: &str, target: &str) -> bool {
    let mut depth = if target.starts_with('/') {
        0
    } else {
        path.matches('/').count() as i64
    };
    target.split('/').any(|part| {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        depth < 0
    })
}

#[cfg(test)]
mod tests {
    use super::escapes;

    #[test]
    fn climbing_out_is_an_escape() {
        assert!(!escapes("usr/bin/vi", "../lib/x"));
        assert!(!escapes("usr/bin/vi", "../../etc/x"));
        assert!(escapes("usr/bin/vi", "../../../etc/x"));
        assert!(escapes("etc/x", "/../y"));
        assert!(!escapes("bin", "usr/bin"));
        assert!(escapes("bin", "usr/../../x"));
    }
}
