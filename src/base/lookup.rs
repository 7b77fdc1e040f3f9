//! Looks up a base's reference in its registry: the digest, and the image for a platform.
//!
//! The digest comes from a HEAD request, which registries do not count as a pull, or from a GET if HEAD is not
//! supported. Answers and failures are cached for the whole run, so that all targets start from the same base.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageIndex, ImageManifest};
use tokio::sync::Mutex;

use crate::config::BootstrapMode;
use crate::engine::Engine;
use crate::layout;
use crate::oci::{ImageReference, Platform, RepositoryName};
use crate::registry::{Access, Patience, Registries, RegistryError, Repository};

/// Some seconds: an image in the engine may replace an unreachable registry.
const PATIENCE: Patience = Patience {
    tries: 4,
    first: Duration::from_millis(250),
    longest: Duration::from_secs(2),
};
/// If the archive is an alternative, a run without network must not wait.
const IMPATIENT: Patience = Patience {
    tries: 2,
    first: Duration::from_millis(100),
    ..PATIENCE
};
/// Limit of a whole request in that case; always the limit of an engine's request.
const LIMIT: Duration = Duration::from_secs(10);

/// The image of a platform in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryImage {
    pub repository: RepositoryName,
    /// Digest of the reference: of the index, or of the only manifest.
    pub digest: Digest,
    /// Digest of the platform's manifest.
    pub manifest: Digest,
    /// Digest of its config: the image's ID in a classic store.
    pub config: Digest,
    /// Digests of the uncompressed layers, base first.
    pub diff_ids: Vec<String>,
}

/// Why a registry lookup failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupFailure {
    pub reason: String,
    /// Whether the registry answered: it has no such image, or denies access. Otherwise it was unreachable.
    pub answered: bool,
}

impl LookupFailure {
    fn definite(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            answered: true,
        }
    }
}

impl From<RegistryError> for LookupFailure {
    fn from(error: RegistryError) -> Self {
        let answered = !matches!(
            error,
            RegistryError::Connection { .. } | RegistryError::Status { .. } | RegistryError::Protocol { .. }
        ) && !error.is_transient();
        Self {
            reason: error.to_string(),
            answered,
        }
    }
}

type Answers<K, V> = Mutex<HashMap<K, Result<V, LookupFailure>>>;

/// Looks up bases in registries, with each request sent only once.
pub struct Lookup {
    registries: Registries,
    limit: Option<Duration>,
    digests: Answers<String, Digest>,
    images: Answers<(String, Platform), RegistryImage>,
    /// By the engine's endpoint and the reference.
    by_engines: Answers<(String, String), Digest>,
}

impl Lookup {
    /// `base` is `--base`, which has no alternative.
    pub fn new(registries: Registries, mode: BootstrapMode, base: Option<&str>) -> Self {
        let has_alternative = mode == BootstrapMode::Auto && base.is_none();
        Self {
            registries: registries.with_patience(if has_alternative { IMPATIENT } else { PATIENCE }),
            limit: has_alternative.then_some(LIMIT),
            digests: Mutex::default(),
            images: Mutex::default(),
            by_engines: Mutex::default(),
        }
    }

    /// The digest of `reference`. A digest within the reference is not checked with the registry.
    pub async fn digest(&self, reference: &str) -> Result<Digest, LookupFailure> {
        once(&self.digests, reference.to_string(), async || {
            let (parsed, repository) = self.open(reference)?;
            match parsed.digest {
                Some(digest) => Ok(digest),
                None => self.in_time(tag_digest(&repository, tag(&parsed))).await,
            }
        })
        .await
    }

    /// The image of `reference` for `platform`.
    pub async fn image(&self, reference: &str, platform: Platform) -> Result<RegistryImage, LookupFailure> {
        let digest = self.digest(reference).await?;
        once(&self.images, (reference.to_string(), platform), async || {
            let (parsed, repository) = self.open(reference)?;
            self.in_time(image(&repository, parsed.repository, digest.clone(), platform))
                .await
        })
        .await
    }

    /// The digest that the engine resolves. Its configuration may have a mirror, proxy or plain HTTP that this program
    /// lacks.
    pub async fn by_engine(&self, engine: &Engine, reference: &str) -> Result<Digest, LookupFailure> {
        let failed = |reason: String| LookupFailure {
            reason,
            answered: false,
        };
        let key = (engine.endpoint().to_string(), reference.to_string());
        once(&self.by_engines, key, async || {
            let asking = tokio::time::timeout(LIMIT, engine.registry_digest(reference)).await;
            let asked = asking.map_err(|_| failed(format!("no answer in {} s", LIMIT.as_secs())))?;
            let digest = asked.map_err(|e| failed(e.to_string()))?;
            digest
                .parse()
                .map_err(|_| failed(format!("{digest:?} is not a digest")))
        })
        .await
    }

