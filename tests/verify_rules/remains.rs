//! Changes that break the rules of build leftovers, symbolic links and size.

use crate::support::image::contents::certificate;
use crate::support::image::{SITE, TestImage};
use crate::{Break, breaks};

const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
const SHIPPED: &str = "usr/share/ca-certificates/mozilla";
const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nMII\n";

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
        "a private key",
    ),
    breaks(
        "secrets",
        |i| {
            i.file(
                "usr/share/x/run.sh",
                0o755,
                "curl -H 'PRIVATE-TOKEN: glpat-aB3dE6gH9jK2mN5pQ8sT1v' x\n",
            )
        },
        "an access token",
    ),
    breaks("secrets", |i| i.hidden("srv/app/.netrc", b""), "in a layer below"),
    breaks(
        "secrets",
        |i| i.hidden("srv/app/notes", KEY.as_bytes()),
        "a private key, in a layer below",
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
        "another text in line 8",
    ),
    // One certificate more, with its file.
    breaks(
        "host-traces",
        |i| {
            i.file(&format!("{SHIPPED}/C.crt"), 0o644, &certificate("MIIC"));
            i.link("etc/ssl/certs/C.pem", &format!("/{SHIPPED}/C.crt"));
            i.append(BUNDLE, &certificate("MIIC"));
        },
        "not in the package",
    ),
    // One in another's place, in the bundle, in the file, and in both.
    breaks(
        "host-traces",
        |i| i.replace(BUNDLE, "MIIA", "MIIC"),
        "one with the fingerprint",
    ),
    breaks("host-traces", |i| i.replace(BUNDLE, "MIIA", "MIIC"), "it is missing"),
    breaks(
        "host-traces",
        |i| i.file(&format!("{SHIPPED}/A.crt"), 0o644, &certificate("MIIC")),
        "another content",
    ),
    breaks(
        "host-traces",
        |i| {
            i.file(&format!("{SHIPPED}/A.crt"), 0o644, &certificate("MIIC"));
            i.replace(BUNDLE, "MIIA", "MIIC");
        },
        "another content",
    ),
    breaks(
        "host-traces",
        |i| {
            i.replace(
                BUNDLE,
                "-----BEGIN CERTIFICATE-----\nMIIA",
                "-----BEGIN TRUSTED CERTIFICATE-----\nMIIA",
            )
        },
        "another text in line 1",
    ),
    breaks(
        "host-traces",
        |i| i.link("etc/ssl/certs/0a1b2c3d.0", "/etc/apt/sources.list.d/ubuntu.sources"),
        "/etc/apt/sources.list.d/ubuntu.sources",
    ),
    breaks(
        "host-traces",
        |i| i.link("etc/ssl/certs/0a1b2c3d.0", "/run/ca.pem"),
        "a link to",
    ),
    breaks(
        "host-traces",
        |i| i.file("usr/lib/ssl/cert.pem", 0o644, &certificate("MIIC")),
        "a local one",
    ),
    breaks(
        "host-traces",
        |i| i.file("etc/pki/tls/certs/ca-bundle.crt", 0o644, ""),
        "a local one",
    ),
    breaks(
        "host-traces",
        |i| {
            i.file("usr/share/other/C.pem", 0o644, &certificate("MIIC"));
            i.link("usr/lib/ssl/certs", "/usr/share/other");
        },
        "/usr/share/other",
    ),
    breaks(
        "host-traces",
        |i| {
            i.replace(
                "etc/apt/sources.list.d/ubuntu.sources",
                "http://archive.ubuntu.com/ubuntu/",
                "file:/srv/mirror",
            )
        },
        "file:/srv/mirror",
    ),
    breaks(
        "host-traces",
        |i| {
            i.file(
                "etc/apt/sources.list",
                0o644,
                "deb [arch=amd64] mirror+file:/etc/apt/mirrors.txt noble main\n",
            )
        },
        "mirror+file:/etc/apt/mirrors.txt",
    ),
    breaks(
        "host-traces",
        |i| {
            i.file("usr/share/x.list", 0o644, "deb file:/srv/mirror noble main\n");
            i.link("etc/apt/sources.list.d/x.list", "/usr/share/x.list");
        },
        "nothing that can be read",
    ),
    breaks(
        "host-traces",
        |i| {
            i.file(
                "etc/apt/apt.conf.d/99sources",
                0o644,
                "Dir::Etc::SourceList \"/usr/share/x.list\";\n",
            )
        },
        "sets sourcelist",
    ),
    breaks(
        "host-traces",
        |i| i.file("etc/apt/apt.conf.d/99more", 0o644, "#include \"/usr/share/x.conf\";\n"),
        "sets #include",
    ),
    breaks(
        "host-traces",
        |i| i.file("etc/profile.d/x.sh", 0o644, "export HTTP\\\nS_PROXY=http://p:3128\n"),
        "sets https_proxy",
    ),
    breaks(
        "host-traces",
        |i| {
            i.file(
                "etc/profile.d/x.sh",
                0o644,
                "//bin/true; export https_proxy=http://p:3128\n",
            )
        },
        "sets https_proxy",
    ),
    breaks(
        "host-traces",
        |i| {
            i.file(
                &format!("{SITE}/ovn_bgp_agent-7.0.0.dist-info/direct_url.json"),
                0o644,
                "{\"url\": \"\\u0066ile:///home/me\"}",
            )
        },
        "a path of the build machine",
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

/// The rules that an image with this file breaks.
fn broken_by(path: &str, content: &[u8]) -> Vec<String> {
    let mut image = TestImage::good("linux/amd64");
    image.bytes(path, 0o600, content);
    image.check().broken().map(|rule| rule.id.to_string()).collect()
}

#[test]
fn files_in_which_programs_keep_logins_are_findings_in_every_directory() {
    let names = [
        ".netrc",
        "_netrc",
        ".git-credentials",
        ".pypirc",
        ".pip/pip.conf",
        ".config/pip/pip.conf",
        ".config/uv/uv.toml",
        ".local/share/uv/credentials/credentials.toml",
        ".npmrc",
        ".yarnrc.yml",
        ".docker/config.json",
        ".dockercfg",
        ".config/containers/auth.json",
        "containers/0/auth.json",
        ".aws/credentials",
        ".aws/config",
        ".azure/msal_token_cache.json",
        ".config/gcloud/credentials.db",
        ".config/gcloud/application_default_credentials.json",
        ".kube/config",
        ".oci/config",
        ".config/openstack/clouds.yaml",
        ".config/gh/hosts.yml",
        ".cargo/credentials.toml",
        ".config/pypoetry/auth.toml",
        ".config/helm/registry/config.json",
        ".ssh/config",
        ".ssh/id_ed25519",
        "id_ed25519_sk",
        "x.ppk",
        "x.pfx",
        "x.p8",
        "x.jks",
        ".gnupg/secring.gpg",
        ".pgpass",
        ".my.cnf",
        ".vault-token",
        ".env",
        ".env.production",
        ".bash_history",
        ".m2/settings.xml",
        ".config/git/credentials",
        ".boto",
        ".s3cfg",
        ".config/rclone/rclone.conf",
        ".composer/auth.json",
    ];
    for name in names {
        let broken = broken_by(&format!("usr/share/app/{name}"), b"x");
        assert!(broken.iter().any(|id| id == "secrets"), "{name}: {broken:?}");
    }
    for path in [
        "etc/pip.conf",
        "etc/uv/uv.toml",
        "etc/apt/auth.conf.d/x.conf",
        "run/containers/0/auth.json",
        "etc/krb5.keytab",
    ] {
        let broken = broken_by(path, b"x");
        assert!(broken.iter().any(|id| id == "secrets"), "{path}: {broken:?}");
    }
}

#[test]
fn a_key_is_a_finding_wherever_it_stands_in_its_file() {
    let has_secret = |content: &[u8]| {
        let broken = broken_by("usr/share/app/server.pem", content);
        broken.iter().any(|id| id == "secrets")
    };
    let certificate =
        "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBa\n-----END CERTIFICATE-----\n";
    for before in [
        certificate.repeat(10),
        "x".repeat(5_000_000),
        "\0".repeat((1 << 20) - 7),
    ] {
        let content = format!("{before}\n{KEY}");
        assert!(has_secret(content.as_bytes()));
    }
    assert!(!has_secret(certificate.as_bytes()));
}
