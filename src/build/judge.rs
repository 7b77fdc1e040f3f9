//! A target's image in the layout -> the verdict on it, and its SBOMs if it is going to be signed.

use anyhow::Context as _;
use oci_spec::image::{Descriptor, ImageManifest};

use super::Build;
use super::state::Remembered;
use crate::layout::{self, Tree};
use crate::oci::Platform;
use crate::plan::ImagePlan;
use crate::sign::Attestation;
use crate::verify::judge::{terms, verdict_key};
use crate::verify::{Expectation, ImageUnderTest, Passed, Verdict, read_options};

/// What was found out about a target's image.
pub(super) struct Judged {
    pub verdict: Verdict,
    pub compressed_bytes: u64,
    /// Its SBOMs; empty if nothing is signed.
    pub attestations: Vec<Attestation>,
}

impl Build {
    /// Judges a target. What was judged before by all the same is not judged again, and its files are not looked at if
    /// nothing else wants them.
    pub(super) fn judge(
        &self,
        image: &ImagePlan,
        platform: Platform,
        remembered: &Remembered,
        tree: Option<Tree>,
    ) -> anyhow::Result<Judged> {
        let manifest = &remembered.manifest;
        let digest = manifest.digest().to_string();
        let image_manifest: ImageManifest = self.inputs.layout.read_json(manifest)?;
        let compressed_bytes = image_manifest.layers().iter().map(Descriptor::size).sum();
        let lock = std::fs::read_to_string(&image.lock.path)
            .with_context(|| format!("reading {}", image.lock.path.display()))?;
        // Without it nothing is remembered.
        let terms = self
            .verdict_terms(image, &lock)
            .inspect_err(|error| tracing::debug!(%error, "cannot tell what decides the verdict"));
        let key = terms.ok().map(|terms| verdict_key(&terms, platform, &digest));
        let known = key.and_then(|key| self.state.recall_verdict(&key)?.of(platform, digest.clone()));
        if tree.is_none()
            && self.inputs.key.is_none()
            && let Some(verdict) = known
        {
            return Ok(Judged {
                verdict,
                compressed_bytes,
                attestations: Vec::new(),
            });
        }
        let tree = match tree.or_else(|| Some(self.state.recall_tree(&digest)?.1)) {
            Some(tree) => tree,
            None => layout::read_image(&self.inputs.layout, manifest, &read_options(false))?.tree,
        };
        let config = self.inputs.layout.read_json(image_manifest.config())?;
        let verdict = match known {
            Some(verdict) => verdict,
            None => {
                let under_test = ImageUnderTest {
                    platform,
                    tree: &tree,
                    config: &config,
                    digest: Some(digest),
                    compressed: compressed_bytes,
                    uncompressed: remembered.uncompressed_bytes,
                };
                let expectation = Expectation {
                    identity: &self.inputs.settings.file.user,
                    distro: self.inputs.settings.distro(&image.distro)?,
                    project: &self.inputs.settings.file.project.name,
                    reference: Some(&image.reference),
                    labels: &image.labels,
                    lock: Some(&lock),
                    patches: Some(&image.patches),
                };
                let verdict = self.inputs.contract.check(&under_test, &expectation)?;
                if let (Some(key), Some(passed)) = (key, Passed::new(&verdict))
                    && let Err(error) = self.state.remember_verdicts(vec![(key, passed)])
                {
                    tracing::debug!(%error, "cannot remember the verdict");
                }
                verdict
            }
        };
        Ok(Judged {
            attestations: self.sboms(image, platform, manifest, &config, &tree)?,
            verdict,
            compressed_bytes,
        })
    }

    /// Everything besides the image and its platform that decides a verdict of this build, hashed.
    fn verdict_terms(&self, image: &ImagePlan, lock: &str) -> anyhow::Result<[u8; 32]> {
        let more = [
            b"build".to_vec(),
            image.distro.clone().into_bytes(),
            image.reference.clone().into_bytes(),
            serde_json::to_vec(&image.labels)?,
            lock.as_bytes().to_vec(),
            serde_json::to_vec(&image.patches)?,
        ];
        Ok(terms(&self.inputs.settings.file, &self.inputs.contract, &more)?)
    }
}
