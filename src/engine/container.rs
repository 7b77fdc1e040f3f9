//! Runs a command in a container of the engine, returns its exit code and output, and removes the container.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    WaitContainerOptions,
};
use futures_util::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError};
use crate::oci::Platform;

/// Upper limit of each kept output stream: smoke tests print little, and runaway output must not fill the memory.
const OUTPUT_LIMIT: usize = 1 << 20;

/// Marks containers of this tool.
const LABEL: &str = "org.openstack.obgp-build";

/// The command and its confinement. No network, and no capabilities but Docker's defaults.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// Name or ID in the engine's store.
    pub image: String,
    pub platform: Platform,
    /// `UID[:GID]` or a name; `None` for the image's user.
    pub user: Option<String>,
    pub read_only_rootfs: bool,
    /// Mount points of empty, writable tmpfs.
    pub tmpfs: Vec<String>,
    /// Replaces the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    pub command: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerOutput {
    pub exit_code: i64,
    /// At most 1 MiB of each stream, with invalid UTF-8 replaced.
    pub stdout: String,
    pub stderr: String,
}

impl Engine {
    /// Runs `spec` until it exits. The container is always removed: on return, on `cancel`, at the time limit, and
    /// (while the runtime lives) when the future is dropped.
    pub async fn run(&self, spec: &ContainerSpec, cancel: &CancellationToken) -> Result<ContainerOutput, EngineError> {
        let options = CreateContainerOptionsBuilder::default()
            .platform(&spec.platform.to_string())
            .build();
        let body = ContainerCreateBody {
            image: Some(spec.image.clone()),
            user: spec.user.clone(),
            entrypoint: spec.entrypoint.clone(),
            cmd: Some(spec.command.clone()),
            env: Some(spec.env.clone()),
            network_disabled: Some(true),
            labels: Some(HashMap::from([(LABEL.to_string(), "run".to_string())])),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_string()),
                readonly_rootfs: Some(spec.read_only_rootfs),
                tmpfs: Some(spec.tmpfs.iter().map(|path| (path.clone(), String::new())).collect()),
                // The engine's default log driver may not support reading.
                log_config: Some(HostConfigLogConfig {
                    typ: Some("json-file".to_string()),
                    config: None,
                }),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let doing = format!("running {} ({})", spec.image, spec.platform);
        let created = self
            .docker()
            .create_container(Some(options), body)
            .await
            .map_err(|e| self.api_error(doing.clone(), e))?;
        let guard = Removal {
            engine: self.clone(),
            id: created.id,
            done: AtomicBool::new(false),
        };
        let outcome = tokio::select! {
            outcome = self.run_created(&guard.id, &doing) => outcome,
            () = cancel.cancelled() => Err(self.stopped(&doing, "cancelled")),
            () = tokio::time::sleep(spec.timeout) => {
                Err(self.stopped(&doing, &format!("still running after {} s", spec.timeout.as_secs())))
            }
        };
        let removed = guard.remove().await;
        let output = outcome?;
        removed?;
        Ok(output)
    }

    async fn run_created(&self, id: &str, doing: &str) -> Result<ContainerOutput, EngineError> {
        self.docker()
            .start_container(id, None::<StartContainerOptions>)
            .await
            .map_err(|e| self.api_error(doing, e))?;
        let waited = self
            .docker()
            .wait_container(id, None::<WaitContainerOptions>)
            .try_collect::<Vec<_>>()
            .await;
        let exit_code = match waited {
            Ok(answers) => answers.last().map_or(-1, |answer| answer.status_code),
            // bollard turns every exit code but 0 into an error.
            Err(bollard::errors::Error::DockerContainerWaitError { code, error }) if error.is_empty() => code,
            Err(e) => return Err(self.api_error(doing, e)),
        };
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
        let mut logs = self.docker().logs(id, Some(options));
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(chunk) = logs.next().await {
            let (kept, message) = match chunk.map_err(|e| self.api_error(doing, e))? {
                LogOutput::StdErr { message } => (&mut stderr, message),
                LogOutput::StdOut { message } | LogOutput::Console { message } => (&mut stdout, message),
                LogOutput::StdIn { .. } => continue,
            };
            let room = OUTPUT_LIMIT.saturating_sub(kept.len());
            kept.extend_from_slice(&message[..message.len().min(room)]);
        }
        Ok(ContainerOutput {
            exit_code,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }

    fn stopped(&self, doing: &str, why: &str) -> EngineError {
        EngineError::Api {
            endpoint: self.endpoint().to_string(),
            doing: doing.to_string(),
            status: None,
            reason: why.to_string(),
            transient: false,
        }
    }

    async fn remove_container(&self, id: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.docker().remove_container(id, Some(options)).await {
            Ok(()) | Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(e) => Err(self.api_error(format!("removing container {id}"), e)),
        }
    }
}

/// Removes a container once: on request, or on drop.
struct Removal {
    engine: Engine,
    id: String,
    done: AtomicBool,
}

impl Removal {
    async fn remove(&self) -> Result<(), EngineError> {
        let removed = self.engine.remove_container(&self.id).await;
        self.done.store(removed.is_ok(), Ordering::Relaxed);
        removed
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        if self.done.load(Ordering::Relaxed) {
            return;
        }
        let (engine, id) = (self.engine.clone(), self.id.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = engine.remove_container(&id).await {
                    tracing::warn!(%error, "a container was not removed");
                }
            });
        }
    }
}
