//! What an image records of its own files: RECORDs, dpkg's lists and the build's list.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use md5::{Digest as _, Md5};
use obgp_build::layout::tree::{File, NodeKind};

use super::{SITE, TestImage};

const INFO: &str = "var/lib/dpkg/info";
pub const LIST: &str = "usr/local/share/obgp-build/SHA256SUMS";

/// Paths that no package has and the contract names.
const UNPACKAGED: &[&str] = &[
    "etc/alternatives/",
    "etc/apt/sources.list.d/",
    "etc/group",
    "etc/gshadow",
    "etc/ld.so.cache",
    "etc/machine-id",
    "etc/mtab",
    "etc/pam.d/common-",
    "etc/passwd",
    "etc/profile",
    "etc/shadow",
    "etc/ssl/certs/",
    "etc/ovn-bgp-agent",
    "usr/local/",
    "var/lib/dpkg/",
    "var/lib/ovn-bgp-agent",
];

impl TestImage {
    /// Files that programs generate when packages are installed.
    pub(super) fn generated(&mut self) {
        let library = format!(
            "usr/lib/{}-linux-gnu/libc.so.6",
            self.platform.architecture().gnu_name()
        );
        self.elf(&library, 0o755);
        let cache = loader_cache("libc.so.6", &format!("/{}", library.trim_start_matches("usr/")));
        self.bytes("etc/ld.so.cache", 0o644, &cache);
        self.file("etc/pam.d/sudo", 0o644, "#%PAM-1.0\n@include common-auth\n");
        self.file(
            "etc/pam.d/common-auth",
            0o644,
            "# made by pam-auth-update\nauth\t[success=1 default=ignore]\tpam_unix.so nullok\n\
             auth\trequisite\t\t\tpam_deny.so\nauth\trequired\t\t\tpam_permit.so\n",
        );
        self.file("usr/share/base-files/profile", 0o644, "# /etc/profile\n");
        self.file("etc/profile", 0o644, "# /etc/profile\n");
        for name in ["iptables", "ip6tables"] {
            self.file(
                &format!("var/lib/dpkg/alternatives/{name}"),
                0o644,
                &format!("auto\n/usr/sbin/{name}\n\n/usr/sbin/{name}-nft\n20\n\n"),
            );
        }
    }

    /// Writes the records of all files that the image has now.
    pub(super) fn records(&mut self) {
        let records: Vec<String> = self.paths(|path| path.ends_with(".dist-info/RECORD"));
        let mut recorded = BTreeSet::new();
        for record in &records {
            let text = String::from_utf8(self.tree.content(record).unwrap().to_vec()).unwrap();
            let names: Vec<&str> = text.lines().map(|line| line.split(',').next().unwrap()).collect();
            let lines: String = names.iter().map(|name| self.record_line(name)).collect();
            recorded.extend(names.iter().map(|name| site_path(name)));
            self.file(record, 0o644, &lines);
        }
        self.package_lists();
        self.built_list(&recorded);
    }

    /// A line of a RECORD for the file `name`, relative to the site directory.
    pub fn record_line(&self, name: &str) -> String {
        let file = self.regular(&site_path(name));
        let sha256 = base64_url(&file.sha256.unwrap());
        format!("{name},sha256={sha256},{}\n", file.size)
    }

    fn package_lists(&mut self) {
        let ours = |path: &str, name: &str| match name {
            "jq" => path == "usr/bin/jq",
            _ => path != "usr/bin/jq",
        };
        let to_alternative =
            |kind: &NodeKind| matches!(kind, NodeKind::Symlink(to) if to.starts_with("/etc/alternatives/"));
        let packaged: Vec<String> =
            self.paths(|path| !UNPACKAGED.iter().any(|u| path.starts_with(u)) && !is_built(path));
        let packaged: Vec<String> = packaged
            .into_iter()
            .filter(|path| !to_alternative(&self.tree.get(path).unwrap().kind))
            .collect();
        for name in ["jq", "base-files"] {
            let (mut list, mut sums, mut conffiles) = ("/.\n".to_string(), String::new(), String::new());
            for path in packaged.iter().filter(|path| ours(path, name)) {
                let _ = writeln!(list, "/{path}");
                if let NodeKind::File(file) = &self.tree.get(path).unwrap().kind {
                    let md5 = hex::encode(file.md5.unwrap());
                    let _ = match path.starts_with("etc/") {
                        true => writeln!(conffiles, " /{path} {md5}"),
                        false => writeln!(sums, "{md5}  {path}"),
                    };
                }
            }
            self.file(&format!("{INFO}/{name}.list"), 0o644, &list);
            self.file(&format!("{INFO}/{name}.md5sums"), 0o644, &sums);
            if !conffiles.is_empty() {
                let with = format!("Package: {name}\nConffiles:\n{conffiles}");
                self.replace("var/lib/dpkg/status", &format!("Package: {name}\n"), &with);
            }
        }
        let status = String::from_utf8(self.tree.content("var/lib/dpkg/status").unwrap().to_vec()).unwrap();
        for name in status.lines().filter_map(|line| line.strip_prefix("Package: ")) {
            let list = format!("{INFO}/{name}.list");
            if self.tree.get(&list).is_none() {
                self.file(&list, 0o644, "/.\n");
            }
        }
    }

