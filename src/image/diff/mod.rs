//! Two images into what differs between them: packages, Python distributions, patches, files, configuration.

mod text;

use std::collections::BTreeMap;

use oci_spec::image::ImageConfiguration;
use serde::Serialize;

use super::{Contents, Image, ImageError};
use crate::image::applied::Applied;
use crate::image::packages::dpkg;
use crate::image::packages::python::{self, SitePath};
use crate::layout::tree::{Node, NodeKind, Tree};
use crate::oci::Platform;

/// Everything that differs, for one platform. Its JSON is user interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// dpkg packages, with their versions.
    pub packages: Changes<String>,
    /// Python distributions, with their versions.
    pub python: Changes<String>,
    /// Patches of distributions, with their SHA-256.
    pub patches: Changes<String>,
    /// Files and directories by path. Where two are the same but for their times, nothing is said.
    pub files: Changes<FileFacts>,
    /// The image configuration by field: `User`, `Env.PATH`, `Labels.org.opencontainers.image.version`.
    pub config: Changes<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changes<T> {
    pub added: BTreeMap<String, T>,
    pub removed: BTreeMap<String, T>,
    pub changed: BTreeMap<String, Change<T>>,
}

impl<T> Default for Changes<T> {
    fn default() -> Self {
        Self {
            added: BTreeMap::new(),
            removed: BTreeMap::new(),
            changed: BTreeMap::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change<T> {
    pub from: T,
    pub to: T,
}

/// What is compared of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileFacts {
    pub kind: &'static str,
    /// Octal.
    pub mode: String,
    pub uid: u32,
    pub gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// A symbolic link's target, or a device's numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Extended attributes, values in hexadecimal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
}

/// The differences of two images, for each platform that both have.
pub fn diff_images(a: &[Image], b: &[Image]) -> Result<Vec<Difference>, ImageError> {
    let mut differences = Vec::new();
    for a in a {
        for b in b.iter().filter(|b| b.platform() == a.platform()) {
            differences.push(Difference {
                platform: Some(a.platform()),
                ..diff(a.contents()?, b.contents()?)
            });
        }
    }
    Ok(differences)
}

/// What has to change in `a` to become `b`.
fn diff(a: &Contents, b: &Contents) -> Difference {
    Difference {
        platform: None,
        packages: changes(packages(&a.tree), packages(&b.tree)),
        python: changes(distributions(&a.tree), distributions(&b.tree)),
        patches: changes(patches(&a.tree), patches(&b.tree)),
        files: files(&a.tree, &b.tree),
        config: changes(config(&a.config), config(&b.config)),
    }
}

fn changes<T: PartialEq>(a: BTreeMap<String, T>, mut b: BTreeMap<String, T>) -> Changes<T> {
    let mut changes = Changes::default();
    for (key, from) in a {
        match b.remove(&key) {
            None => drop(changes.removed.insert(key, from)),
            Some(to) if from != to => drop(changes.changed.insert(key, Change { from, to })),
            Some(_) => {}
        }
    }
    changes.added = b;
    changes
}

/// A database that cannot be read has nothing to compare; that it cannot is `verify`'s to say.
fn packages(tree: &Tree) -> BTreeMap<String, String> {
    let found = dpkg::packages(tree)
        .unwrap_or_default()
        .into_iter()
        .filter(|p| !p.removed());
    found
        .map(|p| {
            let partial = if p.partial() { " (parts of it)" } else { "" };
            (p.name, format!("{}{partial}", p.version))
        })
        .collect()
}

fn distributions(tree: &Tree) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for version in python::interpreters(tree) {
        for found in SitePath::read(tree, &version, None).distributions {
            all.insert(found.name, found.version);
        }
    }
    all
}

/// A record that cannot be read has nothing to compare, as above.
fn patches(tree: &Tree) -> BTreeMap<String, String> {
    let versions = python::interpreters(tree);
    let found = versions
        .iter()
        .flat_map(|v| SitePath::read(tree, v, None).distributions);
    let records = found.filter_map(|d| Applied::read(tree, &d.metadata).ok().flatten());
    records
        .flat_map(|record| record.patches)
        .map(|patch| (patch.name, format!("sha256:{}", patch.sha256)))
        .collect()
}

fn files(a: &Tree, b: &Tree) -> Changes<FileFacts> {
    let mut changes = Changes::default();
    let (mut left, mut right) = (a.iter().peekable(), b.iter().peekable());
    // Both are in path order: one walk over the two.
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return changes,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((l, _)), Some((r, _))) => l.cmp(r),
        };
        let l = if order.is_le() { left.next() } else { None };
        let r = if order.is_ge() { right.next() } else { None };
        match (l, r) {
            (Some((path, from)), None) => drop(changes.removed.insert(absolute(path), facts(from, None))),
            (None, Some((path, to))) => drop(changes.added.insert(absolute(path), facts(to, None))),
            (Some((path, from)), Some((_, to))) => {
                let (from, to) = (facts(from, Some(to)), facts(to, Some(from)));
                if from != to {
                    changes.changed.insert(absolute(path), Change { from, to });
                }
            }
            (None, None) => {}
        }
    }
}

