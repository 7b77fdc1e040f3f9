//! Parses arbitrary sudoers files, separated by NULs: the policy is bounded, and only a user specification grants
//! commands.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obgp_build::layout::tree::{File, Node, NodeKind, Tree};
use obgp_build::verify::sudoers::Policy;

fn node(kind: NodeKind) -> Node {
    Node {
        kind,
        mode: 0o440,
        uid: 0,
        gid: 0,
        mtime: 0,
        xattrs: Default::default(),
        layer: 0,
    }
}

fuzz_target!(|text: &str| {
    let mut tree = Tree::default();
    for directory in ["etc", "etc/sudoers.d"] {
        tree.insert(directory, node(NodeKind::Directory));
    }
    for (path, content) in ["etc/sudoers", "etc/sudoers.d/a", "etc/sudoers.d/b.c"].iter().zip(text.split('\0')) {
        let file = File {
            size: content.len() as u64,
            content: Some(content.as_bytes().into()),
            ..File::default()
        };
        tree.insert(path, node(NodeKind::File(file)));
    }
    let policy = Policy::read(&tree);
    assert!(policy.grants.len() <= 4096 && policy.files.len() <= 3);
    assert!(text.contains('=') || policy.grants.is_empty());
    for grant in &policy.grants {
        let command = grant.command.path.as_str();
        let known = ["ALL", "list", "sudoedit"].contains(&command) || command.starts_with(['/', '^']);
        assert!(known && !grant.users.iter().any(|u| u.name.is_empty()), "{grant}");
        let _ = grant.to_string();
    }
});
