//! Writes the plan and result of a build as SLSA provenance of one platform's image.
//!
//! The predicate is SLSA's v1 (<https://slsa.dev/spec/v1.0/provenance>); `docs/provenance.md` describes the content of
//! this tool's [`BUILD_TYPE`]. Secrets are not parameters: neither their values nor their sources are included.

use std::collections::BTreeMap;
use std::io::{self, Read as _};

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::component::purl;
use super::statement::{Statement, Subject};
use crate::base::BaseReport;
use crate::oci::Platform;
use crate::plan::build_context::DOCKERFILE;
use crate::plan::source::Source;
use crate::plan::{BuilderPlan, ImagePlan, Target};

/// The predicate type of `cosign attest --type slsaprovenance1`.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";

/// Defines the meaning of the parameters, see `docs/provenance.md`. The number changes with the meaning.
pub const BUILD_TYPE: &str = "https://opendev.org/openstack/openstack-helm-images/obgp-build/provenance/v1";

/// Facts that the plan does not contain: who built, when, and with which flags.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The project's name on PyPI.
    pub project: &'a str,
    /// A URI for the trusted build platform: a CI system's job, or a person's machine.
    pub builder_id: &'a str,
    /// The builder that was used.
    pub builder: &'a BuilderPlan,
    pub flags: Flags<'a>,
    /// Whether the last stage ran under emulation.
    pub emulated: bool,
    /// The base of the last stage.
    pub base: &'a BaseReport,
    /// The base of the builder stages, if known.
    pub build_base: Option<&'a BaseReport>,
    pub started: Timestamp,
    pub finished: Timestamp,
}

/// The flags that affect the result.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Flags<'a> {
    pub no_cache: bool,
    pub locked: bool,
    pub compression: &'a str,
    /// `--base`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<&'a str>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProvenanceError {
    #[error("reading the build context of {image}: {source}")]
    Context { image: String, source: io::Error },
    #[error("the build context of {image} has no {DOCKERFILE}")]
    NoDockerfile { image: String },
    #[error("writing the provenance of {image}: {source}")]
    Json { image: String, source: serde_json::Error },
}

/// The statement about `subject`, the manifest built for `target`, as bytes.
pub fn statement(
    subject: Subject,
    image: &ImagePlan,
    target: &Target,
    run: &Run<'_>,
) -> Result<Vec<u8>, ProvenanceError> {
    let predicate = predicate(image, target, run)?;
    let statement = Statement::new(subject, PREDICATE_TYPE, predicate);
    statement.to_bytes().map_err(|source| ProvenanceError::Json {
        image: image.name.clone(),
        source,
    })
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Predicate<'a> {
    build_definition: BuildDefinition<'a>,
    run_details: RunDetails<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildDefinition<'a> {
    build_type: &'static str,
    external_parameters: ExternalParameters<'a>,
    internal_parameters: InternalParameters<'a>,
    resolved_dependencies: Vec<Resource>,
}

/// The requested build.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalParameters<'a> {
    distro: &'a str,
    platform: Platform,
    #[serde(rename = "ref")]
    reference: &'a str,
    image: &'a str,
    flags: Flags<'a>,
}

/// The resolved build.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct InternalParameters<'a> {
    python: &'a str,
    /// The OpenStack release whose upper constraints the lock uses.
    constraints: &'a str,
    lock: &'a str,
    source_date_epoch: i64,
    emulated: bool,
    labels: &'a BTreeMap<String, String>,
}

/// SLSA's ResourceDescriptor.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    digest: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<&'static str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RunDetails<'a> {
    builder: Builder<'a>,
    metadata: Metadata,
}

#[derive(Debug, Serialize)]
struct Builder<'a> {
    id: &'a str,
    version: BTreeMap<&'static str, &'a str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    started_on: String,
    finished_on: String,
}

fn predicate<'a>(image: &'a ImagePlan, target: &'a Target, run: &Run<'a>) -> Result<Predicate<'a>, ProvenanceError> {
    Ok(Predicate {
        build_definition: BuildDefinition {
            build_type: BUILD_TYPE,
            external_parameters: ExternalParameters {
                distro: &image.distro,
                platform: target.platform,
                reference: &image.reference,
                image: &image.name,
                flags: run.flags,
            },
            internal_parameters: InternalParameters {
                python: &image.python,
                constraints: &image.constraints,
                lock: &image.lock.name,
                source_date_epoch: image.source_date_epoch,
                emulated: run.emulated,
                labels: &image.labels,
            },
            resolved_dependencies: dependencies(image, run)?,
        },
        run_details: RunDetails {
            builder: Builder {
                id: run.builder_id,
                version: BTreeMap::from([
                    ("obgp-build", env!("CARGO_PKG_VERSION")),
                    (run.builder.kind.name(), run.builder.version.as_str()),
                ]),
            },
            metadata: Metadata {
                started_on: seconds(run.started),
                finished_on: seconds(run.finished),
            },
        },
    })
}