fn absolute(path: &str) -> String {
    format!("/{path}")
}

/// A content is compared by its digest where both sides have one; else by what both have of it.
fn facts(node: &Node, other: Option<&Node>) -> FileFacts {
    let other_has_digest = match other.map(|o| &o.kind) {
        Some(NodeKind::File(other)) => other.sha256.is_some(),
        _ => true,
    };
    let (kind, size, sha256, target) = match &node.kind {
        NodeKind::File(f) => (
            "file",
            Some(f.size),
            f.sha256.filter(|_| other_has_digest).map(hex::encode),
            None,
        ),
        NodeKind::Directory => ("directory", None, None, None),
        NodeKind::Symlink(target) => ("symlink", None, None, Some(target.clone())),
        NodeKind::CharDevice { major, minor } => ("character device", None, None, Some(format!("{major}:{minor}"))),
        NodeKind::BlockDevice { major, minor } => ("block device", None, None, Some(format!("{major}:{minor}"))),
        NodeKind::Fifo => ("pipe", None, None, None),
    };
    FileFacts {
        kind,
        mode: format!("{:04o}", node.mode),
        uid: node.uid,
        gid: node.gid,
        size,
        sha256,
        target,
        xattrs: node
            .xattrs
            .iter()
            .map(|(name, value)| (name.clone(), hex::encode(value)))
            .collect(),
    }
}

fn config(config: &ImageConfiguration) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            all.insert(name.to_string(), value);
        }
    };
    put("architecture", Some(config.architecture().to_string()));
    put("os", Some(config.os().to_string()));
    put("created", config.created().clone());
    put("author", config.author().clone());
    if let Some(run) = config.config() {
        let list = |l: &Option<Vec<String>>| l.as_ref().filter(|l| !l.is_empty()).map(|l| format!("{l:?}"));
        put("User", run.user().clone());
        put("Entrypoint", list(run.entrypoint()));
        put("Cmd", list(run.cmd()));
        put("WorkingDir", run.working_dir().clone());
        put("StopSignal", run.stop_signal().clone());
        put("ExposedPorts", list(run.exposed_ports()));
        put("Volumes", list(run.volumes()));
        for variable in run.env().iter().flatten() {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            put(&format!("Env.{name}"), Some(value.to_string()));
        }
        for (name, value) in run.labels().iter().flatten() {
            put(&format!("Labels.{name}"), Some(value.clone()));
        }
    }
    all
}

impl<T> Changes<T> {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
            && self.python.is_empty()
            && self.patches.is_empty()
            && self.files.is_empty()
            && self.config.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tree::File;

    fn node(kind: NodeKind, mode: u32) -> Node {
        Node {
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: BTreeMap::new(),
            layer: 0,
        }
    }

    fn file(content: &str) -> NodeKind {
        NodeKind::File(File {
            size: content.len() as u64,
            head: content.as_bytes().into(),
            content: Some(content.as_bytes().into()),
            sha256: Some([content.len() as u8; 32]),
            ..File::default()
        })
    }

    fn tree(jq: &str) -> Tree {
        let mut tree = Tree::default();
        for dir in ["var", "var/lib", "var/lib/dpkg"] {
            tree.insert(dir, node(NodeKind::Directory, 0o755));
        }
        let status = format!("Package: jq\nStatus: install ok installed\nArchitecture: amd64\nVersion: {jq}\n");
        tree.insert("var/lib/dpkg/status", node(file(&status), 0o644));
        tree.insert("bin", node(NodeKind::Symlink("usr/bin".into()), 0o777));
        tree
    }

