//! Checks before a build that the builders can write the requested caches.

use super::{PlanError, Target};
use crate::builders::Builders;
use crate::config::cache::CacheType;
use crate::progress::Progress;

/// Fails if no builder can write a cache type; warns about each builder that will skip it.
pub(super) fn check<'a>(
    targets: impl Iterator<Item = &'a Target>,
    builders: &Builders,
    progress: &dyn Progress,
) -> Result<(), PlanError> {
    let kinds: Vec<CacheType> = targets.flat_map(|t| t.cache.to.iter().map(|e| e.kind)).collect();
    for kind in [CacheType::Registry, CacheType::Local, CacheType::Inline]
        .into_iter()
        .filter(|k| kinds.contains(k))
    {
        let (able, unable): (Vec<_>, Vec<_>) = builders
            .members()
            .iter()
            .partition(|builder| kind.can_be_written_by(&builder.daemon));
        if able.is_empty() {
            return Err(PlanError::CacheExport { kind });
        }
        for builder in unable {
            progress.note(&format!(
                "warning: builder {} cannot write a cache of type={}, and skips it",
                builder.name,
                kind.name()
            ));
        }
    }
    Ok(())
}

/// The builders that support a cache type.
pub(super) fn takes(kind: CacheType) -> &'static str {
    match kind {
        CacheType::Inline => "an engine: a buildkitd has no image store",
        CacheType::Registry | CacheType::Local => {
            "a buildkitd, or an engine with the containerd image store (Docker 25 or later, \
             \"features\": {\"containerd-snapshotter\": true} in its daemon.json)"
        }
    }
}
