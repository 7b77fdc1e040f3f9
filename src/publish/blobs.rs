//! Transfers missing blobs into repositories: mounts a blob that the registry already has, and reads each other blob
//! once for all registries.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::{Item, PublishError, Site};
use crate::oci::RepositoryName;
use crate::progress::Progress;
use crate::registry::Meter;

/// More concurrent uploads are not faster, and need memory.
const AT_ONCE: usize = 4;

/// Counts of one repository's blobs by origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub uploaded: usize,
    /// Mounted from another repository in the registry.
    pub mounted: usize,
    pub present: usize,
}

#[derive(Default)]
struct Tally {
    uploaded: AtomicUsize,
    mounted: AtomicUsize,
    present: AtomicUsize,
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Ensures that every site has every blob; returns the counts per site.
pub(super) async fn deliver(
    sites: &[&Site],
    items: &[Item],
    mount_from: &[RepositoryName],
    meter: &Arc<Meter>,
    progress: &dyn Progress,
) -> Result<Vec<Counts>, PublishError> {
    let tallies: Vec<Tally> = sites.iter().map(|_| Tally::default()).collect();
    // Without duplicates: images share layers, and artifacts the empty config. A registry may fail if it receives the
    // same blob twice at once.
    let mut met = HashSet::new();
    let mut order: Vec<&Item> = items.iter().filter(|item| met.insert(item.blob.digest())).collect();
    // The largest first, so that the last uploads are small.
    order.sort_by_key(|item| std::cmp::Reverse(item.blob.size()));
    let begun = meter.done();
    let total: u64 = order.iter().map(|item| item.blob.size()).sum::<u64>() * sites.len() as u64;
    let present = std::sync::atomic::AtomicU64::new(0);
    let work = stream::iter(order)
        .map(|item| one(sites, item, mount_from, &tallies, &present, meter))
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>();
    let mut work = std::pin::pin!(work);
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            done = &mut work => { done?; break; }
            _ = tick.tick() => {
                let left = total.saturating_sub(present.load(Ordering::Relaxed));
                progress.bytes(meter.done().saturating_sub(begun), Some(left));
            }
        }
    }
    let read = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let counts = tallies.iter().map(|tally| Counts {
        uploaded: read(&tally.uploaded),
        mounted: read(&tally.mounted),
        present: read(&tally.present),
    });
    Ok(counts.collect())
}

async fn one(
    sites: &[&Site],
    item: &Item,
    mount_from: &[RepositoryName],
    tallies: &[Tally],
    unneeded: &std::sync::atomic::AtomicU64,
    meter: &Arc<Meter>,
) -> Result<(), PublishError> {
    let blob = &item.blob;
    let has = try_join_all(sites.iter().map(|site| site.repository.has_blob(blob))).await?;
    let no_bytes = |tally: &AtomicUsize| {
        count(tally);
        unneeded.fetch_add(blob.size(), Ordering::Relaxed);
    };
    let mut missing: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, has) in has.iter().enumerate() {
        match has {
            true => no_bytes(&tallies[i].present),
            false => missing.entry(&sites[i].name.registry).or_default().push(i),
        }
    }
    // If no repository of a registry has the blob, one receives the bytes and the others mount it from there.
    let mut leads = Vec::new();
    let mut followers = Vec::new();
    for (registry, wanting) in missing {
        let holder = (0..sites.len()).find(|&i| has[i] && sites[i].name.registry == registry);
        let holder = holder.map(|i| sites[i].name.path.as_str());
        let known = mount_from
            .iter()
            .find(|name| name.registry == registry)
            .map(|name| name.path.as_str());
        let mut lead = None;
        for i in wanting {
            let from = lead
                .map(|lead: usize| sites[lead].name.path.as_str())
                .or(holder)
                .or(known);
            match (lead, from) {
                (Some(_), Some(from)) => followers.push((i, from)),
                (None, Some(from)) if sites[i].repository.mount(blob.digest(), from).await => {
                    no_bytes(&tallies[i].mounted);
                    lead = Some(i);
                }
                _ => {
                    leads.push(i);
                    lead = Some(i);
                }
            }
        }
    }
    let mut pieces = match leads.len() {
        0 | 1 => Vec::new(),
        n => item.source.open(blob, 0, n),
    };
    let uploads = leads.iter().map(|&i| {
        let site = &sites[i];
        let pieces = pieces.pop();
        async move { site.repository.upload(blob, &item.source, pieces, meter).await }
    });
    // Wait for all: they share the reading, and completed parts need not be sent again.
    for (&i, done) in leads.iter().zip(join_all(uploads.collect::<Vec<_>>()).await) {
        done?;
        count(&tallies[i].uploaded);
    }
    for (i, from) in followers {
        if sites[i].repository.mount(blob.digest(), from).await {
            no_bytes(&tallies[i].mounted);
        } else {
            sites[i].repository.upload(blob, &item.source, None, meter).await?;
            count(&tallies[i].uploaded);
        }
    }
    Ok(())
}
