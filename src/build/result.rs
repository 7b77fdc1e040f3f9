//! The result of a build, as `report.json` and `--json` have it. Scripts read these fields: they are stable.

use serde::Serialize;

use super::smoke::SmokeResult;
use crate::base::BaseReport;
use crate::builders::Absent;
use crate::engine::storage::ReadFrom;
use crate::oci::Platform;
use crate::plan::BuilderPlan;
use crate::plan::source::Source;
use crate::publish::Published;
use crate::verify::Verdict;

#[derive(Clone, Debug, Serialize)]
pub struct BuildReport {
    /// Of this program.
    pub version: &'static str,
    /// The engines that build.
    pub builders: Vec<BuilderPlan>,
    /// Builders of build.toml that were left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Absent>,
    /// RFC 3339.
    pub started: String,
    pub seconds: f64,
    pub images: Vec<ImageReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Built and verified; its tag in the layout is set.
    Done,
    /// A target could not be built, or the image not be pushed.
    Failed,
    /// Built, but a platform breaks the contract or fails its smoke test: the tag was not set.
    BreaksContract,
}

#[derive(Clone, Debug, Serialize)]
pub struct ImageReport {
    /// `REGISTRY/PREFIX/NAME:TAG`.
    pub name: String,
    pub distro: String,
    pub reference: String,
    pub source: Source,
    pub outcome: Outcome,
    /// `oci:DIR:TAG`, for `verify`, `diff`, skopeo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
    /// Of the image index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Commands that verify the pushed signatures with cosign.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verify: Vec<String>,
    /// Where it was pushed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
    /// Why it could not be tagged or pushed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub platforms: Vec<PlatformReport>,
}

#[derive(Clone, Debug, Serialize)]
pub struct PlatformReport {
    pub platform: Platform,
    pub seconds: f64,
    /// Why it could not be built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub built: Option<Built>,
}

/// What there is to say of a platform that was built.
#[derive(Clone, Debug, Serialize)]
pub struct Built {
    /// Of the platform's manifest.
    pub digest: String,
    /// The builder that built it.
    pub builder: String,
    /// Whether its last stage ran under emulation there.
    pub emulated: bool,
    /// Its name in that builder's engine, for `docker run`. A buildkitd keeps no images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_image: Option<String>,
    pub base: BaseReport,
    pub steps: usize,
    pub cached_steps: usize,
    /// Nothing had changed: the layout held it already.
    pub unchanged: bool,
    /// How the image left the engine that built it; absent if it was not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_from: Option<ReadFrom>,
    /// Bytes of the layers as they are stored and pulled.
    pub compressed_bytes: u64,
    /// Bytes of the layers' tar streams.
    pub uncompressed_bytes: u64,
    pub files: usize,
    pub verdict: Verdict,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub smoke: Vec<SmokeResult>,
}

impl Built {
    pub fn was_in_engine_storage(&self) -> bool {
        self.read_from == Some(ReadFrom::EngineStorage)
    }

    /// Whether no step of the build ran.
    pub fn nothing_ran(&self) -> bool {
        self.unchanged || self.cached_steps == self.steps
    }
}

impl BuildReport {
    /// The worst of its images.
    pub fn outcome(&self) -> Outcome {
        let has = |outcome| self.images.iter().any(|i| i.outcome == outcome);
        if has(Outcome::Failed) {
            Outcome::Failed
        } else if has(Outcome::BreaksContract) {
            Outcome::BreaksContract
        } else {
            Outcome::Done
        }
    }
}
