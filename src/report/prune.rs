//! The tags that a prune removed and kept, as a person reads them.

use std::fmt::Write as _;

use crate::registry::prune::Pruned;

pub fn text(pruned: &Pruned) -> String {
    let mut text = String::new();
    for tag in &pruned.tags {
        let pushed = tag
            .pushed
            .as_deref()
            .map(|p| format!(", pushed {p}"))
            .unwrap_or_default();
        let what = match (tag.kept, tag.removed, pruned.dry_run) {
            (Some(why), _, _) => format!("stays: {why}"),
            (None, true, _) => "removed".to_string(),
            (None, false, true) => "would be removed".to_string(),
            (None, false, false) => "not removed".to_string(),
        };
        let _ = writeln!(text, "{}:{} {what}{pushed}", pruned.repository, tag.tag);
    }
    if pruned.tags.is_empty() {
        let _ = writeln!(text, "{} has no such tag", pruned.repository);
    }
    text
}
