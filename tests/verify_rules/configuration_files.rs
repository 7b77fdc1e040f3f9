//! Changes that break the rule of configuration files: whatever their readers understand, the contract must list.

use crate::support::image::TestImage;
use crate::{Break, breaks};

const RULE: &str = "configuration-files";

pub const BREAKS: &[Break] = &[
    breaks(
        RULE,
        |i| i.file("etc/sudo.conf", 0o644, "Plugin sudoers_policy evil.so\n"),
        "/etc/sudo.conf:1",
    ),
    breaks(
        RULE,
        |i| i.replace("etc/nsswitch.conf", "sudoers: files", "sudoers: files sss"),
        "sss",
    ),
    breaks(
        RULE,
        |i| i.append("etc/security/pam_env.conf", "LD_PRELOAD DEFAULT=/tmp/x.so"),
        "LD_PRELOAD",
    ),
    breaks(
        RULE,
        |i| i.file("etc/security/limits.d/x.conf", 0o644, "* hard nproc 1\n"),
        "nproc",
    ),
    breaks(
        RULE,
        |i| i.file("etc/environment", 0o644, "PYTHONPATH=/tmp\n"),
        "PYTHONPATH",
    ),
    breaks(
        "forbidden-files",
        |i| i.file("etc/sudo-ldap.conf", 0o644, ""),
        "sudo-ldap",
    ),
    breaks(
        "forbidden-files",
        |i| i.file("usr/local/etc/sudoers", 0o440, ""),
        "/usr/local/etc/**",
    ),
    breaks(
        "forbidden-files",
        |i| i.file("etc/sssd/sssd.conf", 0o600, ""),
        "/etc/sssd/**",
    ),
    breaks(
        "forbidden-packages",
        |i| {
            i.append(
                "var/lib/dpkg/status",
                "Package: sudo-ldap\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n",
            )
        },
        "sudo-ldap",
    ),
];

/// Whether the rule has a finding on the image with this file.
fn found(path: &str, content: &[u8]) -> bool {
    let mut image = TestImage::good("linux/amd64");
    image.bytes(path, 0o644, content);
    image.check().broken().any(|rule| rule.id == RULE)
}

/// Each was tried with sudo 1.9.13p3 of Debian bookworm: it reads another sudoers file, plugin or path.
#[test]
fn a_line_of_sudo_conf_is_a_finding_in_every_spelling_that_sudo_accepts() {
    let wrong = [
        "Plugin sudoers_policy sudoers.so sudoers_file=/etc/extra",
        "plugin sudoers_policy sudoers.so sudoers_file=/etc/extra",
        "  PLUGIN\tsudoers_policy sudoers.so sudoers_mode=0666 sudoers_uid=42494",
        "Plu\\\ngin sudoers_policy sudoers.so sudoers_file=/etc/extra",
        "Plugin \\\n  sudoers_policy \\\n  sudoers.so \\\n  sudoers_file=/etc/extra",
        "# a comment\r\nPlugin sudoers_policy sudoers.so sudoers_file=/etc/extra\r",
        "PATH plugin_dir /tmp",
        "path askpass /tmp/x",
        "Path noexec /tmp/x.so # a comment",
        "Path intercept",
        "Set group_source dynamic",
        "Set\tdisable_coredump false",
        "debug sudo /tmp/log all@debug",
        "Probe_interfaces false",
        "max_groups 1",
    ];
    for line in wrong {
        assert!(
            found("etc/sudo.conf", line.as_bytes()),
            "{line:?} at the end of the file"
        );
        assert!(
            found("etc/sudo.conf", format!("# first\n\n{line}\n").as_bytes()),
            "{line:?}"
        );
    }
    let right = "# Debian's\n#Plugin sudoers_policy sudoers.so\n\n \t# indented\n\t\n#";
    assert!(!found("etc/sudo.conf", right.as_bytes()));
    assert!(!found("etc/sudo.conf", b""));
}

#[test]
fn a_line_of_nsswitch_conf_is_a_finding_in_every_spelling_that_sudo_or_libc_accepts() {
    let wrong = [
        "sudoers: files sss",
        "Sudoers: sss",
        "SUDOERS:\tldap [SUCCESS=return] files",
        "sudoers:sss",
        "sud\\\noers: sss",
        "sudoers: files\nsudoers: ldap",
        "passwd: files extrausers",
        "passwd : compat",
        "passwd:\tfiles [NOTFOUND=return] x",
        "hosts: files mdns4_minimal dns",
        "group_compat: x",
    ];
    for line in wrong {
        assert!(found("etc/nsswitch.conf", line.as_bytes()), "{line:?}");
    }
    let debian = "# Debian's\n\npasswd:         files\ngroup:          files systemd\nshadow:         files\ngshadow:        files\n\n\
        hosts:          files dns\nnetworks:       files\n\nprotocols:      db files\nservices:       db files\n\
        ethers:         db files\nrpc:            db files\n\nnetgroup:       nis\nsudoers:        files\n";
    assert!(!found("etc/nsswitch.conf", debian.as_bytes()));
}

#[test]
fn bytes_that_readers_take_differently_are_findings_even_in_a_comment() {
    let long = format!("#{:1100}LD_PRELOAD=/tmp/x.so", " ");
    for line in [
        &b"# a\rsudoers: sss"[..],
        b"#\0sudoers: sss",
        b"\x0bPlugin x y",
        b"\x0c# x",
        b"# \x85x",
        long.as_bytes(),
    ] {
        let expected = !matches!(line, b"# \x85x");
        assert_eq!(
            found("etc/sudo.conf", line),
            expected,
            "{:?}",
            line.escape_ascii().to_string()
        );
    }
}

#[test]
fn a_configuration_file_that_is_a_link_is_read_where_it_leads_or_is_a_finding() {
    fn broken(change: impl FnOnce(&mut TestImage)) -> bool {
        let mut image = TestImage::good("linux/amd64");
        change(&mut image);
        image.check().broken().any(|rule| rule.id == RULE)
    }
    assert!(
        broken(|i| i.link("etc/sudo.conf", "/run/sudo.conf")),
        "exists only at run time"
    );
    assert!(
        broken(|i| {
            i.file("usr/share/sudo/sudo.conf", 0o644, "# nothing\n");
            i.link("etc/sudo.conf", "../usr/share/sudo/sudo.conf");
        }),
        "the content of that path is not read"
    );
    assert!(
        broken(|i| {
            i.file("etc/security/x", 0o644, "Plugin x y\n");
            i.link("etc/sudo.conf", "security/x");
        }),
        "the content of that path is read"
    );
    assert!(
        !broken(|i| i.dir("etc/security/limits.d/d", 0o755)),
        "a directory is not read"
    );
    assert!(
        broken(|i| i.file("etc/sudo.conf", 0o644, &"# long\n".repeat(1 << 18))),
        "too large to be read"
    );
}
