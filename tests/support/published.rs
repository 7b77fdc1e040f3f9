//! Makes layouts with images of two platforms that keep the contract, and the project directory with that contract.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use obgp_build::config::BuildFile;
use obgp_build::image::open::in_layout;
use obgp_build::layout::tree::{NodeKind, Tree};
use obgp_build::layout::{Layout, LayoutImage, LayoutReference, write_index};
use obgp_build::oci::Platform;
use obgp_build::verify::{Contract, Expectation, Verified, read_options};
use oci_spec::image::{Descriptor, MediaType};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::image::{TestImage, repository};
use super::patch::{PATCH, PATCH_NAME, patch};

/// `build.toml` and the contract of this repository without its locks, because the test images have fewer packages.
pub struct Project {
    dir: tempfile::TempDir,
}

impl Project {
    /// A project with these `[[registries]]`.
    pub fn new(registries: &str) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let text = std::fs::read_to_string(repository().join("build.toml")).unwrap();
        // Without the registries of this repository.
        let text = text.split("[[registries]]").next().unwrap();
        std::fs::write(dir.path().join("build.toml"), format!("{text}\n{registries}\n")).unwrap();
        std::fs::create_dir(dir.path().join("images")).unwrap();
        let contract = "images/ovn-bgp-agent.toml";
        std::fs::copy(repository().join(contract), dir.path().join(contract)).unwrap();
        let patches = dir.path().join("images/ovn-bgp-agent/patches");
        std::fs::create_dir_all(&patches).unwrap();
        std::fs::write(patches.join(format!("{PATCH_NAME}.patch")), PATCH).unwrap();
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn build_toml(&self) -> PathBuf {
        self.dir.path().join("build.toml")
    }

    pub fn file(&self) -> BuildFile {
        BuildFile::load(&self.build_toml()).unwrap()
    }

    /// `oci:DIR:TAG` of this project.
    pub fn image(&self, tag: &str) -> LayoutReference {
        LayoutReference {
            dir: self.dir.path().join("dist/oci"),
            tag: Some(tag.to_string()),
        }
    }

    /// Adds an image to the project's layout. Each seed gives a different image; the second layer has `filler` bytes.
    pub fn make(&self, tag: &str, seed: u64, filler: usize) -> Descriptor {
        self.make_with(tag, seed, filler, |_| {})
    }

    pub fn make_with(&self, tag: &str, seed: u64, filler: usize, change: impl Fn(&mut TestImage)) -> Descriptor {
        let labels = self.file().image.labels;
        let layout = Layout::open_or_create(self.image(tag).dir).unwrap();
        let mut manifests = Vec::new();
        for (i, platform) in ["linux/amd64", "linux/arm64"].into_iter().enumerate() {
            let mut image = TestImage::good(platform);
            let seed = seed * 2 + i as u64;
            image.packaged(FILLER, &filler_content(seed, filler));
            change(&mut image);
            for (name, value) in &labels {
                image.config["config"]["Labels"][name] = json!(value);
            }
            let layers = [tar_of(&image.tree), filler_layer(seed, filler)];
            let digests = layers
                .each_ref()
                .map(|layer| format!("sha256:{}", hex::encode(Sha256::digest(layer))));
            image.config["rootfs"]["diff_ids"] = json!(digests);
            image.config["history"] = json!([{"created_by": "base"}, {"created_by": "agent"}]);
            let layers = layers.map(|layer| layout.write_blob(MediaType::ImageLayer, &layer).unwrap());
            let config = layout.write_json(MediaType::ImageConfig, &image.config).unwrap();
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": MediaType::ImageManifest.to_string(),
                "config": config,
                "layers": layers,
            });
            let mut manifest = layout.write_json(MediaType::ImageManifest, &manifest).unwrap();
            let platform: Platform = platform.parse().unwrap();
            manifest.set_platform(Some(platform.to_oci()));
            manifests.push(manifest);
        }
        let index = write_index(&layout, &manifests, &BTreeMap::new()).unwrap();
        layout.set_tag(tag, &index).unwrap();
        index
    }

    /// Returns the image, checked against the contract as the commands do.
    pub fn verified(&self, tag: &str) -> (LayoutImage, Verified<Descriptor>) {
        let file = self.file();
        let contract = Contract::load(&self.path().join("images/ovn-bgp-agent.toml")).unwrap();
        let image = LayoutImage::open(&self.image(tag)).unwrap();
        let platforms = in_layout(&image, &[], read_options(false)).unwrap();
        let verdicts = platforms.iter().map(|platform| {
            let expectation = Expectation {
                identity: &file.user,
                distro: &file.distros["ubuntu_noble"],
                project: "ovn-bgp-agent",
                reference: Some("7.0.0"),
                labels: &file.image.labels,
                lock: None,
                patches: Some(&[patch()]),
            };
            contract.check(platform, &expectation).unwrap()
        });
        let verdicts = verdicts.collect();
        let index = Verified::admit(image.descriptor.clone(), verdicts).unwrap();
        (image, index)
    }
}

const FILLER: &str = "usr/share/filler";

fn tar_of(tree: &Tree) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, node) in tree.iter().filter(|(path, _)| !path.is_empty()) {
        let mut header = tar::Header::new_gnu();
        header.set_mode(node.mode);
        header.set_uid(node.uid.into());
        header.set_gid(node.gid.into());
        header.set_mtime(node.mtime as u64);
        header.set_size(0);
        match &node.kind {
            NodeKind::File(file) => {
                // A tree keeps only the head of a large file; the rest is zeros.
                let mut content = file.content.as_ref().unwrap_or(&file.head).to_vec();
                content.resize(file.size as usize, 0);
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(file.size);
                tar.append_data(&mut header, path, &content[..]).unwrap();
            }
            NodeKind::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                tar.append_data(&mut header, format!("{path}/"), &[][..]).unwrap();
            }
            NodeKind::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, path, target).unwrap();
            }
            other => panic!("{path}: {other:?}"),
        }
    }
    tar.into_inner().unwrap()
}

/// A layer with one incompressible file, unique by seed.
pub fn filler_layer(seed: u64, size: usize) -> Vec<u8> {
    let content = filler_content(seed, size);
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_mtime(1_767_225_600);
    header.set_size(size as u64);
    header.set_entry_type(tar::EntryType::Regular);
    tar.append_data(&mut header, FILLER, &content[..]).unwrap();
    tar.into_inner().unwrap()
}

fn filler_content(seed: u64, size: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(size + 8);
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while content.len() < size {
        // xorshift64
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        content.extend(x.to_le_bytes());
    }
    content.truncate(size);
    content
}
