//! Rules about modes, owners and capabilities: who can become root, and who can change which files.

use std::collections::BTreeMap;

use super::Rule;
use crate::layout::tree::{Node, NodeKind};
use crate::verify::Context;
use crate::verify::verdict::Evidence;

pub const PRIVILEGED: Rule = Rule {
    id: "privileged-files",
    title: "Only files in the contract have setuid, setgid or capabilities",
    check: privileged,
};

pub const WORLD_WRITABLE: Rule = Rule {
    id: "world-writable",
    title: "Nothing is world-writable except the contract's directories with the sticky bit",
    check: world_writable,
};

pub const AGENT_WRITABLE: Rule = Rule {
    id: "agent-writable",
    title: "The agent's user can change only paths in the contract",
    check: agent_writable,
};

pub const OWNERSHIP: Rule = Rule {
    id: "ownership",
    title: "Every path belongs to a user and a group that exist",
    check: ownership,
};

pub const DEVICES: Rule = Rule {
    id: "devices",
    title: "No device nodes or named pipes",
    check: devices,
};

const CAPABILITY_XATTR: &str = "security.capability";
const SETUID_SETGID: u32 = 0o6000;

fn privileged(context: &Context, evidence: &mut Evidence) {
    let terms = &context.terms.permissions;
    let allowed_mode: BTreeMap<_, _> = terms
        .setuid
        .iter()
        .map(|(p, m)| (p.trim_start_matches('/'), m))
        .collect();
    let allowed_caps: BTreeMap<_, _> = terms
        .capabilities
        .iter()
        .map(|(p, c)| (p.trim_start_matches('/'), c))
        .collect();
    let mut count = 0;
    for (path, node) in context.tree.iter() {
        if let NodeKind::File(_) = node.kind {
            count += 1;
            if node.mode & SETUID_SETGID != 0 {
                match allowed_mode.get(path) {
                    None => evidence.file(
                        path,
                        node.layer,
                        "no setuid, no setgid",
                        format_args!("mode {:04o}, owner {}:{}", node.mode, node.uid, node.gid),
                    ),
                    Some(mode) if mode.0 != node.mode || (node.mode & 0o4000 != 0 && node.uid != 0) => evidence.file(
                        path,
                        node.layer,
                        format_args!("mode {mode}, owner 0"),
                        format_args!("mode {:04o}, owner {}", node.mode, node.uid),
                    ),
                    Some(_) => {}
                }
            }
        }
        if let Some(value) = node.xattrs.get(CAPABILITY_XATTR) {
            let found = capabilities(value).unwrap_or_else(|| "capabilities that cannot be read".to_string());
            let wanted = allowed_caps.get(path).map(|c| c.as_str());
            if wanted != Some(found.as_str()) {
                evidence.file(path, node.layer, wanted.unwrap_or("no capabilities"), found);
            }
        }
    }
    evidence.checked(count, "files");
}

/// linux/capability.h, in order of their numbers.
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// `struct vfs_cap_data` (linux/capability.h) as getcap(8) prints it: `cap_net_raw=ep`.
fn capabilities(value: &[u8]) -> Option<String> {
    let word = |at: usize| Some(u32::from_le_bytes(value.get(at * 4..at * 4 + 4)?.try_into().ok()?));
    let magic = word(0)?;
    let words = match magic >> 24 {
        1 => 1,
        2 | 3 => 2,
        _ => return None,
    };
    let (mut permitted, mut inheritable) = (0u64, 0u64);
    for n in 0..words {
        permitted |= u64::from(word(1 + 2 * n)?) << (32 * n);
        inheritable |= u64::from(word(2 + 2 * n)?) << (32 * n);
    }
    let effective = magic & 1 != 0;
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for bit in 0..64 {
        let (p, i) = (permitted >> bit & 1 != 0, inheritable >> bit & 1 != 0);
        if p || i {
            let mut flags = String::new();
            for (set, flag) in [(effective, 'e'), (i, 'i'), (p, 'p')] {
                if set {
                    flags.push(flag);
                }
            }
            let name = CAPABILITIES.get(bit).map_or(format!("{bit}"), |n| format!("cap_{n}"));
            groups.entry(flags).or_default().push(name);
        }
    }
    let texts: Vec<String> = groups
        .iter()
        .map(|(flags, names)| format!("{}={flags}", names.join(",")))
        .collect();
    Some(if texts.is_empty() {
        "=".to_string()
    } else {
        texts.join(" ")
    })
}

