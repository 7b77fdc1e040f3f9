//! `[[builder]]` of build.toml, or the engine of the environment -> connected builders, and a slot of the right one for
//! each target.
//!
//! A builder that does not answer at the start is left out; one that dies later is not given targets any more, and those
//! it had ask for another.

mod connect;
mod select;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::Serialize;
use tokio::sync::Notify;

pub use connect::ConnectError;
use select::{Choice, Fit, Standing};

use crate::buildkit::Daemon;
use crate::config::builders::BuilderEntry;
use crate::oci::Platform;

/// A connected engine or buildkitd, and what it is to be given.
pub struct Builder {
    /// As build.toml has it; [`connect::DEFAULT`] for the engine of the environment.
    pub name: String,
    pub daemon: Daemon,
    /// What its machine runs without emulation.
    pub native: Platform,
    /// What it may be given targets for.
    pub platforms: Vec<Platform>,
    /// Listed for it in build.toml, but it cannot run them.
    pub lacks: Vec<Platform>,
    /// What its BuildKit says it can run, in its own words.
    runs: Vec<String>,
    /// Solves at a time.
    pub slots: usize,
}

/// A builder of build.toml that is not there.
#[derive(Clone, Debug, Serialize)]
pub struct Absent {
    pub name: String,
    pub endpoint: String,
    pub reason: String,
}

/// All builders of a run. Shared by its targets.
pub struct Builders {
    members: Vec<Arc<Builder>>,
    absent: Vec<Absent>,
    states: Mutex<Vec<State>>,
    /// A slot was freed, or a builder died.
    changed: Notify,
}

#[derive(Clone, Debug, Default)]
struct State {
    used: usize,
    /// Why it is given nothing any more.
    died: Option<String>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum NoBuilder {
    #[error(
        "the builder at {endpoint} cannot run {platform}, which the last stage's apt step needs; it runs {known}.\n\
         Register emulation on its machine (`obgp-build doctor` prints the command), or leave it out: --platform {native}"
    )]
    NoEmulation {
        endpoint: String,
        platform: Platform,
        known: String,
        native: Platform,
    },
    #[error("no builder of build.toml can take {platform}:{}", list(tried))]
    Nobody {
        platform: Platform,
        /// Builders by name, and why not.
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
    /// The builders of `entries`, or the engine of the environment, with `default_slots`, if there are none. `root` is the
    /// directory of build.toml. Entries that cannot be reached are [`Self::absent`]; the environment's engine has to be
    /// there.
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

    /// Those that were there when the run began.
    pub fn members(&self) -> &[Arc<Builder>] {
        &self.members
    }

    pub fn absent(&self) -> &[Absent] {
        &self.absent
    }

    /// All their slots.
    pub fn slots(&self) -> usize {
        self.members.iter().map(|builder| builder.slots).sum()
    }

    /// Where targets for these platforms would go, in this order, if nothing else happens.
    pub fn foresee(&self, platforms: impl IntoIterator<Item = Platform>) -> Result<Vec<Arc<Builder>>, NoBuilder> {
        let mut states = self.states().clone();
        let place = |platform| {
            let index =
                select::foresee(&self.standings(&states, platform)).ok_or_else(|| self.nobody(&states, platform))?;
            states[index].used += 1;
            Ok(Arc::clone(&self.members[index]))
        };
        platforms.into_iter().map(place).collect()
    }

    /// A slot for a target, if one is free.
    pub fn try_lease(self: &Arc<Self>, platform: Platform) -> Option<Lease> {
        self.take(platform).ok().flatten()
    }

    /// A slot for a target as soon as one is free.
    pub async fn lease(self: &Arc<Self>, platform: Platform) -> Result<Lease, NoBuilder> {
        loop {
            // Registered before looking, so that nothing that happens in between is missed.
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
        match select::choose(&self.standings(&states, platform)) {
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
            Choice::Nobody => Err(self.nobody(&states, platform)),
        }
    }

    /// From now on `builder` is given nothing. An error if no other is left for `platform`.
    pub fn bury(&self, builder: &Builder, reason: &str, platform: Platform) -> Result<(), NoBuilder> {
        let mut states = self.states();
        if let Some(index) = self.members.iter().position(|member| member.name == builder.name) {
            states[index].died.get_or_insert_with(|| reason.to_string());
        }
        self.changed.notify_waiters();
        match select::choose(&self.standings(&states, platform)) {
            Choice::Nobody => Err(self.nobody(&states, platform)),
            Choice::Take(_) | Choice::Wait => Ok(()),
        }
    }

    fn standings(&self, states: &[State], platform: Platform) -> Vec<Standing> {
        let of = |(builder, state): (&Arc<Builder>, &State)| Standing {
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

    fn nobody(&self, states: &[State], platform: Platform) -> NoBuilder {
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
        NoBuilder::Nobody {
            platform,
            tried: there.chain(absent).collect(),
        }
    }

    fn states(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// A builder, and the slot of it that a target holds.
pub struct Lease {
    pub builder: Arc<Builder>,
    pub slot: Slot,
}

/// Free again when dropped.
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

/// Solves at a time of a builder that build.toml does not describe: a target waits for the network as often as it computes.
pub fn default_slots() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get().max(2))
}
