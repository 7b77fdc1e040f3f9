//! An entry of build.toml, or the environment -> a builder: its engine connected, its platforms known.

use std::path::Path;

use super::{Absent, Builder};
use crate::buildkit;
use crate::config::builders::BuilderEntry;
use crate::config::file::ConfigError;
use crate::engine::{Endpoint, Engine, EngineError};
use crate::platform::Platform;

/// What the builder is called that nobody named: as docker calls its default context.
pub const DEFAULT: &str = "default";

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(
        "the engine at {endpoint} runs {os}/{architecture}; bases and builder stages exist for linux/amd64 and linux/arm64"
    )]
    ForeignEngine {
        endpoint: String,
        os: String,
        architecture: String,
    },
    #[error("its platforms in build.toml are {listed}, but the engine at {endpoint} runs {known}")]
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
    let engine = match Engine::connect(endpoint.clone()).await {
        Err(EngineError::Unreachable { .. }) if buildkit::is_buildkitd(&endpoint.address).await => {
            return Err(EngineError::Buildkitd {
                endpoint: endpoint.to_string(),
            }
            .into());
        }
        connected => connected?,
    };
    let info = engine.info();
    let native: Platform =
        format!("{}/{}", info.os, info.architecture)
            .parse()
            .map_err(|_| ConnectError::ForeignEngine {
                endpoint: endpoint.to_string(),
                os: info.os.clone(),
                architecture: info.architecture.clone(),
            })?;
    let runs = engine.worker_platforms().await?;
    // It runs its own, whatever it says.
    let mut platforms = vec![native];
    platforms.extend(
        runs.iter()
            .filter_map(|p| p.parse::<Platform>().ok())
            .filter(|p| *p != native),
    );
    Ok(Builder {
        name: name.to_string(),
        engine,
        native,
        platforms,
        lacks: Vec::new(),
        runs,
        slots,
    })
}

/// Only what the entry lists, of what the engine can run.
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
            endpoint: builder.engine.endpoint().to_string(),
            listed: super::join(listed),
            known: builder.runs.join(", "),
        });
    }
    Ok(builder)
}