/// A symbolic link's mode has no effect; devices have their own rule, and the runtime's /dev hides them.
fn modes_matter(node: &Node) -> bool {
    matches!(node.kind, NodeKind::File(_) | NodeKind::Directory)
}

fn world_writable(context: &Context, evidence: &mut Evidence) {
    evidence.checked(context.tree.len(), "paths");
    for (path, node) in context.tree.iter() {
        if !modes_matter(node) || node.mode & 0o002 == 0 {
            continue;
        }
        let sticky = matches!(node.kind, NodeKind::Directory) && node.mode & 0o1000 != 0;
        if !sticky || !context.terms.permissions.world_writable.matches(path) {
            let expected = if sticky {
                "a directory in the contract"
            } else {
                "not writable for everybody"
            };
            evidence.file(path, node.layer, expected, format_args!("mode {:04o}", node.mode));
        }
    }
}

fn agent_writable(context: &Context, evidence: &mut Evidence) {
    evidence.checked(context.tree.len(), "paths");
    let agent = context.expected.identity;
    for (path, node) in context.tree.iter() {
        if !modes_matter(node) {
            continue;
        }
        // An owner can grant itself write permission, so owning is enough. World-writable files have their own rule.
        let found = if node.uid == agent.uid {
            "owned by it"
        } else if context.is_agents_group(node.gid) && node.mode & 0o020 != 0 {
            "writable for its group"
        } else if node.xattrs.keys().any(|x| x.starts_with("system.posix_acl")) {
            "an access control list, which this rule cannot evaluate"
        } else {
            continue;
        };
        if !context.terms.permissions.agent_writable.matches(path) {
            evidence.file(
                path,
                node.layer,
                format_args!("{} cannot change it", agent.name),
                format_args!("{found}: mode {:04o}, owner {}:{}", node.mode, node.uid, node.gid),
            );
        }
    }
}

fn ownership(context: &Context, evidence: &mut Evidence) {
    let accounts = &context.accounts;
    for (path, error) in [
        ("/etc/passwd", accounts.passwd.as_ref().err()),
        ("/etc/group", accounts.group.as_ref().err()),
    ] {
        if let Some(error) = error {
            return evidence.finding(path, None, "the owners of all files", error);
        }
    }
    evidence.checked(context.tree.len(), "paths");
    let users: Vec<u32> = accounts.users().iter().map(|u| u.uid).collect();
    let groups: Vec<u32> = accounts.groups().iter().map(|g| g.gid).collect();
    for (path, node) in context.tree.iter() {
        if !users.contains(&node.uid) {
            evidence.file(
                path,
                node.layer,
                "an owner of /etc/passwd",
                format_args!("UID {}", node.uid),
            );
        }
        if !groups.contains(&node.gid) {
            evidence.file(
                path,
                node.layer,
                "a group of /etc/group",
                format_args!("GID {}", node.gid),
            );
        }
    }
}

fn devices(context: &Context, evidence: &mut Evidence) {
    evidence.checked(context.tree.len(), "paths");
    for (path, node) in context.tree.iter() {
        let found = match node.kind {
            NodeKind::CharDevice { major, minor } => format!("character device {major}:{minor}"),
            NodeKind::BlockDevice { major, minor } => format!("block device {major}:{minor}"),
            NodeKind::Fifo => "a named pipe".to_string(),
            NodeKind::File(_) | NodeKind::Directory | NodeKind::Symlink(_) => continue,
        };
        if !context.terms.permissions.devices.matches(path) {
            evidence.file(path, node.layer, "no device (runtimes make /dev)", found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Created with `setcap cap_net_raw+ep` and read with `getfattr -e hex`.
    const PING: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn capabilities_read_as_getcap_prints_them() {
        assert_eq!(capabilities(&PING).unwrap(), "cap_net_raw=ep");
        let mut two = PING;
        two[5] |= 0x10;
        two[0] = 0;
        assert_eq!(capabilities(&two).unwrap(), "cap_net_admin,cap_net_raw=p");
        assert_eq!(capabilities(&PING[..12]), None);
        assert_eq!(capabilities(&[]), None);
    }
}
