//! Converts mmdebstrap's tar into an archive for `docker load`, engine 20.10 and later, for any architecture.
//!
//! The archive is an OCI image layout (for newer engines and other tools) with a `manifest.json` (for older engines)
//! over the same blobs. Equal root file systems give equal archives, byte for byte.

use std::io::{self, Read, Write};

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::oci::Platform;

/// Paths of a root file system that belong to the build machine, or are used only there. A final `*` means everything
/// below.
const DROPPED: &[&str] = &[
    "dev/*",
    "etc/.pwd.lock",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/group-",
    "etc/gshadow-",
    "etc/hostname",
    "etc/passwd-",
    "etc/resolv.conf",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/cache/ldconfig/aux-cache",
    "var/lib/dpkg/available-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/status-old",
    "var/log/apt/history.log",
    "var/log/apt/term.log",
    "var/log/alternatives.log",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
    "var/log/faillog",
    "var/log/lastlog",
];

const SOURCES: &str = "etc/apt/sources.list";
const STATUS: &str = "var/lib/dpkg/status";
/// Upper limit of dpkg's database; that of a minimal system has a few hundred kilobytes.
const MAX_STATUS: u64 = 64 << 20;

/// A written layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    /// Hexadecimal SHA-256 of the tar: the diff ID without prefix.
    pub hex: String,
    pub size: u64,
    /// The number of installed packages.
    pub packages: usize,
}

/// Copies a root file system's tar without [`DROPPED`] from `input` to `output`, with `sources` as its apt sources.
pub(super) fn copy_rootfs(
    input: impl Read,
    output: impl Write,
    sources: &str,
    mut copied: impl FnMut(u64),
) -> io::Result<Layer> {
    let mut output = Hashing {
        inner: output,
        hash: Sha256::new(),
        size: 0,
    };
    let mut packages = 0;
    let mut has_sources = false;
    // Extension headers (long names, extended attributes) belong to the following entry.
    let mut pending = Vec::new();
    let mut archive = tar::Archive::new(input);
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let header = entry.header().clone();
        if matches!(header.entry_type().as_byte(), b'x' | b'g' | b'L' | b'K') {
            if header.entry_size()? > MAX_STATUS {
                return Err(io::Error::other("an extension header exceeds 64 MiB"));
            }
            write_entry(&mut pending, &header, &mut entry)?;
            continue;
        }
        let path = header
            .path()?
            .to_string_lossy()
            .trim_start_matches("./")
            .trim_end_matches('/')
            .to_string();
        let extensions = std::mem::take(&mut pending);
        if is_dropped(&path) {
            continue;
        }
        if path == SOURCES {
            let mut header = header.clone();
            header.set_size(sources.len() as u64);
            header.set_cksum();
            write_entry(&mut output, &header, &mut sources.as_bytes())?;
            has_sources = true;
            continue;
        }
        output.write_all(&extensions)?;
        if path == STATUS {
            let mut status = Vec::new();
            (&mut entry).take(MAX_STATUS).read_to_end(&mut status)?;
            packages = status
                .split(|b| *b == b'\n')
                .filter(|line| line.starts_with(b"Package: "))
                .count();
            write_entry(&mut output, &header, &mut status.as_slice())?;
        } else {
            write_entry(&mut output, &header, &mut entry)?;
        }
        copied(output.size);
    }
    // Read the padding after the end of the archive, so that the writer does not get EPIPE.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    // Otherwise the mirror's address is in another file and would remain in the image.
    if !has_sources {
        return Err(io::Error::other(format!("mmdebstrap made no {SOURCES}")));
    }
    output.write_all(&[0; 1024])?;
    output.flush()?;
    Ok(Layer {
        hex: hex::encode(output.hash.finalize()),
        size: output.size,
        packages,
    })
}

fn is_dropped(path: &str) -> bool {
    DROPPED.iter().any(|dropped| match dropped.strip_suffix('*') {
        Some(below) => path.starts_with(below),
        None => path == *dropped,
    })
}

