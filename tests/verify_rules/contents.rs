//! Changes that break the rules of commands, packages, files and ELF headers.

use crate::support::image::elf::{elf_header, static_elf_header};
use crate::{Break, STATUS, breaks};

const RUNTIME: &str = "usr/local/bin/obgp-runtime";

pub const BREAKS: &[Break] = &[
    breaks("commands", |i| i.remove("usr/bin/vtysh"), "not found").also(&["files"]),
    breaks("commands", |i| i.remove("usr/local/bin/obgp-runtime"), "not found").also(&["files", "symlinks"]),
    breaks(
        "commands",
        |i| i.node("usr/bin/jq", |n| n.mode = 0o700),
        "cannot run it",
    ),
    breaks(
        "commands",
        |i| i.remove("etc/alternatives/iptables"),
        "/etc/alternatives/iptables",
    )
    .also(&["symlinks"]),
    breaks("commands", |i| i.node("usr/sbin", |n| n.mode = 0o700), "cannot run it"),
    breaks("forbidden-commands", |i| i.elf("usr/bin/gcc-13", 0o755), "gcc-13"),
    breaks(
        "forbidden-commands",
        |i| i.file("usr/local/bin/pip3.12", 0o755, "#!/usr/bin/python3\n"),
        "pip3.12",
    ),
    breaks("forbidden-commands", |i| i.elf("usr/bin/git", 0o755), "git"),
    breaks("forbidden-commands", |i| i.elf("usr/bin/make", 0o755), "make"),
    breaks("forbidden-commands", |i| i.elf("usr/bin/cc", 0o755), "cc"),
    breaks("forbidden-commands", |i| i.elf("usr/bin/pip", 0o755), "pip"),
    breaks("forbidden-commands", |i| i.elf("usr/sbin/bgpd", 0o755), "bgpd"),
    breaks("forbidden-commands", |i| i.elf("usr/bin/curl", 0o755), "curl"),
    breaks(
        "packages",
        |i| i.replace(STATUS, "Package: jq\n", "Package: jqx\n"),
        "jq installed",
    ),
    breaks(
        "packages",
        |i| {
            i.replace(
                STATUS,
                "jq\nStatus: install ok installed",
                "jq\nStatus: install ok half-configured",
            )
        },
        "half-configured",
    ),
    breaks(
        "packages",
        |i| {
            i.append(
                STATUS,
                "Package: x\nStatus: install ok installed\nVersion: 1\nArchitecture: s390x",
            )
        },
        "s390x",
    ),
    breaks("packages", |i| i.append(STATUS, "nonsense"), "Field: value").also(&["forbidden-packages", "interpreter"]),
    breaks(
        "forbidden-packages",
        |i| i.replace(STATUS, "Package: gcc-14-base", "Package: gcc-14"),
        "gcc-14 14.2.0",
    ),
    breaks(
        "forbidden-packages",
        |i| i.replace(STATUS, "Package: gcc-14-base", "Package: frr"),
        "frr",
    ),
    breaks(
        "forbidden-packages",
        |i| i.replace(STATUS, "Package: gcc-14-base", "Package: python3-pip"),
        "python3-pip",
    ),
    breaks(
        "forbidden-packages",
        |i| i.replace(STATUS, "Package: gcc-14-base", "Package: libssl-dev"),
        "libssl-dev",
    ),
    breaks(
        "files",
        |i| i.node("etc/ovn-bgp-agent", |n| n.mode = 0o750),
        "mode 0750",
    ),
    breaks(
        "files",
        |i| i.node("etc/ovn-bgp-agent", |n| n.gid = 42494),
        "group 42494",
    ),
    breaks("files", |i| i.remove("etc/ovn-bgp-agent"), "does not exist"),
    breaks(
        "files",
        |i| i.link("usr/bin/vtysh", "jq"),
        "a link to ../local/bin/obgp-runtime",
    ),
    breaks("files", |i| i.elf("usr/bin/vtysh", 0o755), "a symbolic link"),
    breaks("files", |i| i.remove("usr/local/sbin/sysctl"), "/usr/local/sbin/sysctl"),
    breaks("files", |i| i.node(RUNTIME, |n| n.mode = 0o775), "mode 0755"),
    breaks(
        "files",
        |i| {
            let mut program = static_elf_header(62);
            program.resize(3_060_001, 0);
            i.bytes(RUNTIME, 0o755, &program);
        },
        "at most 3060000 bytes",
    ),
    breaks("files", |i| i.elf(RUNTIME, 0o755), "one that asks for a loader"),
    breaks(
        "files",
        |i| {
            let mut program = static_elf_header(62);
            // The program headers are at the end of a long file, as patchelf(1) writes them.
            program.resize(100_000, 0);
            (program[33], program[34]) = (0, 1);
            i.bytes(RUNTIME, 0o755, &program);
        },
        "not where they can be read",
    ),
    breaks(
        "files",
        |i| i.file(RUNTIME, 0o755, "#!/bin/sh\nexec vtysh \"$@\"\n"),
        "no ELF file",
    )
    .also(&["console-scripts"]),
    breaks("forbidden-files", |i| i.file(".dockerenv", 0o644, ""), "/.dockerenv"),
    breaks(
        "forbidden-files",
        |i| i.file("etc/pam.d/frr", 0o644, "account sufficient pam_permit.so\n"),
        "/etc/pam.d/frr",
    ),
    breaks(
        "forbidden-files",
        |i| i.file("etc/frr/vtysh.conf", 0o640, ""),
        "/etc/frr/**",
    ),
    breaks(
        "forbidden-files",
        |i| i.elf("usr/lib/x86_64-linux-gnu/frr/libfrr.so.0", 0o644),
        "/usr/lib/*/frr/**",
    ),
    breaks("forbidden-files", |i| i.dir("home/ubuntu", 0o755), "/home/ubuntu"),
    breaks("read-only-root", |i| i.node("tmp", |n| n.mode = 0o755), "mode 0755"),
    breaks(
        "read-only-root",
        |i| i.remove("etc/iproute2/rt_tables"),
        "does not exist",
    ),
    breaks(
        "read-only-root",
        |i| i.replace("etc/iproute2/rt_tables", "254\tmain\n", ""),
        "254 main",
    ),
    breaks("read-only-root", |i| i.link("run", "var/run"), "does not exist").also(&["symlinks"]),
    breaks(
        "elf",
        |i| i.bytes("usr/lib/x.so", 0o644, &elf_header(183)),
        "64-bit little-endian aarch64",
    ),
    breaks(
        "elf",
        |i| {
            i.bytes(
                "usr/lib/x.so",
                0o644,
                b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0",
            )
        },
        "32-bit",
    ),
    breaks("elf", |i| i.bytes("usr/lib/x.so", 0o644, b"\x7fELF\x02"), "truncated"),
    breaks(
        "elf",
        |i| i.remove("usr/lib64/ld-linux-x86-64.so.2"),
        "a loader at /lib64",
    ),
];
