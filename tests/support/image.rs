//! A small in-memory image that keeps the contract. The tests of the rules break one part of it at a time.

mod config;
pub mod contents;
pub mod elf;
pub mod records;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use md5::Md5;
use obgp_build::config::BuildFile;
use obgp_build::image::{Contents, Image};
use obgp_build::layout::Secret;
use obgp_build::layout::tree::{self, File, Hidden, Node, NodeKind, Tree};
use obgp_build::oci::Platform;
use obgp_build::plan::patches::Patch;
use obgp_build::verify::{Contract, Expectation, Verdict, keeps};
use oci_spec::image::{Descriptor, Digest, MediaType};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use self::elf::elf_header;
use super::patch::patch;

pub const SITE: &str = "usr/local/lib/python3.12/dist-packages";

pub const SUDOERS: &str = r#"# Only what starts the helpers of oslo.privsep.
Defaults env_reset
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Defaults !use_pty
Defaults !syslog, !fqdn, !lecture

ovn-bgp-agent ALL = (root) NOPASSWD: /usr/local/bin/obgp-runtime privsep *
"#;

pub struct TestImage {
    pub platform: Platform,
    pub tree: Tree,
    /// The image configuration as JSON, so that a test can change any part of it.
    pub config: Value,
    pub compressed: u64,
    pub uncompressed: u64,
    pub lock: Option<String>,
    pub patches: Option<Vec<Patch>>,
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

impl TestImage {
    /// An image of Ubuntu noble that keeps every rule.
    pub fn good(platform: &str) -> Self {
        let mut image = Self {
            platform: platform.parse().unwrap(),
            tree: Tree::default(),
            config: Value::Null,
            compressed: 70 << 20,
            uncompressed: 250 << 20,
            lock: Some("# made by a test\noslo.privsep==3.12.0 \\\n    --hash=sha256:00\nmsgpack==1.1.0\novn-bgp-agent==7.0.0\nsetuptools==80.9.0 ; python_version < '3.10'\n".into()),
            patches: Some(vec![patch()]),
        };
        image.config = config::config(image.platform.architecture().name());
        image.directories();
        image.loader();
        image.configuration();
        image.certificates();
        image.accounts();
        image.packages();
        image.commands();
        image.standard_library();
        image.distributions();
        image.patched();
        image.generated();
        image.records();
        image
    }

    /// Adds a Python distribution with its metadata, as an installer does.
    pub fn distribution(&mut self, name: &str, version: &str, requires: &[&str], files: &[&str]) {
        let info = format!("{SITE}/{}-{version}.dist-info", name.replace('-', "_"));
        let mut metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
        for requirement in requires {
            metadata += &format!("Requires-Dist: {requirement}\n");
        }
        self.file(
            &format!("{info}/METADATA"),
            0o644,
            &format!("{metadata}\nRequires-Dist: not a header\n"),
        );
        let mut record = String::new();
        for file in files {
            let path = format!("{SITE}/{file}");
            match file.ends_with(".so") {
                true => self.elf(&path, 0o644),
                false => self.file(&path, 0o644, &format!("# {file}\n")),
            }
            record += &self.record_line(file);
        }
        self.file(&format!("{info}/RECORD"), 0o644, &record);
    }

    /// Removes a file, and its line in RECORD, as an installer does.
    pub fn uninstall(&mut self, distribution: &str, file: &str) {
        self.remove(&format!("{SITE}/{file}"));
        self.edit(&format!("{SITE}/{distribution}.dist-info/RECORD"), |record| {
            record
                .lines()
                .filter(|l| !l.starts_with(file))
                .map(|l| format!("{l}\n"))
                .collect()
        });
    }

    pub fn script(&mut self, name: &str, distribution: &str, version: &str, target: &str) {
        self.file(
            &format!("usr/local/bin/{name}"),
            0o755,
            &format!("#!/usr/bin/python3\nimport sys  # {target}\n"),
        );
        let info = format!("{SITE}/{distribution}-{version}.dist-info");
        self.file(
            &format!("{info}/entry_points.txt"),
            0o644,
            &format!("[console_scripts]\n{name} = {target}\n"),
        );
        self.edit(&format!("{info}/RECORD"), |r| format!("{r}../../../bin/{name},,\n"));
    }

    /// Adds a `.pyc` file. With `flags` 0 it is timestamp-based and valid for its source.
    pub fn bytecode(&mut self, source: &str, flags: u32) {
        let (dir, name) = source.rsplit_once('/').unwrap();
        let path = format!("{dir}/__pycache__/{}.cpython-312.pyc", name.trim_end_matches(".py"));
        let mut content = 3531u16.to_le_bytes().to_vec();
        content.extend(b"\r\n");
        content.extend(flags.to_le_bytes());
        content.extend((self.tree.get(source).unwrap().mtime as u32).to_le_bytes());
        content.extend((self.size(source) as u32).to_le_bytes());
        self.bytes(&path, 0o644, &content);
    }

