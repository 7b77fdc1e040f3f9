//! Rule about leftovers of a build: caches, lists, logs.

use super::Rule;
use crate::layout::tree::NodeKind;
use crate::verify::Context;
use crate::verify::verdict::Evidence;

pub const LEFTOVERS: Rule = Rule {
    id: "leftovers",
    title: "No caches, package lists, logs, temporary files or machine ID",
    check: leftovers,
};

/// Generated at first boot; an ID in the image would be shared by all containers.
const MACHINE_IDS: [&str; 2] = ["etc/machine-id", "var/lib/dbus/machine-id"];

fn leftovers(context: &Context, evidence: &mut Evidence) {
    let terms = &context.terms.leftovers;
    evidence.checked(context.tree.len(), "paths");
    for (path, node) in context.tree.iter() {
        // Packages own empty directories; only their contents are leftovers.
        if matches!(node.kind, NodeKind::Directory) {
            continue;
        }
        if let Some(pattern) = terms.forbidden.find(path)
            && !terms.allowed.matches(path)
        {
            evidence.file(
                path,
                node.layer,
                format_args!("nothing that is {pattern}"),
                "it is there",
            );
        }
    }
    for path in MACHINE_IDS {
        if let Some(node) = context.tree.get(path)
            && let NodeKind::File(file) = &node.kind
            && file.size > 0
        {
            evidence.file(
                path,
                node.layer,
                "an empty file, filled at first boot",
                format_args!("{} bytes", file.size),
            );
        }
    }
}