    fn open(&self, reference: &str) -> Result<(ImageReference, Repository), LookupFailure> {
        let parsed = ImageReference::familiar(reference)
            .map_err(|reason| LookupFailure::definite(format!("{reference:?} is not an image reference: {reason}")))?;
        let repository = self.registries.repository(&parsed.repository, Access::Pull)?;
        Ok((parsed, repository))
    }

    async fn in_time<T>(&self, asking: impl Future<Output = Result<T, LookupFailure>>) -> Result<T, LookupFailure> {
        let Some(limit) = self.limit else { return asking.await };
        tokio::time::timeout(limit, asking).await.unwrap_or_else(|_| {
            Err(LookupFailure {
                reason: format!("no answer in {} s", limit.as_secs()),
                answered: false,
            })
        })
    }
}

/// The lock is held during the request, so that the second caller gets the first answer.
async fn once<K, V>(
    answers: &Answers<K, V>,
    key: K,
    ask: impl AsyncFnOnce() -> Result<V, LookupFailure>,
) -> Result<V, LookupFailure>
where
    K: Eq + Hash,
    V: Clone,
{
    let mut answers = answers.lock().await;
    if let Some(answer) = answers.get(&key) {
        return answer.clone();
    }
    let answer = ask().await;
    answers.insert(key, answer.clone());
    answer
}

/// The tag; docker's default is `latest`.
fn tag(reference: &ImageReference) -> &str {
    reference.tag.as_deref().unwrap_or("latest")
}

async fn tag_digest(repository: &Repository, tag: &str) -> Result<Digest, LookupFailure> {
    let text = match repository.tag_digest(tag).await {
        Ok(found) => found,
        // Some registries do not support HEAD.
        Err(RegistryError::Status { status, .. }) if status.is_client_error() && status.as_u16() != 429 => None,
        Err(error) => return Err(error.into()),
    };
    match text.and_then(|text| text.parse().ok()) {
        Some(digest) => Ok(digest),
        None => Ok(repository.manifest(tag).await?.descriptor.digest().clone()),
    }
}

async fn image(
    repository: &Repository,
    name: RepositoryName,
    digest: Digest,
    platform: Platform,
) -> Result<RegistryImage, LookupFailure> {
    let root = repository.manifest(digest.as_ref()).await?;
    let content = match layout::is_index(root.descriptor.media_type()) {
        false => root,
        true => {
            let index: ImageIndex = repository.parse(&root.descriptor, &root.bytes)?;
            let fits = |child: &&Descriptor| {
                let of = child.platform().as_ref();
                of.and_then(|p| layout::known_platform(p.os(), p.architecture())) == Some(platform)
            };
            let child = index.manifests().iter().find(fits);
            let child = child.ok_or_else(|| {
                LookupFailure::definite(format!("the registry has no image of this name for {platform}"))
            })?;
            repository.manifest(child.digest().as_ref()).await?
        }
    };
    let manifest: ImageManifest = repository.parse(&content.descriptor, &content.bytes)?;
    let config = repository.blob(manifest.config()).await?;
    let config: ImageConfiguration = repository.parse(manifest.config(), &config)?;
    let (os, architecture) = (config.os(), config.architecture());
    if layout::known_platform(os, architecture) != Some(platform) {
        let reason = format!("the registry has it for {os}/{architecture}, not for {platform}");
        return Err(LookupFailure::definite(reason));
    }
    Ok(RegistryImage {
        repository: name,
        digest,
        manifest: content.descriptor.digest().clone(),
        config: manifest.config().digest().clone(),
        diff_ids: config.rootfs().diff_ids().clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_is_definite() {
        let not_found = RegistryError::NotFound {
            repository: "reg/a".into(),
            what: "tag 1".into(),
        };
        assert!(LookupFailure::from(not_found).answered);
        let unreachable = RegistryError::Connection {
            host: "reg".into(),
            doing: "asking".into(),
            reason: "no route".into(),
        };
        assert!(!LookupFailure::from(unreachable).answered);
    }

    #[tokio::test]
    async fn each_question_is_asked_once() {
        let answers = Answers::<u8, u8>::default();
        let failure = LookupFailure::definite("no");
        for _ in 0..2 {
            assert_eq!(once(&answers, 1, async || Ok(7)).await, Ok(7));
        }
        assert_eq!(once(&answers, 1, async || panic!("asked again")).await, Ok(7));
        assert_eq!(once(&answers, 2, async || Err(failure.clone())).await, Err(failure));
    }
}
