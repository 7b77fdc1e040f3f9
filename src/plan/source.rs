//! Resolves a ref of the agent into a release on PyPI or a commit in git, and the ref's OpenStack series. Rejects a ref
//! that a distro's interpreter cannot run.

use std::str::FromStr;

use globset::Glob;
use pep440_rs::{Version, VersionSpecifiers};
use serde::Serialize;
use tokio::process::Command;

use crate::config::file::{BuildFile, ConfigError, Distro, Series};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "from")]
pub enum Source {
    /// A release, pinned and hashed by the lock.
    PyPI { version: String },
    /// A commit in the project's repository.
    Git { url: String, commit: String },
}

impl Source {
    /// `org.opencontainers.image.revision`: the commit, or the release's version.
    pub fn revision(&self) -> &str {
        match self {
            Source::PyPI { version } => version,
            Source::Git { commit, .. } => commit,
        }
    }
}

/// Whether a ref is a release version on PyPI (`7.0.0`, `7.0.0rc1`); other refs are git's.
pub fn is_version(reference: &str) -> bool {
    reference.starts_with(|c: char| c.is_ascii_digit())
        && reference.contains('.')
        && Version::from_str(reference).is_ok()
}

/// The series of a ref in build.toml: the first whose patterns match.
pub fn series<'a>(file: &'a BuildFile, reference: &str) -> Result<&'a Series, ConfigError> {
    for series in &file.project.series {
        for pattern in &series.refs {
            let glob = Glob::new(pattern)
                .map_err(|e| ConfigError::Invalid(format!("build.toml: project.series.refs: {e}")))?
                .compile_matcher();
            if glob.is_match(reference) {
                return Ok(series);
            }
        }
    }
    let known: Vec<&str> = file
        .project
        .series
        .iter()
        .flat_map(|s| &s.refs)
        .map(String::as_str)
        .collect();
    Err(ConfigError::Invalid(format!(
        "build.toml has no series for the project ref {reference:?}; \
         its project.series match {}",
        known.join(", ")
    )))
}

/// Rejects a ref whose dependencies the distro's interpreter cannot run, and suggests alternatives.
pub fn check_python(file: &BuildFile, reference: &str, name: &str, distro: &Distro) -> Result<(), ConfigError> {
    let series = series(file, reference)?;
    if runs_on(&series.python, &distro.python)? {
        return Ok(());
    }
    let mut message = format!(
        "{} {reference} needs Python {} but {name} has {}",
        file.project.name, series.python, distro.python
    );
    let mut refs = Vec::new();
    for other in &file.project.series {
        if runs_on(&other.python, &distro.python)? {
            refs.extend(other.refs.iter().filter(|r| !r.contains(['*', '?', '['])).cloned());
        }
    }
    let own = distro.reference.iter().cloned();
    let alternatives: Vec<String> = own.chain(refs).collect();
    let mut distros = Vec::new();
    for (other, d) in &file.distros {
        if runs_on(&series.python, &d.python)? {
            distros.push(other.as_str());
        }
    }
    if !alternatives.is_empty() {
        message += &format!("; on {name} use --project-ref {}", alternatives.join(" or "));
    }
    if !distros.is_empty() {
        message += &format!("; for {reference} use --distro {}", distros.join(" or "));
    }
    Err(ConfigError::Invalid(message))
}

fn runs_on(specifier: &str, python: &str) -> Result<bool, ConfigError> {
    let specifiers = VersionSpecifiers::from_str(specifier)
        .map_err(|e| ConfigError::Invalid(format!("build.toml: python = {specifier:?}: {e}")))?;
    let version =
        Version::from_str(python).map_err(|e| ConfigError::Invalid(format!("build.toml: python = {python:?}: {e}")))?;
    Ok(specifiers.contains(&version))
}

/// Resolves a ref. Uses the network only for a git ref that is not a commit.
pub async fn resolve(file: &BuildFile, reference: &str) -> Result<Source, ProjectError> {
    if is_version(reference) {
        return Ok(Source::PyPI {
            version: reference.to_string(),
        });
    }
    let url = file.project.git.clone();
    if is_commit(reference) {
        return Ok(Source::Git {
            url,
            commit: reference.to_string(),
        });
    }
    let listing = ls_remote(&url, reference).await?;
    match pick(&listing, reference) {
        Some(commit) => Ok(Source::Git { url, commit }),
        None => Err(ProjectError::NoSuchRef {
            url,
            reference: reference.to_string(),
        }),
    }
}

fn is_commit(reference: &str) -> bool {
    reference.len() == 40
        && reference
            .bytes()
            .all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
}

