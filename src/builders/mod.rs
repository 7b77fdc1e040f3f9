//! Connects the builders of `[[builder]]` in build.toml, or the engine of the environment, and leases their slots to
//! targets.
//!
//! A builder that does not answer at the start is skipped. A builder that dies later gets no further targets, and its
//! targets are leased another one.

mod connect;
mod select;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::Serialize;
use tokio::sync::Notify;

pub use connect::ConnectError;
use select::{Candidate, Choice, Fit};

use crate::buildkit::Daemon;
use crate::config::builders::BuilderEntry;
use crate::oci::Platform;

/// A connected engine or buildkitd, and its share of the targets.
pub struct Builder {
    /// The name in build.toml; [`connect::DEFAULT`] for the engine of the environment.
    pub name: String,
    pub daemon: Daemon,
    /// The platform that its machine runs without emulation.
    pub native: Platform,
    /// The platforms that it may build.
    pub platforms: Vec<Platform>,
    /// Platforms that build.toml lists for it and that it cannot run.
    pub lacks: Vec<Platform>,
    /// The platforms that its BuildKit reports, in BuildKit's spelling.
    runs: Vec<String>,
    /// Number of concurrent solves.
    pub slots: usize,
}

/// An unavailable builder of build.toml.
#[derive(Clone, Debug, Serialize)]
pub struct Absent {
    pub name: String,
    pub endpoint: String,
    pub reason: String,
}

/// All builders of a run, shared by its targets.
pub struct Builders {
    members: Vec<Arc<Builder>>,
    absent: Vec<Absent>,
    states: Mutex<Vec<State>>,
    /// Notified when a slot is freed or a builder dies.
    changed: Notify,
}

#[derive(Clone, Debug, Default)]
struct State {
    used: usize,
    /// Why the builder gets no further targets.
    died: Option<String>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum NoBuilder {
    #[error(
        "the builder at {endpoint} cannot run {platform}, which the last stage's apt step needs; it runs {known}\n\
         help: register emulation on its machine (`obgp-build doctor` prints the command), or use --platform {native}"
    )]
    NoEmulation {
        endpoint: String,
        platform: Platform,
        known: String,
        native: Platform,
    },
    #[error("no builder of build.toml can build {platform}:{}", list(tried))]
    NoneLeft {
        platform: Platform,
        /// Builders by name, and the reason of each.
        tried: Vec<(String, String)>,
    },
}

fn list(tried: &[(String, String)]) -> String {
    tried
        .iter()
        .map(|(name, why)| format!("\n  {name}: {}", why.replace('\n', "\n    ")))
        .collect()
}

fn join(platforms: &[Platform]) -> String {
    platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(", ")
}

impl Builders {
    /// Connects the builders of `entries`; if there are none, the engine of the environment with `default_slots`.
    /// `root` is the directory of build.toml. Unreachable entries are [`Self::absent`]; an unreachable engine of the
    /// environment is an error.
    pub async fn connect(
        entries: &[BuilderEntry],
        root: &Path,
        default_slots: usize,
    ) -> Result<Arc<Self>, ConnectError> {
        let (members, absent) = match entries {
            [] => (vec![connect::of_the_environment(default_slots).await?], Vec::new()),
            entries => connect::all(entries, root).await,
        };
        Ok(Arc::new(Self {
            states: Mutex::new(vec![State::default(); members.len()]),
            members: members.into_iter().map(Arc::new).collect(),
            absent,
            changed: Notify::new(),
        }))
    }

    /// The builders that answered at the start.
    pub fn members(&self) -> &[Arc<Builder>] {
        &self.members
    }

    pub fn absent(&self) -> &[Absent] {
        &self.absent
    }

    /// The sum of their slots.
    pub fn slots(&self) -> usize {
        self.members.iter().map(|builder| builder.slots).sum()
    }

