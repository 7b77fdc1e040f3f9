//! Connects a builder, from an entry of build.toml or from the environment, and reads its platforms.

use std::path::Path;

use super::{Absent, Builder};
use crate::buildkit::{Buildkitd, Daemon};
use crate::config::builders::BuilderEntry;
use crate::config::file::ConfigError;
use crate::engine::{Endpoint, Engine, EngineError};
use crate::oci::Platform;

/// The default builder's name, like Docker's default context.
pub const DEFAULT: &str = "default";

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(
        "the builder at {endpoint} runs {platform}; bases and builder stages exist for linux/amd64 and linux/arm64"
    )]
    ForeignMachine { endpoint: String, platform: String },
    #[error("its platforms in build.toml are {listed}, but the builder at {endpoint} runs {known}")]
    NoPlatform {
        endpoint: String,
        listed: String,
        known: String,
    },
}

/// Connects to all entries concurrently.
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

/// Connects to the engine of the environment.
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
    // The native platform always works, even if BuildKit does not list it.
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

/// Tries an engine first, then a buildkitd; if neither answers, returns the engine's error.
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

/// Restricts the builder's platforms to those listed in the entry.
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