    fn image(user: &str) -> ImageConfiguration {
        let json = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},
                "config":{{"User":"{user}","Env":["PATH=/bin"],"Labels":{{"a":"b"}}}}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    fn contents(tree: Tree, config: ImageConfiguration) -> Contents {
        Contents {
            config,
            tree,
            compressed: 0,
            uncompressed: 0,
        }
    }

    #[test]
    fn equal_images_do_not_differ() {
        let a = contents(tree("1.6"), image("1"));
        assert!(diff(&a, &a).is_empty());
        assert_eq!(diff(&a, &a).to_string(), "no difference\n");
    }

    #[test]
    fn every_kind_of_difference_is_told() {
        let (mut left, mut right) = (tree("1.6"), tree("1.7.1"));
        left.insert("usr/bin/old", node(file("x"), 0o755));
        left.insert("usr/bin/sudo", node(file("x"), 0o755));
        right.insert("usr/bin/sudo", node(file("xy"), 0o4755));
        right.insert("bin", node(NodeKind::Directory, 0o755));
        let (from, to) = (image("0"), image("42494"));
        let found = diff(&contents(left, from), &contents(right, to));
        insta::assert_snapshot!(found.to_string(), @r"
        packages: 0 added, 0 removed, 1 changed
          ~ jq  1.6 -> 1.7.1
        configuration: 0 added, 0 removed, 1 changed
          ~ User  0 -> 42494
        files: 0 added, 1 removed, 3 changed
          - /usr/bin/old  file 0755 0:0 1 bytes
          ~ /bin  kind symlink -> directory, mode 0777 -> 0755, target usr/bin -> none
          ~ /usr/bin/sudo  mode 0755 -> 4755, size 1 -> 2, content
          ~ /var/lib/dpkg/status  size 74 -> 76, content
        ");
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(
            json["packages"]["changed"]["jq"],
            serde_json::json!({"from": "1.6", "to": "1.7.1"})
        );
        assert_eq!(json["files"]["changed"]["/usr/bin/sudo"]["to"]["mode"], "4755");
    }

    #[test]
    fn patches_are_compared_by_name_and_hash() {
        let patched = |name: &str, sha256: &str| {
            let mut tree = tree("1");
            let site = "usr/local/lib/python3.12/dist-packages";
            let mut parents = Vec::new();
            for part in format!("{site}/a-1.dist-info").split('/') {
                parents.push(part.to_string());
                tree.insert(&parents.join("/"), node(NodeKind::Directory, 0o755));
            }
            let metadata = "Metadata-Version: 2.1\nName: a\nVersion: 1\n";
            tree.insert(&format!("{site}/a-1.dist-info/METADATA"), node(file(metadata), 0o644));
            let record = format!(
                r#"{{"files": {{}}, "patches": [{{"files": [], "name": "0001-a", "sha256": "1"}},
                    {{"files": [], "name": "{name}", "sha256": "{sha256}"}}]}}"#
            );
            tree.insert(&format!("{site}/a-1.dist-info/PATCHES"), node(file(&record), 0o644));
            tree
        };
        let compare = |a: &Tree, b: &Tree| changes(patches(a), patches(b));
        let (old, new) = (patched("0002-b", "2"), patched("0002-b", "3"));
        assert!(compare(&old, &old).is_empty());
        assert_eq!(compare(&old, &new).changed["0002-b"].to, "sha256:3");
        let found = compare(&patched("0003-c", "4"), &old);
        assert_eq!(found.added["0002-b"], "sha256:2");
        assert_eq!(found.removed["0003-c"], "sha256:4");
    }

    #[test]
    fn a_digest_that_one_side_lacks_is_no_difference() {
        let (mut left, right) = (tree("1"), tree("1"));
        let Node { kind, .. } = left.get("var/lib/dpkg/status").unwrap().clone();
        let NodeKind::File(mut f) = kind else { unreachable!() };
        f.sha256 = None;
        left.insert("var/lib/dpkg/status", node(NodeKind::File(f), 0o644));
        assert!(files(&left, &right).is_empty());
    }
}
