//! Runs the obgp-build program in a project with images that keep the contract.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use obgp_build::progress::Silent;
use obgp_build::registry::{Overrides, Registries};
use serde_json::{Value, json};

use super::distribution::{PASSWORD, USER};
use super::published::Project;

/// The program with a project, a home directory and an environment of its own.
pub struct Tool {
    pub project: Project,
    pub docker_config: PathBuf,
    pub environment: Vec<(String, String)>,
}

impl Tool {
    pub fn new(registries: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let project = Project::new(registries);
        let docker_config = project.path().join("docker");
        std::fs::create_dir(&docker_config).unwrap();
        Self {
            project,
            docker_config,
            environment: Vec::new(),
        }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_obgp-build"));
        command
            .args(arguments)
            .current_dir(self.project.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.project.path())
            .env("DOCKER_CONFIG", &self.docker_config)
            .envs(self.environment.iter().cloned());
        command
    }

    /// Runs the program asynchronously, so that proxies in the test process keep working.
    pub async fn output(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    /// Returns the JSON on stdout of a run that must succeed.
    pub async fn json(&self, arguments: &[&str]) -> Value {
        let output = self.output(&[arguments, &["--json"]].concat()).await;
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Returns stderr of a run that must end with this exit code.
    pub async fn failure(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.output(arguments).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        stderr(&output)
    }

    pub fn image(&self, tag: &str) -> String {
        self.project.image(tag).to_string()
    }

    pub fn registries(&self) -> Registries {
        let file = self.project.file();
        Registries::new(&file.registries, &file.root, Overrides::default(), Arc::new(Silent))
    }

    pub fn login(&self, host: &str) {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let config = json!({ "auths": { host: { "auth": auth } } });
        std::fs::write(self.docker_config.join("config.json"), config.to_string()).unwrap();
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
