//! Whether the builders can write the caches that they are asked for: said before anything starts.

use super::{PlanError, Target};
use crate::builders::Builders;
use crate::config::cache::CacheType;
use crate::progress::Progress;

/// Refuses what no builder can do; warns of builders that will leave something out.
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
                "warning: builder {} cannot write a cache of type={}, and leaves it out",
                builder.name,
                kind.name()
            ));
        }
    }
    Ok(())
}

/// Who could.
pub(super) fn takes(kind: CacheType) -> &'static str {
    match kind {
        CacheType::Inline => "an engine: a buildkitd has no image store whose image could hold it",
        CacheType::Registry | CacheType::Local => {
            "a buildkitd, or an engine with the containerd image store (Docker 25 or later, \
             \"features\": {\"containerd-snapshotter\": true} in its daemon.json)"
        }
    }
}