    /// Makes a file of another layer one of a package.
    pub fn packaged(&mut self, path: &str, content: &[u8]) {
        let md5 = hex::encode(Md5::digest(content));
        self.append(&format!("{INFO}/base-files.list"), &format!("/{path}"));
        self.append(&format!("{INFO}/base-files.md5sums"), &format!("{md5}  {path}"));
    }

    /// Lets the build's list follow a change of a file.
    pub fn built(&mut self, path: &str) {
        let sha256 = hex::encode(self.regular(path).sha256.unwrap());
        self.edit(LIST, |list| {
            let other = |line: &&str| !line.ends_with(&format!("  ./{path}"));
            let lines: String = list.lines().filter(other).map(|line| format!("{line}\n")).collect();
            format!("{lines}{sha256}  ./{path}\n")
        });
    }

    fn built_list(&mut self, recorded: &BTreeSet<String>) {
        let built = self.paths(|path| is_built(path) && !recorded.contains(path));
        let built = built
            .iter()
            .filter_map(|path| match &self.tree.get(path).unwrap().kind {
                NodeKind::File(file) => Some(format!("{}  ./{path}\n", hex::encode(file.sha256.unwrap()))),
                _ => None,
            });
        let list: String = built.collect();
        self.file(LIST, 0o644, &list);
    }

    fn paths(&self, which: impl Fn(&str) -> bool) -> Vec<String> {
        let paths = self.tree.iter().map(|(path, _)| path);
        paths
            .filter(|path| !path.is_empty() && which(path))
            .map(str::to_string)
            .collect()
    }

    fn regular(&self, path: &str) -> &File {
        match &self.tree.get(path).unwrap_or_else(|| panic!("{path}")).kind {
            NodeKind::File(file) => file,
            _ => panic!("{path} is not a file"),
        }
    }

    /// Changes one bit of a file.
    pub fn flip(&mut self, path: &str) {
        self.node(path, |node| {
            let NodeKind::File(file) = &mut node.kind else {
                panic!("not a file")
            };
            file.md5.as_mut().unwrap()[0] ^= 1;
            file.sha256.as_mut().unwrap()[0] ^= 1;
        });
    }
}

/// What the build copies into the image.
fn is_built(path: &str) -> bool {
    path == "etc/sudoers"
        || path.starts_with("usr/bin/ov")
        || path == "usr/bin/vtysh"
        || path.starts_with("usr/local/")
        || path.starts_with("var/lib/dpkg/status.d/")
        || path.ends_with(".pyc")
}

/// From a name in RECORD.
fn site_path(name: &str) -> String {
    match name.strip_prefix("../../../") {
        Some(rest) => format!("usr/local/{rest}"),
        None => format!("{SITE}/{name}"),
    }
}

fn base64_url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// A cache of glibc's format with one library.
pub fn loader_cache(name: &str, path: &str) -> Vec<u8> {
    let mut cache = b"glibc-ld.so.cache1.1".to_vec();
    cache.extend(1u32.to_le_bytes());
    cache.resize(48, 0);
    cache.extend(1u32.to_le_bytes());
    cache.extend(72u32.to_le_bytes());
    cache.extend((72 + name.len() as u32 + 1).to_le_bytes());
    cache.resize(72, 0);
    cache.extend([name.as_bytes(), b"\0", path.as_bytes(), b"\0"].concat());
    cache
}
