//! Changes that break the rules of the origin of files: paths of nothing, and changes of what a record has.

use crate::support::image::records::{LIST, loader_cache};
use crate::support::image::{SITE, TestImage};
use crate::{Break, STATUS, breaks};

const RUNTIME: &str = "usr/local/bin/obgp-runtime";
const LISTED: &str = "var/lib/dpkg/info/jq.list";

/// Rules that a change of almost any file breaks too, because some record has its hash.
pub const RECORDS: &[&str] = &["origins", "package-files", "built-files", "python-distributions"];

fn site(path: &str) -> String {
    format!("{SITE}/{path}")
}

fn in_a_later_layer(image: &mut TestImage, path: &str) {
    image.node(path, |node| node.layer = 1);
}

pub const BREAKS: &[Break] = &[
    breaks(
        "origins",
        |i| i.file("etc/ld.so.preload", 0o644, "/usr/lib/x.so\n"),
        "/etc/ld.so.preload",
    ),
    breaks(
        "origins",
        |i| i.file("usr/lib/python3/dist-packages/sitecustomize.py", 0o644, ""),
        "sitecustomize.py",
    ),
    breaks(
        "origins",
        |i| i.file(&site("sitecustomize.py"), 0o644, ""),
        "sitecustomize.py",
    ),
    breaks("origins", |i| i.elf("usr/bin/helper", 0o755), "/usr/bin/helper"),
    breaks("origins", |i| i.elf("usr/local/sbin/ip", 0o755), "/usr/local/sbin/ip"),
    breaks(
        "origins",
        |i| i.elf("usr/local/lib/libc.so.6", 0o644),
        "/usr/local/lib/libc.so.6",
    ),
    breaks(
        "origins",
        |i| i.file("etc/ld.so.conf.d/x.conf", 0o644, "/tmp\n"),
        "/etc/ld.so.conf.d/x.conf",
    ),
    breaks(
        "origins",
        |i| i.file("etc/profile.d/x.sh", 0o644, "PATH=/tmp\n"),
        "/etc/profile.d/x.sh",
    ),
    breaks("origins", |i| i.dir("usr/lib/empty", 0o755), "/usr/lib/empty"),
    breaks("origins", |i| i.link("usr/bin/sh2", "bash"), "/usr/bin/sh2"),
    breaks(
        "origins",
        |i| {
            i.remove("etc/alternatives/iptables");
            i.link("etc/alternatives/iptables", "/usr/bin/jq");
        },
        "/etc/alternatives/iptables",
    ),
    breaks(
        "origins",
        |i| in_a_later_layer(i, "etc/mtab"),
        "a later layer than the base's",
    ),
    breaks(
        "origins",
        |i| i.file("var/lib/dpkg/info/none.postinst", 0o755, "#!/bin/sh\n"),
        "none.postinst",
    ),
    breaks(
        "origins",
        |i| i.append("etc/pam.d/common-auth", "auth sufficient pam_permit.so"),
        "auth sufficient pam_permit.so",
    ),
    breaks(
        "origins",
        |i| i.replace("etc/pam.d/common-auth", "auth\trequisite\t\t\tpam_deny.so\n", ""),
        "pam_deny.so",
    ),
    breaks("origins", |i| i.append("etc/profile", "PATH=/tmp"), "a copy of"),
    breaks("package-files", |i| i.flip("usr/bin/jq"), "of package jq"),
    breaks(
        "package-files",
        |i| i.file("usr/lib/python3.12/json/__init__.py", 0o644, "# library "),
        "json/__init__.py",
    ),
    breaks(
        "package-files",
        |i| i.file("etc/pam.d/sudo", 0o644, "auth sufficient pam_permit.so\n"),
        "/etc/pam.d/sudo",
    ),
    breaks(
        "package-files",
        |i| i.flip("usr/lib/x86_64-linux-gnu/libc.so.6"),
        "libc.so.6",
    ),
    breaks("package-files", |i| i.remove("usr/bin/sync"), "missing"),
    breaks(
        "package-files",
        |i| {
            i.remove("usr/bin/sync");
            i.link("usr/bin/sync", "jq");
        },
        "another type",
    ),
    breaks(
        "package-files",
        |i| {
            i.remove("lib");
            i.link("lib", "usr/lib");
            in_a_later_layer(i, "lib");
        },
        "the link of layer 0",
    ),
    breaks("package-files", |i| i.remove(LISTED), "the list of jq's files"),
    breaks(
        "package-files",
        |i| i.remove("var/lib/dpkg/info/jq.md5sums"),
        "no MD5 there",
    ),
    breaks(
        "package-files",
        |i| {
            i.append(
                STATUS,
                "\nPackage: more\nStatus: install ok installed\nArchitecture: all\nVersion: 1",
            )
        },
        "the list of more's files",
    ),
    breaks("built-files", |i| i.flip(RUNTIME), "/usr/local/bin/obgp-runtime"),
    breaks("built-files", |i| i.flip("usr/bin/ovs-vsctl"), "/usr/bin/ovs-vsctl"),
    breaks("built-files", |i| i.flip("etc/sudoers"), "/etc/sudoers"),
    breaks(
        "built-files",
        |i| i.flip("usr/lib/python3.12/__pycache__/os.cpython-312.pyc"),
        "os.cpython-312.pyc",
    ),
    breaks(
        "built-files",
        |i| i.flip(&site("ovn_bgp_agent-7.0.0.dist-info/RECORD")),
        "RECORD",
    ),
    breaks("built-files", |i| i.remove(LIST), "the build's list"),
    breaks("built-files", |i| i.append(LIST, "0123  ./etc/passwd"), "not `SHA-256"),
    breaks(
        "built-files",
        |i| {
            i.file("etc/ld.so.preload", 0o644, "");
            let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
            i.append(LIST, &format!("{empty}  ./etc/ld.so.preload"));
        },
        "only paths that the contract",
    ),
    breaks(
        "python-distributions",
        |i| i.flip(&site("oslo_privsep/daemon.py")),
        "oslo_privsep/daemon.py",
    ),
    breaks(
        "python-distributions",
        |i| i.flip(&site("msgpack/_cmsgpack.cpython-312-x86_64-linux-gnu.so")),
        "_cmsgpack",
    ),
    breaks(
        "python-distributions",
        |i| i.flip("usr/local/bin/ovn-bgp-agent"),
        "/usr/local/bin/ovn-bgp-agent",
    ),
    breaks(
        "loader-cache",
        |i| i.bytes("etc/ld.so.cache", 0o644, &loader_cache("libc.so.6", "/tmp/libc.so.6")),
        "/tmp/libc.so.6",
    ),
    breaks(
        "loader-cache",
        |i| {
            let cache = loader_cache("libc.so.6", "/lib/x86_64-linux-gnu/libm.so.6");
            i.bytes("etc/ld.so.cache", 0o644, &cache);
        },
        "libm.so.6",
    ),
    breaks(
        "loader-cache",
        |i| i.bytes("etc/ld.so.cache", 0o644, b"ld.so-1.7.0"),
        "nothing that can be read",
    ),
];
