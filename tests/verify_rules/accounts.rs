//! Changes that break the rules of the account files.

use crate::{Break, breaks};

const PASSWD: &str = "etc/passwd";

pub const BREAKS: &[Break] = &[
    breaks(
        "users",
        |i| i.replace(PASSWD, ":42494:42494:", ":1000:42494:"),
        "UID 1000",
    )
    .also(&["files", "ownership"]),
    breaks(
        "users",
        |i| i.replace(PASSWD, ":/usr/sbin/nologin", ":/bin/bash"),
        "shell /bin/bash",
    ),
    breaks("users", |i| i.replace(PASSWD, "/var/lib/ovn-bgp-agent", "/"), "home /"),
    breaks(
        "users",
        |i| i.replace(PASSWD, "root:x:", "root::"),
        "an empty password field",
    ),
    breaks(
        "users",
        |i| i.append(PASSWD, "toor:x:0:0::/root:/usr/sbin/nologin"),
        "UID 0 only for root",
    )
    .also(&["passwords"]),
    breaks(
        "users",
        |i| i.append(PASSWD, "ubuntu:x:1000:0::/home/ubuntu:/bin/bash"),
        "ubuntu: no login shell",
    )
    .also(&["passwords"]),
    breaks(
        "users",
        |i| i.append(PASSWD, "sync:x:5:0::/:/bin/false"),
        "one entry with name sync",
    ),
    breaks(
        "users",
        |i| i.append(PASSWD, "a:x:4:0::/:/bin/false"),
        "one entry with UID 4",
    )
    .also(&["passwords"]),
    breaks("users", |i| i.append(PASSWD, "+::::::"), "home").also(&["files", "groups", "ownership", "read-only-root"]),
    breaks("groups", |i| i.replace("etc/group", ":42424:", ":42425:"), "GID 42425"),
    breaks(
        "groups",
        |i| i.replace("etc/group", "sudo:x:27:", "sudo:x:27:ovn-bgp-agent"),
        "not in group sudo",
    ),
    breaks(
        "groups",
        |i| i.replace("etc/group", "42424:ovn-bgp-agent", "42424:"),
        "it is not a member",
    ),
    breaks(
        "groups",
        |i| i.append("etc/group", "g:x:1:nobody-there"),
        "members that exist",
    ),
    breaks("groups", |i| i.append("etc/group", "g:x:27:"), "one entry with GID 27"),
    breaks(
        "groups",
        |i| i.replace("etc/gshadow", "sudo:*::", "sudo:*:ovn-bgp-agent:"),
        "no administrators",
    ),
    breaks(
        "groups",
        |i| i.replace("etc/gshadow", "sudo:*::", "sudo:*::sync"),
        "members sync",
    ),
    breaks(
        "passwords",
        |i| i.replace("etc/shadow", "agent:!:", "agent::"),
        "login without a password",
    ),
    breaks(
        "passwords",
        |i| i.replace("etc/shadow", "root:*:", "root:$y$j9T$salt$hash:"),
        "root: locked",
    ),
    breaks(
        "passwords",
        |i| i.replace("etc/gshadow", "sudo:*:", "sudo::"),
        "sudo: locked",
    ),
    breaks("passwords", |i| i.node("etc/shadow", |n| n.mode = 0o644), "mode 0644"),
    breaks("passwords", |i| i.node("etc/shadow", |n| n.gid = 27), "owner 0:27"),
    breaks("passwords", |i| i.remove("etc/shadow"), "missing"),
];