async fn ls_remote(url: &str, reference: &str) -> Result<String, ProjectError> {
    let fail = |reason: String| ProjectError::Git {
        url: url.to_string(),
        reference: reference.to_string(),
        reason,
    };
    // `--` and the leading-dash test prevent option injection.
    if reference.starts_with('-') || url.starts_with('-') {
        return Err(fail("a ref or URL cannot begin with '-'".into()));
    }
    let output = Command::new("git")
        .args(["ls-remote", "--", url, reference, &format!("{reference}^{{}}")])
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_HTTP_LOW_SPEED_LIMIT", "1")
        .env("GIT_HTTP_LOW_SPEED_TIME", "20")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| fail(format!("running git: {e}")))?;
    if !output.status.success() {
        return Err(fail(String::from_utf8_lossy(&output.stderr).trim().to_string()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The commit that git would choose for `reference`: a full name first, then tags (peeled), then branches.
fn pick(listing: &str, reference: &str) -> Option<String> {
    let refs: Vec<(&str, &str)> = listing.lines().filter_map(|l| l.split_once('\t')).collect();
    let candidates = [
        reference.to_string(),
        format!("refs/tags/{reference}^{{}}"),
        format!("refs/tags/{reference}"),
        format!("refs/heads/{reference}"),
    ];
    candidates
        .iter()
        .find_map(|name| refs.iter().find(|(_, r)| r == name))
        .map(|(commit, _)| commit.to_string())
        .filter(|c| is_commit(c))
}

#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    #[error(
        "resolving the project ref {reference:?} in {url}: {reason}\n\
         help: a version (such as 7.0.0) comes from PyPI without git; a full commit needs no lookup"
    )]
    Git {
        url: String,
        reference: String,
        reason: String,
    },
    #[error("{url} has no branch, tag or ref {reference:?}")]
    NoSuchRef { url: String, reference: String },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn file() -> BuildFile {
        BuildFile::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("build.toml")).unwrap()
    }

    #[test]
    fn versions_are_told_from_git_refs() {
        for version in ["7.0.0", "7.0.0rc1", "6.0.0.dev3"] {
            assert!(is_version(version), "{version}");
        }
        for git in [
            "master",
            "stable/2026.1",
            "refs/changes/12/345612/3",
            "7",
            "0123456789abcdef0123456789abcdef01234567",
        ] {
            assert!(!is_version(git), "{git}");
        }
    }

    #[test]
    fn master_on_jammy_is_refused_with_the_ref_that_works() {
        let file = file();
        let jammy = &file.distros["ubuntu_jammy"];
        let error = check_python(&file, "master", "ubuntu_jammy", jammy)
            .unwrap_err()
            .to_string();
        assert!(error.contains("6.0.0") && error.contains("stable/2026.1"), "{error}");
        assert!(error.contains("ubuntu_noble"), "{error}");
        check_python(&file, "6.0.0", "ubuntu_jammy", jammy).unwrap();
        check_python(&file, "stable/2026.1", "ubuntu_jammy", jammy).unwrap();
        check_python(&file, "master", "ubuntu_noble", &file.distros["ubuntu_noble"]).unwrap();
    }

    #[test]
    fn an_annotated_tag_is_peeled_and_beats_a_branch() {
        let commit = |n: u8| format!("{n:040}");
        let listing = format!(
            "{}\trefs/heads/x\n{}\trefs/tags/x\n{}\trefs/tags/x^{{}}\n",
            commit(1),
            commit(2),
            commit(3)
        );
        assert_eq!(pick(&listing, "x"), Some(commit(3)));
        assert_eq!(pick(&listing, "refs/heads/x"), Some(commit(1)));
        assert_eq!(pick(&listing, "y"), None);
    }

    #[tokio::test]
    async fn a_branch_of_a_real_repository_becomes_its_commit() {
        let dir = tempfile::tempdir().unwrap();
        let git = |args: &[&str]| {
            let out = std::process::Command::new("git")
                .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-C"])
                .arg(dir.path())
                .args(args)
                .output()
                .unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap().trim().to_string()
        };
        git(&["init", "-q", "-b", "master"]);
        git(&["commit", "-q", "--allow-empty", "-m", "one"]);
        let commit = git(&["rev-parse", "HEAD"]);
        let mut file = file();
        file.project.git = dir.path().display().to_string();
        let source = resolve(&file, "master").await.unwrap();
        assert_eq!(
            source,
            Source::Git {
                url: file.project.git.clone(),
                commit
            }
        );
        let error = resolve(&file, "no-such-branch").await.unwrap_err();
        assert!(error.to_string().contains("no branch, tag or ref"), "{error}");
    }
}
