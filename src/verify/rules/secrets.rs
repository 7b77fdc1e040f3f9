//! Rule about secrets, in every layer: a file that a later layer removes is still pulled with the image.

use super::Rule;
use crate::layout::Secret;
use crate::layout::tree::NodeKind;
use crate::verify::Context;
use crate::verify::verdict::Evidence;

pub const SECRETS: Rule = Rule {
    id: "secrets",
    title: "No layer has private keys, tokens or password files",
    check: secrets,
};

fn secrets(context: &Context, evidence: &mut Evidence) {
    let files = context.tree.iter().filter_map(|(path, node)| match &node.kind {
        NodeKind::File(file) => Some((path, node.layer, file.secret, "")),
        _ => None,
    });
    let removed = ", in a layer below the one that removes it";
    let hidden = context.tree.hidden().iter();
    let hidden = hidden.map(|file| (file.path.as_str(), file.layer, file.secret, removed));
    let mut count = 0;
    for (path, layer, secret, place) in files.chain(hidden) {
        count += 1;
        one(context, evidence, path, layer, secret, place);
    }
    evidence.checked(count, "files");
}

fn one(context: &Context, evidence: &mut Evidence, path: &str, layer: usize, secret: Option<Secret>, place: &str) {
    let terms = &context.terms.secrets;
    if terms.allowed.matches(path) {
        return;
    }
    if let Some(pattern) = terms.names.find(path) {
        let found = format_args!("it is there{place}");
        evidence.file(path, layer, format_args!("nothing that is {pattern}"), found);
    } else if let Some(secret) = secret {
        let found = format_args!("it has {secret}{place}");
        evidence.file(path, layer, "no private key and no access token", found);
    }
}