fn write_entry(output: &mut impl Write, header: &tar::Header, content: &mut impl Read) -> io::Result<()> {
    output.write_all(header.as_bytes())?;
    let size = io::copy(content, output)?;
    let padding = size.next_multiple_of(512) - size;
    output.write_all(&[0; 512][..padding as usize])
}

struct Hashing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The image config, except for its layer.
pub(super) struct ImageInfo<'a> {
    pub platform: Platform,
    /// The date of the package archive.
    pub created: Timestamp,
    /// How the image was created, on one line.
    pub created_by: &'a str,
    /// The name that `docker load` sets.
    pub tag: &'a str,
    /// A second name, which ends with the digest: after loading, the engine can be asked for the digest.
    pub kept: &'a str,
}

/// Writes the archive with `rootfs` as its only layer. Returns the digest of the image's manifest.
pub(super) fn write(
    output: impl Write,
    layer: &Layer,
    rootfs: &mut impl Read,
    image: &ImageInfo<'_>,
) -> io::Result<String> {
    let config = config(image, layer).to_string();
    let config_hex = sha256(config.as_bytes());
    let manifest = manifest(&config_hex, config.len(), layer).to_string();
    let manifest_hex = sha256(manifest.as_bytes());
    let digest = format!("sha256:{manifest_hex}");
    let names = [image.tag.to_string(), format!("{}{manifest_hex}", image.kept)];
    let index = index(image, &names, &digest, manifest.len()).to_string();
    let legacy = json!([{
        "Config": format!("blobs/sha256/{config_hex}"),
        "Layers": [format!("blobs/sha256/{}", layer.hex)],
        "RepoTags": names,
    }])
    .to_string();

    let mut archive = tar::Builder::new(output);
    let mut add = |path: &str, size: u64, content: &mut dyn Read| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        archive.append_data(&mut header, path, content)
    };
    add(
        &format!("blobs/sha256/{config_hex}"),
        config.len() as u64,
        &mut config.as_bytes(),
    )?;
    add(
        &format!("blobs/sha256/{manifest_hex}"),
        manifest.len() as u64,
        &mut manifest.as_bytes(),
    )?;
    add(&format!("blobs/sha256/{}", layer.hex), layer.size, rootfs)?;
    add("index.json", index.len() as u64, &mut index.as_bytes())?;
    add("manifest.json", legacy.len() as u64, &mut legacy.as_bytes())?;
    let marker = r#"{"imageLayoutVersion":"1.0.0"}"#;
    add("oci-layout", marker.len() as u64, &mut marker.as_bytes())?;
    archive.into_inner()?.flush()?;
    Ok(digest)
}

