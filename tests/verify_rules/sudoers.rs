//! Changes that break the rules of sudo.

use crate::{Break, breaks};

pub const BREAKS: &[Break] = &[
    breaks(
        "sudoers-files",
        |i| i.node("etc/sudoers", |n| n.mode = 0o640),
        "mode 0640",
    ),
    breaks("sudoers-files", |i| i.node("etc/sudoers", |n| n.uid = 4), "owner 4:0"),
    breaks(
        "sudoers-files",
        |i| i.append("etc/sudoers", "@include /etc/sudoers.local"),
        "does not exist",
    ),
    breaks(
        "sudoers-files",
        |i| i.append("etc/sudoers", "@includedir /etc/nowhere.d"),
        "does not exist",
    ),
    breaks(
        "sudoers-files",
        |i| i.append("etc/sudoers", "@include /opt/sudoers"),
        "opt",
    ),
    breaks(
        "sudoers-files",
        |i| i.append("etc/sudoers", "#include /etc/sudoers"),
        "too many levels",
    ),
    breaks(
        "sudoers-files",
        |i| i.append("etc/sudoers", "alice ALL = nonsense"),
        "neither an absolute path",
    ),
    breaks(
        "sudoers-files",
        |i| i.file("etc/sudoers.d/later", 0o440, "%sudo ALL = ALL\n"),
        "only included files",
    ),
    breaks(
        "sudoers-files",
        |i| i.link("etc/sudoers.d/later", "/run/later"),
        "only included files",
    ),
    breaks(
        "sudoers-files",
        |i| {
            i.append("etc/sudoers", "@includedir sudoers.d");
            i.link("etc/sudoers.d/later", "/etc/sudoers-later");
            i.file("etc/sudoers-later", 0o440, "# nothing yet\n");
        },
        "a symbolic link",
    ),
    breaks(
        "sudoers-files",
        |i| i.append("etc/sudoers", "@include /etc/sudoers.d/a:/etc/sudoers.d/b"),
        "a list of paths",
    ),
    breaks(
        "sudoers-grants",
        |i| i.append("etc/sudoers", "%sudo ALL=(ALL:ALL) ALL"),
        "%sudo ALL = (ALL : ALL) ALL",
    ),
    breaks(
        "sudoers-grants",
        |i| i.append("etc/sudoers", "root ALL=(ALL) ALL"),
        "root ALL = (ALL) ALL",
    ),
    breaks(
        "sudoers-grants",
        |i| i.replace("etc/sudoers", "(root)", "(ALL)"),
        "(ALL) NOPASSWD",
    ),
    breaks(
        "sudoers-grants",
        |i| i.replace("etc/sudoers", "NOPASSWD:", "NOPASSWD: SETENV:"),
        "SETENV",
    ),
    breaks(
        "sudoers-grants",
        |i| i.replace("etc/sudoers", "NOPASSWD: ", ""),
        "no such grant",
    ),
    // Grants that are wider than the command: every subcommand, every file of its directory, an unrestricted helper.
    breaks(
        "sudoers-grants",
        |i| i.replace("etc/sudoers", "obgp-runtime privsep *", "obgp-runtime"),
        "/usr/local/bin/obgp-runtime",
    ),
    breaks(
        "sudoers-grants",
        |i| i.replace("etc/sudoers", "obgp-runtime privsep *", "obgp-runtime *"),
        "obgp-runtime *",
    ),
    breaks(
        "sudoers-grants",
        |i| i.replace("etc/sudoers", "bin/obgp-runtime privsep *", "bin/"),
        "NOPASSWD: /usr/local/bin/",
    ),
    breaks(
        "sudoers-grants",
        |i| i.replace("etc/sudoers", "privsep *", "^(privsep|agent) .*$"),
        "^(privsep|agent) .*$",
    ),
    breaks(
        "sudoers-grants",
        |i| {
            i.append(
                "etc/sudoers",
                "ovn-bgp-agent ALL = (root) NOPASSWD: /usr/local/bin/privsep-helper *",
            )
        },
        "privsep-helper *",
    ),
    // The same command under another name, and for another user.
    breaks(
        "sudoers-grants",
        |i| {
            i.append(
                "etc/sudoers",
                "ovn-bgp-agent ALL = (root) NOPASSWD: /usr/bin/vtysh privsep *",
            )
        },
        "/usr/bin/vtysh privsep *",
    ),
    breaks(
        "sudoers-grants",
        |i| i.replace("etc/sudoers", "ovn-bgp-agent ALL", "nobody ALL"),
        "nobody ALL",
    ),
    breaks(
        "sudoers-grants",
        |i| {
            i.append("etc/sudoers", "#includedir /etc/sudoers.d");
            i.file("etc/sudoers.d/README", 0o440, "# nothing\n");
            i.file("etc/sudoers.d/extra", 0o440, "#42494 ALL = NOPASSWD: /usr/bin/jq\n");
            // sudo ignores file names with a dot.
            i.file("etc/sudoers.d/left.out", 0o440, "ALL ALL = ALL\n");
        },
        "#42494 ALL = (root) NOPASSWD: /usr/bin/jq",
    )
    .also(&["sudoers-files"]),
    breaks("sudoers-grants", |i| i.remove("etc/sudoers"), "no such grant").also(&["sudoers-files", "sudoers-defaults"]),
    breaks(
        "sudoers-defaults",
        |i| i.replace("etc/sudoers", "Defaults env_reset\n", ""),
        "no such setting",
    ),
    breaks(
        "sudoers-defaults",
        |i| i.append("etc/sudoers", "Defaults:ovn-bgp-agent !authenticate"),
        "!authenticate",
    ),
    breaks(
        "sudoers-defaults",
        |i| i.append("etc/sudoers", "Defaults env_keep += PYTHONPATH"),
        "env_keep+=",
    ),
    breaks(
        "sudoers-defaults",
        |i| i.replace("etc/sudoers", "/usr/local/sbin:/usr", "/tmp:/usr"),
        "/tmp:",
    ),
];
