//! An entry of build.toml, or the environment -> a builder: its engine or buildkitd connected, its platforms known.

use std::path::Path;

use super::{Absent, Builder};
use crate::buildkit::{Buildkitd, Daemon};
use crate::config::builders::BuilderEntry;
use crate::config::file::ConfigError;
use crate::engine::{Endpoint, Engine, EngineError};
use crate::oci::Platform;

/// What the builder is called that nobody named: as docker calls its default context.
pub const DEFAULT: &str = "default";

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(
        "what answers at {endpoint} runs {platform}; bases and builder stages exist for linux/amd64 and linux/arm64"
    )]
    ForeignMachine { endpoint: String, platform: String },
    #[error("its platforms in build.toml are {listed}, but what answers at {endpoint} runs {known}")]
    NoPlatform {
        endpoint: String,
        listed: String,
        known: String,
    },
}

/// Every entry, side by side: the slowest answer is waited for, not all of them in turn.
pub(super) async fn all(entries: &[BuilderEntry], root: &Path) -> (Vec<Builder>, Vec<Absent>) {
    let connecting = entries.iter().map(|entry| async {
        let endpoint = entry.endpoint(root)?;
        let builder = connect(&entry.name, endpoint, usize::from(entry.slots.get())).await?;
        restrict(builder, entry.platforms.as_deref())
    });
    let connected = futures_util::future::join_all(connecting).await;
    let (mut there, mut absent) = (Vec::new(), Vec::new());
    for (entry, builder) in entries.iter().zip(connected) {
        match builder {
            Ok(builder) => there.push(builder),
            Err(error) => absent.push(Absent {
                name: entry.name.clone(),
                endpoint: entry.endpoint.clone(),
                reason: error.to_string(),
            }),
        }
    }
    (there, absent)
}

/// The engine of the environment.
pub(super) async fn of_the_environment(slots: usize) -> Result<Builder, ConnectError> {
    connect(DEFAULT, Endpoint::from_env().map_err(EngineError::from)?, slots).await
}

async fn connect(name: &str, endpoint: Endpoint, slots: usize) -> Result<Builder, ConnectError> {
    let daemon = find(&endpoint).await?;
    let runs = daemon.platforms().await?;
    let own = match daemon.engine().map(|engine| engine.info()) {
        Some(info) => format!("{}/{}", info.os, info.architecture),
        None => runs.first().cloned().unwrap_or_default(),
    };
    let native: Platform = own.parse().map_err(|_| ConnectError::ForeignMachine {
        endpoint: endpoint.to_string(),
        platform: own,
    })?;
    // It runs its own, whatever it says.
    let mut platforms = vec![native];
    platforms.extend(
        runs.iter()
            .filter_map(|p| p.parse::<Platform>().ok())
            .filter(|p| *p != native),
    );
    Ok(Builder {
        name: name.to_string(),
        daemon,
        native,
        platforms,
        lacks: Vec::new(),
        runs,
        slots,
    })
}

/// What listens there is asked as an engine first, then as a buildkitd; where neither answers, the engine's error is told.
async fn find(endpoint: &Endpoint) -> Result<Daemon, ConnectError> {
    let error = match Engine::connect(endpoint.clone()).await {
        Ok(engine) => return Ok(engine.into()),
        Err(error) => error,
    };
    if matches!(error, EngineError::Unreachable { .. })
        && let Some(buildkitd) = Buildkitd::connect(endpoint.clone()).await?
    {
        return Ok(Daemon::Buildkitd(buildkitd));
    }
    Err(error.into())
}

/// Only what the entry lists, of what the builder can run.
fn restrict(mut builder: Builder, listed: Option<&[Platform]>) -> Result<Builder, ConnectError> {
    let Some(listed) = listed else {
        return Ok(builder);
    };
    builder.lacks = listed
        .iter()
        .copied()
        .filter(|p| !builder.platforms.contains(p))
        .collect();
    builder.platforms.retain(|platform| listed.contains(platform));
    if builder.platforms.is_empty() {
        return Err(ConnectError::NoPlatform {
            endpoint: builder.daemon.endpoint().to_string(),
            listed: super::join(listed),
            known: builder.runs.join(", "),
        });
    }
    Ok(builder)
}