fn config(image: &ImageInfo<'_>, layer: &Layer) -> Value {
    let created = image.created.to_string();
    json!({
        "architecture": image.platform.architecture().name(),
        "config": {
            "Cmd": ["/bin/bash"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "created": created,
        "history": [{ "created": created, "created_by": image.created_by }],
        "os": "linux",
        "rootfs": { "diff_ids": [format!("sha256:{}", layer.hex)], "type": "layers" },
    })
}

fn manifest(config_hex: &str, config_size: usize, layer: &Layer) -> Value {
    json!({
        "config": {
            "digest": format!("sha256:{config_hex}"),
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "size": config_size,
        },
        "layers": [{
            "digest": format!("sha256:{}", layer.hex),
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "size": layer.size,
        }],
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "schemaVersion": 2,
    })
}

/// Names the manifest once per name.
fn index(image: &ImageInfo<'_>, names: &[String; 2], digest: &str, manifest_size: usize) -> Value {
    let manifests = names.each_ref().map(|name| {
        json!({
            "annotations": {
                "io.containerd.image.name": format!("docker.io/{name}"),
                "org.opencontainers.image.ref.name": name.rsplit(':').next(),
            },
            "digest": digest,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "platform": { "architecture": image.platform.architecture().name(), "os": "linux" },
            "size": manifest_size,
        })
    });
    json!({
        "manifests": manifests,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "schemaVersion": 2,
    })
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn rootfs() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let long = format!("./usr/share/{}", "x".repeat(200));
        for (path, content) in [
            ("./etc/resolv.conf", "nameserver 192.0.2.1\n"),
            (
                "./etc/apt/sources.list",
                "deb http://mirror.example/debian bookworm main\n",
            ),
            ("./etc/passwd", "root\n"),
            ("./var/lib/dpkg/status", "Package: a\nStatus: x\n\nPackage: b\n"),
            (&long, "long"),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Char);
        header.set_size(0);
        tar.append_data(&mut header, "./dev/null", io::empty()).unwrap();
        tar.into_inner().unwrap()
    }

    fn files(tar: &[u8]) -> BTreeMap<String, String> {
        tar::Archive::new(tar)
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = String::new();
                entry.read_to_string(&mut content).unwrap();
                (entry.path().unwrap().display().to_string(), content)
            })
            .collect()
    }

    #[test]
    fn what_belongs_to_the_machine_stays_there() {
        let mut tar = Vec::new();
        let layer = copy_rootfs(
            rootfs().as_slice(),
            &mut tar,
            "deb http://deb.debian.org/debian bookworm main\n",
            |_| {},
        )
        .unwrap();
        assert_eq!(layer.packages, 2);
        assert_eq!(layer.size, tar.len() as u64);
        assert_eq!(layer.hex, sha256(&tar));
        let files = files(&tar);
        let names: Vec<_> = files.keys().map(|name| name.trim_start_matches("./")).collect();
        let long = format!("usr/share/{}", "x".repeat(200));
        assert_eq!(names.len(), 4, "{names:?}");
        for name in ["etc/apt/sources.list", "etc/passwd", &long, "var/lib/dpkg/status"] {
            assert!(names.contains(&name), "{name}");
        }
        assert!(files.values().any(|text| text.contains("deb.debian.org")));
        assert!(!files.values().any(|text| text.contains("mirror.example")));
    }

    #[test]
    fn the_padding_after_the_end_is_read() {
        let mut padded = rootfs();
        padded.resize(padded.len().next_multiple_of(10240) + 10240, 0);
        let mut input = padded.as_slice();
        copy_rootfs(&mut input, io::sink(), "", |_| {}).unwrap();
        assert!(input.is_empty());
    }

    #[test]
    fn the_archive_is_both_an_oci_layout_and_what_old_engines_load() {
        let mut tar = Vec::new();
        let layer = copy_rootfs(rootfs().as_slice(), &mut tar, "", |_| {}).unwrap();
        let image = ImageInfo {
            platform: "linux/arm64".parse().unwrap(),
            created: Timestamp::UNIX_EPOCH,
            created_by: "mmdebstrap",
            tag: "obgp-build/base:x",
            kept: "obgp-build/base:arm64-0-",
        };
        let mut archive = Vec::new();
        let digest = write(&mut archive, &layer, &mut tar.as_slice(), &image).unwrap();
        let files = files_lossy(&archive);
        let json = |name: &str| serde_json::from_slice::<serde_json::Value>(&files[name]).unwrap();
        assert_eq!(json("index.json")["manifests"][0]["digest"], digest);
        let kept = format!("obgp-build/base:arm64-0-{}", &digest["sha256:".len()..]);
        assert_eq!(json("manifest.json")[0]["RepoTags"], json!(["obgp-build/base:x", kept]));
        let config = json(json("manifest.json")[0]["Config"].as_str().unwrap());
        assert_eq!(config["architecture"], "arm64");
        assert_eq!(files[json("manifest.json")[0]["Layers"][0].as_str().unwrap()], tar);
        for (name, content) in &files {
            if let Some(hex) = name.strip_prefix("blobs/sha256/") {
                assert_eq!(hex, sha256(content));
            }
        }
    }

    fn files_lossy(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
        tar::Archive::new(tar)
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (entry.path().unwrap().display().to_string(), content)
            })
            .collect()
    }
}
