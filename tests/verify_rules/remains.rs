//! Changes that break the rules of build leftovers, symbolic links and size.

use crate::support::image::SITE;
use crate::{Break, breaks};

pub const BREAKS: &[Break] = &[
    breaks(
        "leftovers",
        |i| i.file("var/lib/apt/lists/archive.ubuntu.com_InRelease", 0o644, ""),
        "/var/lib/apt/lists/**",
    ),
    breaks(
        "leftovers",
        |i| i.file("var/cache/apt/pkgcache.bin", 0o644, ""),
        "/var/cache/**",
    ),
    breaks("leftovers", |i| i.file("var/log/dpkg.log", 0o644, ""), "/var/log/**"),
    breaks("leftovers", |i| i.file("root/.cache/pip/x", 0o644, ""), "/root/**"),
    breaks("leftovers", |i| i.file("tmp/build/x", 0o644, ""), "/tmp/**"),
    breaks("leftovers", |i| i.file("etc/shadow-", 0o600, ""), "shadow"),
    breaks("leftovers", |i| i.file("etc/x.dpkg-old", 0o644, ""), "dpkg-old"),
    breaks("leftovers", |i| i.file("usr/share/x/.git/HEAD", 0o644, ""), ".git"),
    breaks(
        "leftovers",
        |i| i.file("etc/ssh/ssh_host_rsa_key", 0o600, ""),
        "ssh_host",
    ),
    breaks(
        "leftovers",
        |i| i.file("etc/machine-id", 0o444, "0123456789abcdef\n"),
        "filled at first boot",
    ),
    breaks("secrets", |i| i.file("etc/.netrc", 0o600, ""), ".netrc"),
    breaks("secrets", |i| i.file("usr/share/x/id_ed25519", 0o600, ""), "id_"),
    breaks("secrets", |i| i.file("etc/pip.conf", 0o644, ""), "/etc/pip.conf"),
    breaks(
        "secrets",
        |i| i.file("usr/share/x/notes.txt", 0o644, "-----BEGIN EC PRIVATE KEY-----\nMII\n"),
        "starts like a private key",
    ),
    breaks(
        "host-traces",
        |i| {
            i.replace(
                "etc/apt/sources.list.d/ubuntu.sources",
                "archive.ubuntu.com",
                "mirror.example",
            )
        },
        "mirror.example",
    ),
    breaks(
        "host-traces",
        |i| {
            i.file(
                "etc/apt/apt.conf.d/99proxy",
                0o644,
                "Acquire::http::Proxy \"http://p:3128\";\n",
            )
        },
        "sets proxy",
    ),
    breaks(
        "host-traces",
        |i| {
            i.file(
                "etc/apt/apt.conf.d/99https",
                0o644,
                "Acquire { https { CaInfo \"/etc/ssl/site.pem\"; } }\n",
            )
        },
        "sets cainfo",
    ),
    breaks(
        "host-traces",
        |i| i.file("etc/environment", 0o644, "https_proxy=http://p:3128\n"),
        "https_proxy",
    )
    .also(&["configuration-files"]),
    breaks(
        "host-traces",
        |i| i.append("etc/ssl/certs/ca-certificates.crt", "-----BEGIN CERTIFICATE-----"),
        "at most the 1 certificates",
    ),
    breaks(
        "host-traces",
        |i| i.file("usr/local/share/ca-certificates/proxy.crt", 0o644, ""),
        "a local one",
    ),
    breaks(
        "host-traces",
        |i| i.file("etc/ssl/certs/proxy.pem", 0o644, ""),
        "a file of its own",
    ),
    breaks(
        "host-traces",
        |i| {
            i.file(
                &format!("{SITE}/ovn_bgp_agent-7.0.0.dist-info/direct_url.json"),
                0o644,
                "{\"url\": \"file:///home/me\"}",
            )
        },
        "a path of the build machine",
    ),
    breaks(
        "symlinks",
        |i| i.link("usr/bin/x", "nowhere"),
        "/usr/bin/nowhere does not exist",
    ),
    breaks("symlinks", |i| i.link("usr/bin/x", "../../../host"), "above the root"),
    breaks("symlinks", |i| i.link("usr/bin/x", "x"), "a loop"),
    breaks("size", |i| i.compressed = 400 << 20, "400.0 MiB"),
    breaks("size", |i| i.uncompressed = 4 << 30, "4096.0 MiB"),
];