    /// The builders of targets for these platforms, in this order, if no builder fails.
    pub fn foresee(&self, platforms: impl IntoIterator<Item = Platform>) -> Result<Vec<Arc<Builder>>, NoBuilder> {
        let mut states = self.states().clone();
        let place = |platform| {
            let index = select::foresee(&self.candidates(&states, platform))
                .ok_or_else(|| self.no_builder(&states, platform))?;
            states[index].used += 1;
            Ok(Arc::clone(&self.members[index]))
        };
        platforms.into_iter().map(place).collect()
    }

    /// Leases a slot for a target, if one is free.
    pub fn try_lease(self: &Arc<Self>, platform: Platform) -> Option<Lease> {
        self.take(platform).ok().flatten()
    }

    /// Waits for a free slot for a target.
    pub async fn lease(self: &Arc<Self>, platform: Platform) -> Result<Lease, NoBuilder> {
        loop {
            // Register before looking, so that no notification is missed.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(lease) = self.take(platform)? {
                return Ok(lease);
            }
            changed.await;
        }
    }

    fn take(self: &Arc<Self>, platform: Platform) -> Result<Option<Lease>, NoBuilder> {
        let mut states = self.states();
        match select::choose(&self.candidates(&states, platform)) {
            Choice::Take(index) => {
                states[index].used += 1;
                Ok(Some(Lease {
                    builder: Arc::clone(&self.members[index]),
                    slot: Slot {
                        builders: Arc::clone(self),
                        index,
                    },
                }))
            }
            Choice::Wait => Ok(None),
            Choice::NoneLeft => Err(self.no_builder(&states, platform)),
        }
    }

    /// Gives `builder` no further targets. Fails if no other builder is left for `platform`.
    pub fn mark_dead(&self, builder: &Builder, reason: &str, platform: Platform) -> Result<(), NoBuilder> {
        let mut states = self.states();
        if let Some(index) = self.members.iter().position(|member| member.name == builder.name) {
            states[index].died.get_or_insert_with(|| reason.to_string());
        }
        self.changed.notify_waiters();
        match select::choose(&self.candidates(&states, platform)) {
            Choice::NoneLeft => Err(self.no_builder(&states, platform)),
            Choice::Take(_) | Choice::Wait => Ok(()),
        }
    }

    fn candidates(&self, states: &[State], platform: Platform) -> Vec<Candidate> {
        let of = |(builder, state): (&Arc<Builder>, &State)| Candidate {
            fit: match platform {
                _ if state.died.is_some() || !builder.platforms.contains(&platform) => None,
                native if native == builder.native => Some(Fit::Native),
                _ => Some(Fit::Emulated),
            },
            used: state.used,
            slots: builder.slots,
        };
        self.members.iter().zip(states).map(of).collect()
    }

    fn no_builder(&self, states: &[State], platform: Platform) -> NoBuilder {
        if let ([only], [State { died: None, .. }], true) = (self.members.as_slice(), states, self.absent.is_empty())
            && !only
                .runs
                .iter()
                .any(|p| p.parse().is_ok_and(|p: Platform| p == platform))
        {
            return NoBuilder::NoEmulation {
                endpoint: only.daemon.endpoint().to_string(),
                platform,
                known: only.runs.join(", "),
                native: only.native,
            };
        }
        let there = self.members.iter().zip(states).map(|(builder, state)| {
            let why = match &state.died {
                Some(reason) => format!("died: {reason}"),
                None => format!("takes {} only", join(&builder.platforms)),
            };
            (builder.name.clone(), why)
        });
        let absent = self.absent.iter().map(|a| (a.name.clone(), a.reason.clone()));
        NoBuilder::NoneLeft {
            platform,
            tried: there.chain(absent).collect(),
        }
    }

    fn states(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// A builder, and the slot leased to a target.
pub struct Lease {
    pub builder: Arc<Builder>,
    pub slot: Slot,
}

/// Freed on drop.
pub struct Slot {
    builders: Arc<Builders>,
    index: usize,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.builders.states()[self.index].used -= 1;
        self.builders.changed.notify_waiters();
    }
}

/// Concurrent solves of a builder without an entry in build.toml: a target waits for the network as often as it
/// computes.
pub fn default_slots() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get().max(2))
}
