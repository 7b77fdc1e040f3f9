//! Candidates for shell completion: what build.toml and the layout have. Whatever cannot be read gives no candidates.

use std::ffi::OsStr;
use std::path::Path;

use clap_complete::CompletionCandidate;

use crate::config::BuildFile;
use crate::layout::tags_in;
use crate::oci::{Architecture, Platform};
use crate::plan::{output, settings};

fn build_file() -> Option<BuildFile> {
    let config = std::env::var_os("OBGP_BUILD_CONFIG").filter(|path| !path.is_empty());
    settings::load(config.as_deref().map(Path::new)).ok()
}

fn candidates<T: Into<std::ffi::OsString>>(values: impl IntoIterator<Item = T>) -> Vec<CompletionCandidate> {
    values.into_iter().map(CompletionCandidate::new).collect()
}

/// The distros of build.toml.
pub fn distros() -> Vec<CompletionCandidate> {
    candidates(build_file().into_iter().flat_map(|file| file.distros.into_keys()))
}

/// The same, and `all`.
pub fn distros_or_all() -> Vec<CompletionCandidate> {
    let mut all = distros();
    all.push(CompletionCandidate::new("all"));
    all
}

pub fn platforms() -> Vec<CompletionCandidate> {
    candidates(Architecture::ALL.map(|architecture| Platform(architecture).to_string()))
}

/// The builders of build.toml.
pub fn builders() -> Vec<CompletionCandidate> {
    candidates(
        build_file()
            .into_iter()
            .flat_map(|file| file.builders)
            .map(|builder| builder.name),
    )
}

/// `oci:DIR:TAG` for the tags of a layout: of the one that is typed, else of the project's.
pub fn images(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else {
        return Vec::new();
    };
    let typed = current.strip_prefix("oci:").and_then(|rest| rest.rsplit_once(':'));
    let directory = match typed {
        Some((directory, _)) => directory.into(),
        None => match build_file() {
            Some(file) => output::layout(&output::directory(None, &file.root)),
            None => return Vec::new(),
        },
    };
    let images = tags_in(&directory).into_iter();
    let images = images.map(|tag| format!("oci:{}:{tag}", directory.display()));
    candidates(images.filter(|image| image.starts_with(current)))
}
