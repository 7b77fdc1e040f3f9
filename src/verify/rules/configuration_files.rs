//! Rule about the configuration files of sudo, NSS and PAM: every line must be in the contract.
//!
//! sudo.conf can load another policy or another sudoers file, nsswitch.conf can read grants from a directory service, and
//! each reader has its own rules for case, comments and continuation lines. The rule does not imitate them: a line is blank,
//! a comment, or a line that the contract lists. Everything else is a finding, so that no reader can see more than the rule.

use super::Rule;
use crate::layout::tree::{File, NodeKind};
use crate::verify::Context;
use crate::verify::contract::ConfigurationFiles;
use crate::verify::verdict::Evidence;

pub const CONFIGURATION_FILES: Rule = Rule {
    id: "configuration-files",
    title: "sudo, NSS and PAM are configured only by lines in the contract",
    check: |context, evidence| {
        let files = &context.terms.configuration_files;
        let count = files.iter().map(|terms| directory(context, evidence, terms)).sum();
        evidence.checked(count, "configuration files");
    },
};

/// Some readers split lines that exceed their buffer, the shortest of which has 1024 bytes, and read the rest of a comment as
/// a line.
const LONGEST_LINE: usize = 1000;

/// Returns the number of files checked.
fn directory(context: &Context, evidence: &mut Evidence, terms: &ConfigurationFiles) -> usize {
    let Ok((directory, _)) = context.tree.resolve(&terms.directory) else {
        return 0;
    };
    let files = context.tree.children(&directory);
    let files = files.filter(|(name, node)| terms.names.matches(name) && node.kind != NodeKind::Directory);
    let mut count = 0;
    for (name, node) in files {
        count += 1;
        let path = format!("{directory}/{name}");
        let resolved = context.tree.resolve(&path);
        match resolved.map(|(_, node)| &node.kind) {
            Ok(NodeKind::File(File {
                content: Some(content), ..
            })) => {
                lines(evidence, terms, &path, node.layer, content);
            }
            Ok(_) => evidence.file(&path, node.layer, "a text file", "nothing that can be read"),
            Err(error) => evidence.file(&path, node.layer, "a text file", error),
        }
    }
    count
}

fn lines(evidence: &mut Evidence, terms: &ConfigurationFiles, path: &str, layer: usize, content: &[u8]) {
    let text = String::from_utf8_lossy(content);
    for (at, line) in text.split('\n').enumerate() {
        let words: Vec<&str> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        let plain = line.len() <= LONGEST_LINE && !line.contains(|c: char| c.is_control() && c != '\t');
        let comment = words.first().is_none_or(|word| word.starts_with('#'));
        if !plain || (!comment && !terms.lines.matches(&words.join(" "))) {
            let position = format_args!("/{path}:{}", at + 1);
            let found: String = line.escape_debug().take(200).collect();
            evidence.finding(position, Some(layer), "a comment or a line of the contract", found);
        }
    }
}
