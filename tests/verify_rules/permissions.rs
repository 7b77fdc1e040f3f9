//! Changes that break the rules of modes, owners and capabilities.

use obgp_build::layout::tree::NodeKind;

use crate::support::image::SITE;
use crate::{Break, breaks};

pub const BREAKS: &[Break] = &[
    breaks("privileged-files", |i| i.elf("usr/bin/mount", 0o4755), "mode 4755"),
    breaks("privileged-files", |i| i.elf("usr/bin/wall", 0o2755), "mode 2755"),
    breaks("privileged-files", |i| i.node("usr/bin/sudo", |n| n.uid = 4), "owner 4"),
    breaks(
        "privileged-files",
        |i| i.node("usr/bin/sudo", |n| n.mode = 0o6755),
        "mode 6755",
    ),
    breaks(
        "privileged-files",
        |i| {
            i.node("usr/bin/ping", |n| {
                drop(n.xattrs.insert(
                    "security.capability".into(),
                    [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].into(),
                ))
            })
        },
        "cap_net_raw=ep",
    ),
    breaks("world-writable", |i| i.file("etc/motd", 0o666, ""), "mode 0666"),
    breaks(
        "world-writable",
        |i| i.dir("var/crash", 0o1777),
        "a directory in the contract",
    ),
    breaks("world-writable", |i| i.dir("var/open", 0o777), "mode 0777"),
    breaks(
        "agent-writable",
        |i| i.node("usr/local/bin/privsep-helper", |n| n.uid = 42494),
        "owned by it",
    ),
    breaks(
        "agent-writable",
        |i| i.node(SITE, |n| (n.gid, n.mode) = (42424, 0o775)),
        "writable for its group",
    ),
    breaks(
        "agent-writable",
        |i| {
            i.file("var/lib/ovn-bgp-agent/x", 0o644, "x");
            i.node("var/lib/ovn-bgp-agent/x", |n| n.uid = 42494);
        },
        "owned by it",
    ),
    breaks(
        "agent-writable",
        |i| {
            i.node("etc/passwd", |n| {
                drop(n.xattrs.insert("system.posix_acl_access".into(), vec![2]))
            })
        },
        "access control list",
    ),
    breaks("ownership", |i| i.node("usr/bin/jq", |n| n.uid = 1234), "UID 1234"),
    breaks("ownership", |i| i.node("usr/bin/jq", |n| n.gid = 1234), "GID 1234"),
    breaks("devices", |i| i.device("usr/lib/mem"), "character device 1:1"),
    breaks(
        "devices",
        |i| i.node("etc/machine-id", |n| n.kind = NodeKind::Fifo),
        "pipe",
    ),
    breaks(
        "devices",
        |i| {
            i.node("etc/machine-id", |n| {
                n.kind = NodeKind::BlockDevice { major: 8, minor: 0 }
            })
        },
        "8:0",
    ),
];
