//! Selects the files whose contents the rules and the SBOM need, and the hashes of each file; for all others the tree has
//! only metadata and the head.

use crate::image::applied;
use crate::image::packages::dpkg::{STATUS, STATUS_DIR};
use crate::image::packages::{built, dpkg_files};
use crate::layout::{Hashes, ReadOptions};

/// Upper limit of text files for the rules; dpkg's status of a full desktop has about 6 MB.
const LARGEST: u64 = 16 << 20;
const LARGEST_SMALL: u64 = 1 << 20;
/// Lists of a package's files; the longest of Debian, linux-source's, has 8 MB.
const LARGEST_LIST: u64 = 8 << 20;
/// The runtime's binary contains the list of its crates. The limit exceeds the contract's, so that a larger binary is
/// still read.
const LARGEST_PROGRAM: u64 = 5_000_000;
/// Debian's longest copyright files have a few hundred kilobytes.
const LARGEST_COPYRIGHT: u64 = 256 << 10;

/// The options for reading an image for the rules. `sha256_of_all`: of every file, not only where a rule needs it.
pub fn read_options(sha256_of_all: bool) -> ReadOptions<'static> {
    ReadOptions {
        keep: &keeps,
        hash: match sha256_of_all {
            true => &|path| Hashes {
                sha256: true,
                ..hashes(path)
            },
            false => &hashes,
        },
        ..ReadOptions::default()
    }
}

/// The hashes that the image's own records have of the file at `path`: dpkg's MD5, and the SHA-256 of a Python RECORD or
/// of the build's list. Each costs time, so a file that can have one record only gets one hash.
pub fn hashes(path: &str) -> Hashes {
    let bytecode = path.ends_with(".pyc");
    Hashes {
        md5: !bytecode && !path.starts_with("usr/local/"),
        sha256: bytecode || !["usr/lib/", "usr/share/"].iter().any(|dir| path.starts_with(dir)),
    }
}

/// Whether the rules need the content of the file at `path` (no leading slash).
pub fn keeps(path: &str, size: u64) -> bool {
    if path == STATUS || path == built::LIST {
        return size <= LARGEST;
    }
    if dpkg_files::is_record(path) || path == "etc/ld.so.cache" {
        return size <= LARGEST_LIST;
    }
    if path.starts_with(STATUS_DIR) {
        return size <= LARGEST_SMALL;
    }
    if is_program(path) {
        return size <= LARGEST_PROGRAM;
    }
    if is_copyright(path) {
        return size <= LARGEST_COPYRIGHT;
    }
    size <= LARGEST_SMALL
        && (is_certificate(path) || is_configuration(path) || is_python_metadata(path) || is_agent_source(path))
}

fn is_configuration(path: &str) -> bool {
    let Some(etc) = path.strip_prefix("etc/") else {
        return matches!(
            path,
            "usr/lib/os-release" | "root/.bashrc" | "root/.profile" | "usr/share/iproute2/rt_tables"
        );
    };
    const FILES: [&str; 14] = [
        "passwd",
        "group",
        "shadow",
        "gshadow",
        "os-release",
        "environment",
        "host.conf",
        "profile",
        "bash.bashrc",
        "nsswitch.conf",
        "sudo.conf",
        "apt/apt.conf",
        "apt/sources.list",
        "ssl/certs/ca-certificates.crt",
    ];
    const DIRECTORIES: [&str; 10] = [
        "sudoers",
        "security/",
        "iproute2/",
        "apt/apt.conf.d/",
        "apt/sources.list.d/",
        "profile.d/",
        "ovn-bgp-agent/",
        "pip.conf",
        "subuid",
        "pam.d/",
    ];
    FILES.contains(&etc) || DIRECTORIES.iter().any(|d| etc.starts_with(d))
}

fn is_python_metadata(path: &str) -> bool {
    let Some((dir, name)) = path.rsplit_once('/') else {
        return false;
    };
    if dir.ends_with(".dist-info") {
        return matches!(
            name,
            "METADATA"
                | "RECORD"
                | "entry_points.txt"
                | "top_level.txt"
                | "direct_url.json"
                | "INSTALLER"
                | applied::RECORD
        );
    }
    if dir.ends_with(applied::IN_DIST_INFO) {
        return name.ends_with(".patch");
    }
    if dir.ends_with(".egg-info") {
        return matches!(name, "PKG-INFO" | "entry_points.txt" | "top_level.txt" | "requires.txt");
    }
    name.ends_with(".pth") || name.ends_with(".egg-info")
}

/// The files that patches may change: 0.7 MB of source.
fn is_agent_source(path: &str) -> bool {
    path.starts_with("usr/local/lib/python3") && path.contains("/dist-packages/ovn_bgp_agent/") && path.ends_with(".py")
}

/// The authorities of ca-certificates, and the package's list of them.
fn is_certificate(path: &str) -> bool {
    path.starts_with("usr/share/ca-certificates/") || path == "var/lib/dpkg/info/ca-certificates.md5sums"
}

/// The commands in /usr/local: small scripts, and the runtime.
fn is_program(path: &str) -> bool {
    path.starts_with("usr/local/bin/") || path.starts_with("usr/local/sbin/")
}

/// `usr/share/doc/PACKAGE/copyright`: the licences of a Debian package.
fn is_copyright(path: &str) -> bool {
    path.strip_prefix("usr/share/doc/")
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(_, name)| name == "copyright")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_rules_read_are_kept_and_bounded() {
        for path in [
            "etc/passwd",
            "etc/sudoers",
            "etc/sudoers.d/privsep",
            "var/lib/dpkg/status",
            "etc/ssl/certs/ca-certificates.crt",
            "usr/local/bin/obgp-runtime",
            "usr/share/doc/sudo/copyright",
        ] {
            assert!(keeps(path, 1000) && !keeps(path, 1 << 30), "{path}");
        }
        assert!(keeps("usr/local/lib/python3.12/dist-packages/a-1.dist-info/RECORD", 10));
        let site = "usr/local/lib/python3.12/dist-packages";
        for path in [
            "a-1.dist-info/PATCHES",
            "a-1.dist-info/patches/0001-a.patch",
            "ovn_bgp_agent/agent.py",
        ] {
            assert!(keeps(&format!("{site}/{path}"), 10), "{path}");
        }
        assert!(!keeps("usr/lib/x86_64-linux-gnu/libc.so.6", 10));
        assert!(!keeps("usr/local/lib/python3.12/dist-packages/a/__init__.py", 10));
        assert!(!keeps("usr/share/doc/sudo/examples/copyright", 10));
    }
}
