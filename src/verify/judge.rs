//! Decides what an image is expected to be, from build.toml, the contract and the image's own labels and files, and checks it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use oci_spec::image::ImageConfiguration;

use super::{Contract, Expectation, Verdict};
use crate::config::{BuildFile, Distro, Family};
use crate::image::Image;
use crate::image::os_release::OsRelease;
use crate::image::state::State;
use crate::layout::tree::Tree;
use crate::plan::settings::find_distro;
use crate::plan::{lock, patches};
use crate::util::hash;

/// Hashes the rules, the contract, build.toml and `more`: everything besides the image that decides a verdict.
pub fn terms(file: &BuildFile, contract: &Contract, more: &[Vec<u8>]) -> std::io::Result<[u8; 32]> {
    // During development the rules change without a new version.
    let program = std::fs::metadata(std::env::current_exe()?)?;
    let built = format!(
        "{} {} {:?}",
        env!("CARGO_PKG_VERSION"),
        program.len(),
        program.modified()?
    );
    let ours = [built.into_bytes(), file.digest.to_vec(), contract.digest.to_vec()];
    Ok(hash::key(&[&ours[..], more].concat()))
}

pub fn contract_path(file: &BuildFile) -> PathBuf {
    file.root.join("images").join(format!("{}.toml", file.image.name))
}

/// The project's git ref, from the image's label.
pub fn reference_of(config: &ImageConfiguration) -> Option<&str> {
    let labels = config.labels_of_config()?;
    labels.get("org.opencontainers.image.version").map(String::as_str)
}

/// Checks images against one build.toml and one contract.
pub struct Judge {
    pub file: BuildFile,
    pub contract: Contract,
    distro: Option<String>,
}

impl Judge {
    /// `distro` is the required distro [default: detected from the image's os-release], `contract` the contract's file
    /// [default: [`contract_path`]]. [`Judge::checked`] checks the contract's form.
    pub fn new(file: BuildFile, distro: Option<&str>, contract: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(name) = distro {
            find_distro(&file, name)?;
        }
        let contract = Contract::read(contract.unwrap_or(&contract_path(&file)))?;
        Ok(Judge {
            file,
            contract,
            distro: distro.map(str::to_string),
        })
    }

    /// Checks the contract's form, so that an invalid contract is reported before an image is read.
    pub fn checked(self) -> anyhow::Result<Self> {
        self.contract.check_form()?;
        Ok(self)
    }

    /// Hashes everything besides these images that decides the verdicts on them. Reads only the images' configurations.
    pub fn terms(&self, images: &[Image]) -> anyhow::Result<[u8; 32]> {
        let configs = images.iter().filter_map(|image| image.config().ok());
        let references: BTreeSet<String> = configs
            .filter_map(|config| reference_of(&config).map(str::to_string))
            .collect();
        let mut more = vec![self.distro.clone().unwrap_or_default().into_bytes()];
        for reference in &references {
            for (name, content) in lock::candidates(&self.file, reference)? {
                more.extend([name.into_bytes(), content]);
            }
            let patches = patches::expected(&self.file, reference)?;
            more.push(serde_json::to_vec(&patches)?);
        }
        Ok(terms(&self.file, &self.contract, &more)?)
    }

    /// Checks an image as the distro that was required, or as the one that its own files name.
    pub fn verdict(&self, image: &Image) -> anyhow::Result<Verdict> {
        let contents = image.contents()?;
        let distro = match &self.distro {
            Some(name) => find_distro(&self.file, name)?,
            None => detect_distro(&self.file, &contents.tree)?,
        };
        let reference = reference_of(&contents.config);
        let lock = reference
            .and_then(|reference| lock::find(&self.file, reference, &distro.python).ok())
            .and_then(|lock| std::fs::read_to_string(lock.path).ok());
        let patches = reference
            .map(|r| patches::expected(&self.file, r))
            .transpose()?
            .flatten();
        let expectation = Expectation {
            identity: &self.file.user,
            distro,
            project: &self.file.project.name,
            reference,
            labels: &self.file.image.labels,
            lock: lock.as_deref(),
            patches: patches.as_deref(),
        };
        Ok(self.contract.check(image, &expectation)?)
    }

    pub fn verdicts(&self, images: &[Image]) -> anyhow::Result<Vec<Verdict>> {
        images.iter().map(|image| self.verdict(image)).collect()
    }

    /// Checks images whose files are in `state`; `None` if one is not. Holds the files of one image in memory at a time.
    pub fn verdicts_from(&self, state: &State, images: &mut [Image]) -> anyhow::Result<Option<Vec<Verdict>>> {
        let mut verdicts = Vec::new();
        for image in images {
            if !image.recall(state) {
                return Ok(None);
            }
            verdicts.push(self.verdict(image)?);
            image.forget();
        }
        Ok(Some(verdicts))
    }
}

/// Finds the distro of build.toml that matches the image's os-release(5).
fn detect_distro<'a>(file: &'a BuildFile, tree: &Tree) -> anyhow::Result<&'a Distro> {
    let OsRelease { id, codename, .. } = OsRelease::read(tree).unwrap_or_default();
    let family = match id.as_str() {
        "debian" => Some(Family::Debian),
        "ubuntu" => Some(Family::Ubuntu),
        _ => None,
    };
    let known = file
        .distros
        .values()
        .find(|d| Some(d.family) == family && d.suite == codename);
    known.ok_or_else(|| {
        anyhow!("the image's os-release has ID {id:?} and VERSION_CODENAME {codename:?}, which is not a distro of build.toml\nhelp: name one with --distro")
    })
}
