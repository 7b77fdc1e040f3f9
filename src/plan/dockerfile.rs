//! Renders `dockerfiles/Dockerfile.template` with `build.toml` into the Dockerfile of one distro.
//!
//! The template is compiled in. The rendered files are also committed, for use without this tool; `tests/dockerfile.rs`
//! compares both, and a plan warns about files that differ from what it uses.

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, context};

use super::lock;
use super::patches::{self, PatchError};
use super::settings::find_distro;
use crate::config::file::ConfigError;
use crate::config::{BuildFile, Distro, Family};

const TEMPLATE: &str = include_str!("../../dockerfiles/Dockerfile.template");

/// The Dockerfile of `distro`; its defaults build the image that build.toml describes.
pub fn render(name: &str, distro: &Distro, file: &BuildFile) -> Result<String, DockerfileError> {
    let failed = |source| DockerfileError::Template {
        distro: name.to_string(),
        source,
    };
    let syntax = SyntaxConfig::builder()
        .keep_trailing_newline(true)
        .build()
        .map_err(failed)?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let runtime = find_distro(file, &file.runtime.distro)?;
    let reference = distro.reference.as_ref().unwrap_or(&file.project.reference);
    let patches: Vec<String> = patches::needed(file, reference)?.into_iter().map(|p| p.name).collect();
    // Double-quoted words in a Dockerfile escape backslash, quote and dollar; JSON escapes the first two in the same
    // way.
    let labels: Vec<(String, String)> = file
        .image
        .labels
        .iter()
        .map(|(key, value)| {
            (
                key.clone(),
                serde_json::Value::from(value.as_str()).to_string().replace('$', "\\$"),
            )
        })
        .collect();
    environment
        .render_str(
            TEMPLATE,
            context! {
                name,
                distro => context! {
                    family => family(distro.family),
                    suite => distro.suite.as_str(),
                    version => distro.version.as_str(),
                    base => distro.base.as_str(),
                },
                image => file.image.name.as_str(),
                files => format!("images/{}", file.image.name),
                lock => lock::file_name(file, reference, &distro.python)?,
                patches,
                project => context! { name => file.project.name.as_str(), git => file.project.git.as_str() },
                user => context! {
                    name => file.user.name.as_str(),
                    uid => file.user.uid,
                    gid => file.user.gid,
                    home => file.user.home.as_str(),
                    groups => file.user.groups.iter().map(|g| format!("{}:{}", g.name, g.gid)).collect::<Vec<_>>(),
                },
                runtime => context! {
                    family => family(runtime.family),
                    suite => runtime.suite.as_str(),
                    base => runtime.base.as_str(),
                },
                labels,
            },
        )
        .map_err(failed)
}

/// Warns if the project's Dockerfile of `distro`, or the template, is not what is built: an edit there has no effect. Files that
/// do not exist are not missed.
pub fn unused_edit(name: &str, rendered: &str, root: &Path) -> Option<String> {
    let differs = |file: &str, used: &str| {
        let path = root.join("dockerfiles").join(file);
        let text = std::fs::read(&path).ok()?;
        (text != used.as_bytes()).then(|| path.display().to_string())
    };
    if let Some(path) = differs("Dockerfile.template", TEMPLATE) {
        return Some(format!(
            "warning: {path} is not used: this obgp-build was compiled with another template. Compile obgp-build again"
        ));
    }
    let file = format!("Dockerfile.{name}");
    let path = differs(&file, rendered)?;
    Some(format!(
        "warning: {path} is not used: obgp-build builds what the template and build.toml give (`obgp-build dockerfile {name}`). \
         Edit dockerfiles/Dockerfile.template and compile obgp-build, or build the edited file with docker build"
    ))
}

/// `debian` or `ubuntu`, an argument of the build steps.
fn family(family: Family) -> &'static str {
    match family {
        Family::Debian => "debian",
        Family::Ubuntu => "ubuntu",
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DockerfileError {
    #[error("rendering the Dockerfile of {distro}: {source}")]
    Template { distro: String, source: minijinja::Error },
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Patch(#[from] PatchError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_of_a_dockerfile_that_is_not_used_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let edit = || unused_edit("noble", "FROM a\n", dir.path());
        assert_eq!(edit(), None);
        std::fs::create_dir(dir.path().join("dockerfiles")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join("dockerfiles").join(name), text).unwrap();
        write("Dockerfile.noble", "FROM a\n");
        write("Dockerfile.template", TEMPLATE);
        assert_eq!(edit(), None);
        write("Dockerfile.noble", "FROM a\nRUN b\n");
        assert!(edit().unwrap().contains("Dockerfile.noble is not used"));
        write("Dockerfile.template", "FROM c\n");
        assert!(edit().unwrap().contains("Dockerfile.template is not used"));
    }
}