/// RFC 3339 in UTC.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// All inputs that were pinned before the build: bases, files, the lock, the project, its patches.
fn dependencies(image: &ImagePlan, run: &Run<'_>) -> Result<Vec<Resource>, ProvenanceError> {
    let files = ContextFiles::read(image)?;
    let mut all = vec![base("base", run.base)];
    all.extend(run.build_base.map(|report| base("build base", report)));
    all.push(Resource::file(DOCKERFILE, files.dockerfile));
    all.push(Resource {
        media_type: Some("application/x-tar"),
        ..Resource::file("build context", bare(&image.context_digest).to_string())
    });
    all.push(Resource {
        annotations: BTreeMap::from([("distributions", image.lock.distributions.to_string())]),
        ..Resource::file(
            &format!("locks/{}", image.lock.name),
            bare(&image.lock.digest).to_string(),
        )
    });
    all.push(project(image, run.project));
    all.extend(image.patches.iter().map(|patch| Resource {
        annotations: BTreeMap::from([("summary", patch.summary.clone())]),
        ..Resource::file(&format!("patches/{}.patch", patch.name), patch.sha256.clone())
    }));
    all.extend(files.runtime.map(|digest| Resource {
        name: "runtime".to_string(),
        digest: BTreeMap::from([("dirHash", digest)]),
        ..Resource::default()
    }));
    Ok(all)
}

/// `docker-image` is BuildKit's name for this source. A base that is only in the engine may have no digest.
fn base(role: &str, report: &BaseReport) -> Resource {
    let digest = report.digest.as_deref().map(|d| ("sha256", bare(d).to_string()));
    Resource {
        name: report.name.clone(),
        uri: Some(format!("docker-image://{}", report.name)),
        digest: digest.into_iter().collect(),
        annotations: BTreeMap::from([("role", role.to_string())]),
        ..Resource::default()
    }
}

/// A release from PyPI has hashes in the lock; a git source is identified by its commit.
fn project(image: &ImagePlan, name: &str) -> Resource {
    match &image.source {
        Source::PyPI { version } => Resource {
            name: name.to_string(),
            uri: Some(purl("pypi", None, name, version, &[])),
            annotations: BTreeMap::from([("hashes", format!("locks/{}", image.lock.name))]),
            ..Resource::default()
        },
        Source::Git { url, commit } => Resource {
            name: name.to_string(),
            uri: Some(format!("git+{url}@{}", image.reference)),
            digest: BTreeMap::from([("gitCommit", commit.clone())]),
            ..Resource::default()
        },
    }
}

/// The hexadecimal part.
fn bare(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

impl Resource {
    fn file(name: &str, sha256: String) -> Self {
        Resource {
            name: name.to_string(),
            digest: BTreeMap::from([("sha256", sha256)]),
            ..Resource::default()
        }
    }
}

/// Files of the context that are listed in addition to the digest of the whole.
struct ContextFiles {
    dockerfile: String,
    /// Digest of `runtime/`, if it is in the context: in-toto's `dirHash`, which is Go's h1 in hexadecimal.
    runtime: Option<String>,
}

impl ContextFiles {
    fn read(image: &ImagePlan) -> Result<Self, ProvenanceError> {
        let digests = digests(&image.context).map_err(|source| ProvenanceError::Context {
            image: image.name.clone(),
            source,
        })?;
        let dockerfile = digests.get(DOCKERFILE).ok_or_else(|| ProvenanceError::NoDockerfile {
            image: image.name.clone(),
        })?;
        let listing: String = digests
            .iter()
            .filter(|(path, _)| path.starts_with("runtime/"))
            .map(|(path, digest)| format!("{digest}  {path}\n"))
            .collect();
        Ok(ContextFiles {
            dockerfile: dockerfile.clone(),
            runtime: (!listing.is_empty()).then(|| hex::encode(Sha256::digest(listing))),
        })
    }
}

/// SHA-256 of each file of the context, by path.
fn digests(context: &[u8]) -> io::Result<BTreeMap<String, String>> {
    let mut digests = BTreeMap::new();
    for entry in tar::Archive::new(context).entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?.to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        digests.insert(path, hex::encode(Sha256::digest(content)));
    }
    Ok(digests)
}
