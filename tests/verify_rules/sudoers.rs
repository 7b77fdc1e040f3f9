//! Breaks of what sudo allows.

use crate::{Break, STATUS, breaks};

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
    )
    // Read over and over, it says the same things again.
    .also(&[]),
    breaks(
        "sudoers-files",
        |i| i.append("etc/sudoers", "alice ALL = nonsense"),
        "neither an absolute path",
    ),
    breaks(
        "sudoers-files",
        |i| i.file("etc/sudoers.d/later", 0o440, "%sudo ALL = ALL\n"),
        "only files that are included",
    ),
    breaks(
        "sudoers-files",
        |i| i.file("etc/sudo.conf", 0o644, "Plugin sudoers_policy evil.so\n"),
        "Plugin",
    ),
    breaks(
        "sudoers-files",
        |i| i.replace("etc/nsswitch.conf", "sudoers: files", "sudoers: files sss"),
        "sss",
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
    breaks(
        "sudoers-grants",
        |i| i.replace("etc/sudoers", "[.](default|ovs_vsctl_cmd|vtysh_cmd)", ".*"),
        "only the grants",
    ),
    breaks(
        "sudoers-grants",
        |i| {
            i.edit("etc/sudoers", |t| {
                format!(
                    "{}ovn-bgp-agent ALL = (root) NOPASSWD: /usr/local/bin/privsep-helper *\n",
                    t.replace("ovn-bgp-agent ALL", "nobody ALL")
                )
            })
        },
        "privsep-helper *",
    ),
    breaks(
        "sudoers-grants",
        |i| {
            i.append("etc/sudoers", "#includedir /etc/sudoers.d");
            i.file("etc/sudoers.d/README", 0o440, "# nothing\n");
            i.file("etc/sudoers.d/extra", 0o440, "#42494 ALL = NOPASSWD: /usr/bin/jq\n");
            // sudo leaves these out.
            i.file("etc/sudoers.d/left.out", 0o440, "ALL ALL = ALL\n");
        },
        "#42494 ALL = (root) NOPASSWD: /usr/bin/jq",
    )
    .also(&["sudoers-files"]),
    breaks(
        "sudoers-grants",
        |i| i.replace(STATUS, "1.9.15p5-3ubuntu5", "1.9.9-1ubuntu2"),
        "matches nothing",
    ),
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