    fn insert(&mut self, path: &str, kind: NodeKind, mode: u32) {
        for (end, _) in path.match_indices('/') {
            if self.tree.get(&path[..end]).is_none() {
                self.dir(&path[..end], 0o755);
            }
        }
        let node = Node {
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 1_767_225_600,
            xattrs: BTreeMap::new(),
            layer: 0,
        };
        self.tree.insert(path, node);
    }

    pub fn dir(&mut self, path: &str, mode: u32) {
        self.insert(path, NodeKind::Directory, mode);
    }

    pub fn link(&mut self, path: &str, target: &str) {
        self.insert(path, NodeKind::Symlink(target.to_string()), 0o777);
    }

    pub fn file(&mut self, path: &str, mode: u32, content: &str) {
        self.bytes(path, mode, content.as_bytes());
    }

    pub fn bytes(&mut self, path: &str, mode: u32, content: &[u8]) {
        let keep = keeps(path, content.len() as u64);
        let file = File {
            size: content.len() as u64,
            secret: Secret::find(content),
            head: tree::head(content).into(),
            content: keep.then(|| content.into()),
            sha256: Some(Sha256::digest(content).into()),
            md5: Some(Md5::digest(content).into()),
            ..File::default()
        };
        self.insert(path, NodeKind::File(file), mode);
    }

    /// Adds a file that a later layer removes.
    pub fn hidden(&mut self, path: &str, content: &[u8]) {
        let file = Hidden {
            path: path.to_string(),
            layer: 0,
            secret: Secret::find(content),
        };
        self.tree.add_hidden([file]);
    }

    /// Adds a dynamically linked executable of the platform.
    pub fn elf(&mut self, path: &str, mode: u32) {
        let header = elf_header(self.platform.architecture().elf_machine());
        self.bytes(path, mode, &header);
    }

    pub fn device(&mut self, path: &str) {
        self.insert(path, NodeKind::CharDevice { major: 1, minor: 1 }, 0o600);
    }

    pub fn remove(&mut self, path: &str) {
        assert!(self.tree.get(path).is_some(), "{path}");
        self.tree.remove(path);
    }

    pub fn node(&mut self, path: &str, change: impl FnOnce(&mut Node)) {
        let mut node = self.tree.get(path).unwrap_or_else(|| panic!("{path}")).clone();
        let below: Vec<(String, Node)> = self.tree.below(path).map(|(p, n)| (p.to_string(), n.clone())).collect();
        change(&mut node);
        self.tree.insert(path, node);
        for (path, node) in below {
            self.tree.insert(&path, node);
        }
    }

    /// Changes a text file.
    pub fn edit(&mut self, path: &str, change: impl FnOnce(&str) -> String) {
        let before = self.tree.get(path).unwrap_or_else(|| panic!("{path}")).clone();
        let text = String::from_utf8(self.tree.content(path).unwrap_or_else(|| panic!("{path}")).to_vec()).unwrap();
        let changed = change(&text);
        assert_ne!(text, changed, "the edit of {path} changes nothing");
        self.file(path, before.mode, &changed);
        self.node(path, |n| (n.uid, n.gid) = (before.uid, before.gid));
    }

    pub fn append(&mut self, path: &str, line: &str) {
        self.edit(path, |text| format!("{text}{line}\n"));
    }

    pub fn replace(&mut self, path: &str, from: &str, to: &str) {
        self.edit(path, |text| text.replace(from, to));
    }

    fn size(&self, path: &str) -> u64 {
        match &self.tree.get(path).unwrap().kind {
            NodeKind::File(f) => f.size,
            _ => 0,
        }
    }

    /// The image as the stages take it. Its manifest exists only as this digest.
    pub fn image(&self, digest: Option<&str>) -> Image {
        let contents = Contents {
            config: serde_json::from_value(self.config.clone()).unwrap(),
            tree: self.tree.clone(),
            compressed: self.compressed,
            uncompressed: self.uncompressed,
        };
        let manifest =
            digest.map(|digest| Descriptor::new(MediaType::ImageManifest, 0, digest.parse::<Digest>().unwrap()));
        Image::in_memory(self.platform, manifest, contents)
    }

    pub fn check(&self) -> Verdict {
        self.check_as("ubuntu_noble")
    }

    pub fn check_as(&self, distro: &str) -> Verdict {
        let file = BuildFile::load(&repository().join("build.toml")).unwrap();
        let contract = Contract::load(&repository().join("images/ovn-bgp-agent.toml")).unwrap();
        let labels = BTreeMap::from([(
            "org.opencontainers.image.title".to_string(),
            "ovn-bgp-agent".to_string(),
        )]);
        let expected = Expectation {
            identity: &file.user,
            distro: &file.distros[distro],
            project: "ovn-bgp-agent",
            reference: Some("7.0.0"),
            labels: &labels,
            lock: self.lock.as_deref(),
            patches: self.patches.as_deref(),
        };
        contract.check(&self.image(None), &expected).unwrap()
    }
}
