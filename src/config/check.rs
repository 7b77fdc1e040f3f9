//! Checks the values of build.toml before anything uses them. A problem names the line, the key and the reason; all problems
//! are reported at once.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use pep440_rs::VersionSpecifiers;
use toml::de::{DeTable, DeValue};

use super::file::{BuildFile, Distro, Family, Group};
use super::labels;
use crate::oci::{ImageReference, name_part};

/// Releases whose suite and version belong together. A release that is not listed is accepted.
const RELEASES: &[(Family, &str, &str)] = &[
    (Family::Debian, "bullseye", "11"),
    (Family::Debian, "bookworm", "12"),
    (Family::Debian, "trixie", "13"),
    (Family::Debian, "forky", "14"),
    (Family::Ubuntu, "focal", "20.04"),
    (Family::Ubuntu, "jammy", "22.04"),
    (Family::Ubuntu, "noble", "24.04"),
    (Family::Ubuntu, "plucky", "25.04"),
    (Family::Ubuntu, "questing", "25.10"),
    (Family::Ubuntu, "resolute", "26.04"),
];

/// A wrong value.
#[derive(Debug)]
pub struct Problem {
    /// In build.toml, from 1.
    line: usize,
    /// `user.groups.0.gid`
    key: String,
    reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.key, self.reason)
    }
}

/// The problems of a file, in the order of its lines. `text` is its content, for the lines.
pub(super) fn problems(file: &BuildFile, text: &str) -> Vec<Problem> {
    let mut found = Found::default();
    image(file, &mut found);
    project(file, &mut found);
    user(file, &mut found);
    runtime(file, &mut found);
    for (name, distro) in &file.distros {
        self::distro(name, distro, &mut found);
    }
    registries(file, &mut found);
    let mut problems: Vec<Problem> = found
        .0
        .into_iter()
        .map(|(key, reason)| Problem {
            line: line_of(text, &key),
            key: key.join("."),
            reason,
        })
        .collect();
    problems.sort_by_key(|problem| problem.line);
    problems
}

/// Keys and what is wrong with their values.
#[derive(Default)]
struct Found(Vec<(Vec<String>, String)>);

impl Found {
    /// `key` is a path, separated by dots.
    fn check(&mut self, key: &str, checked: Result<(), String>) {
        self.check_in(key, &[], checked);
    }

    /// `last` are further parts of the path, which may contain dots.
    fn check_in(&mut self, key: &str, last: &[&str], checked: Result<(), String>) {
        if let Err(reason) = checked {
            let path = key.split('.').chain(last.iter().copied());
            self.0.push((path.map(str::to_string).collect(), reason));
        }
    }
}

fn image(file: &BuildFile, found: &mut Found) {
    let image = &file.image;
    found.check("image.name", name_part::path(&image.name).map(|_| ()));
    if !image.registry.is_empty() {
        found.check("image.registry", name_part::registry(&image.registry).map(|_| ()));
    }
    if !image.prefix.is_empty() {
        found.check("image.prefix", name_part::path(&image.prefix).map(|_| ()));
    }
    for (i, name) in image.distros.iter().enumerate() {
        found.check(&format!("image.distros.{i}"), known_distro(file, name));
    }
    found.check("image.platforms", not_empty(&image.platforms));
    found.check(
        "image.source-date-epoch",
        require(image.source_date_epoch.is_none_or(|epoch| epoch >= 0), || {
            "a time before 1970".into()
        }),
    );
    for label in image.labels.keys() {
        found.check_in("image.labels", &[label], labels::check(label));
    }
}

fn project(file: &BuildFile, found: &mut Found) {
    let project = &file.project;
    found.check("project.name", not_empty(&project.name));
    found.check("project.ref", not_empty(&project.reference));
    found.check(
        "project.git",
        require(!project.git.is_empty() && !project.git.starts_with('-'), || {
            format!("{:?} is not the URL of a repository", project.git)
        }),
    );
    for (i, series) in project.series.iter().enumerate() {
        let python = VersionSpecifiers::from_str(&series.python);
        found.check(
            &format!("project.series.{i}.python"),
            python.map(|_| ()).map_err(|e| {
                format!(
                    "{:?} is not a PEP 440 specifier, such as \">=3.11\": {e}",
                    series.python
                )
            }),
        );
        for (r, pattern) in series.refs.iter().enumerate() {
            let glob = globset::Glob::new(pattern).map(|_| ());
            found.check(&format!("project.series.{i}.refs.{r}"), glob.map_err(|e| e.to_string()));
        }
    }
}

fn user(file: &BuildFile, found: &mut Found) {
    let user = &file.user;
    found.check("user.name", account_name(&user.name));
    found.check("user.uid", unprivileged_id(user.uid));
    found.check("user.gid", unprivileged_id(user.gid));
    found.check("user.home", home(&user.home));
    let mut names = BTreeSet::from([&user.name]);
    for (i, Group { name, gid }) in user.groups.iter().enumerate() {
        let fresh = require(names.insert(name), || format!("a second group {name:?}"));
        found.check(&format!("user.groups.{i}.name"), account_name(name).and(fresh));
        found.check(&format!("user.groups.{i}.gid"), unprivileged_id(*gid));
    }
}

fn runtime(file: &BuildFile, found: &mut Found) {
    let name = &file.runtime.distro;
    let debian = || match file.distros[name].family {
        Family::Debian => Ok(()),
        Family::Ubuntu => Err(format!("{name} is an Ubuntu; obgp-runtime is compiled on a Debian")),
    };
    found.check("runtime.distro", known_distro(file, name).and_then(|()| debian()));
}

fn distro(name: &str, distro: &Distro, found: &mut Found) {
    let mut check = |key: &str, checked| found.check_in("distros", &[name, key], checked);
    check("suite", release(distro));
    check("base", ImageReference::familiar(&distro.base).map(|_| ()));
    check("python", python(&distro.python));
    if let Some(reference) = &distro.reference {
        check("ref", not_empty(reference));
    }
    if let Some(url) = &distro.mirror {
        check("mirror", mirror(url));
    }
    found.check_in("distros", &[name], name_part::tag(name).map(|_| ()));
}

fn registries(file: &BuildFile, found: &mut Found) {
    for (i, registry) in file.registries.iter().enumerate() {
        for (key, path) in [
            ("ca", &registry.ca),
            ("client-cert", &registry.client_cert),
            ("client-key", &registry.client_key),
        ] {
            let Some(path) = path else { continue };
            found.check(&format!("registries.{i}.{key}"), readable(&file.root.join(path)));
        }
        let pair = registry.client_cert.is_some() == registry.client_key.is_some();
        found.check(
            &format!("registries.{i}"),
            require(pair, || "client-cert and client-key belong together".into()),
        );
    }
}

/// Whether a file exists and may be read. Does not open it: it may be a pipe.
pub fn readable(path: &Path) -> Result<(), String> {
    let access = rustix::fs::access(path, rustix::fs::Access::READ_OK);
    access.map_err(|e| format!("reading {}: {}", path.display(), std::io::Error::from(e)))
}

fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn not_empty<T>(value: &(impl AsRef<[T]> + ?Sized)) -> Result<(), String> {
    require(!value.as_ref().is_empty(), || "it is empty".into())
}

fn known_distro(file: &BuildFile, name: &str) -> Result<(), String> {
    require(file.distros.contains_key(name), || {
        let known: Vec<&str> = file.distros.keys().map(String::as_str).collect();
        format!("no distro {name:?} in build.toml; it has {}", known.join(", "))
    })
}

/// What useradd(8) accepts.
fn account_name(name: &str) -> Result<(), String> {
    let first = |c: char| c.is_ascii_lowercase() || c == '_';
    let other = |c: char| first(c) || c.is_ascii_digit() || c == '-';
    let valid = name.len() <= 32 && name.starts_with(first) && name.chars().all(other);
    require(valid, || {
        format!("{name:?} is not an account name: [a-z_][a-z0-9_-]*, at most 32 characters")
    })?;
    require(name != "root", || "the agent must not run as root".into())
}

/// Neither root's ID nor one that stands for "no ID" (-1 in 16 and 32 bits).
fn unprivileged_id(id: u32) -> Result<(), String> {
    require(id != 0, || "0 is root's ID, and the agent must not run as root".into())?;
    require(id != u32::from(u16::MAX) && id != u32::MAX, || {
        format!("{id} stands for \"no ID\"")
    })
}

fn home(path: &str) -> Result<(), String> {
    require(path.starts_with('/'), || format!("{path:?} is not an absolute path"))?;
    let bad = |c: char| c == ':' || c.is_whitespace() || c.is_control();
    let parts = path.split('/').skip(1);
    let plain = parts.clone().all(|part| !matches!(part, "" | "." | "..")) && !path.contains(bad);
    require(plain, || {
        format!("{path:?} is not a plain path: no `.`, `..`, `:`, white space or empty parts")
    })
}

fn release(distro: &Distro) -> Result<(), String> {
    let (suite, version) = (distro.suite.as_str(), distro.version.as_str());
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    require(!suite.is_empty() && suite.chars().all(word), || {
        format!("{suite:?} is not a suite, such as \"noble\" or \"bookworm\"")
    })?;
    let related = RELEASES
        .iter()
        .find(|(family, s, v)| *family == distro.family && (*s == suite || *v == version));
    match related {
        Some((_, s, v)) if (*s, *v) != (suite, version) => {
            Err(format!("{suite:?} is not the suite of version {version:?}; {v} is {s}"))
        }
        _ => Ok(()),
    }
}

fn python(version: &str) -> Result<(), String> {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let valid = version.split_once('.').is_some_and(|(a, b)| number(a) && number(b));
    require(valid, || format!("{version:?} is not MAJOR.MINOR, such as \"3.12\""))
}

/// apt reads it in build steps, which see no file of this machine.
fn mirror(url: &str) -> Result<(), String> {
    let parsed = url::Url::parse(url).ok();
    let valid = parsed.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    require(valid, || {
        format!("{url:?} is not an http or https URL, such as \"http://deb.debian.org/debian\"")
    })
}

/// The line of a key, or of its nearest table if the file does not have the key.
fn line_of(text: &str, key: &[String]) -> usize {
    let mut at = 0;
    if let Ok(document) = DeTable::parse(text) {
        let mut value = DeValue::Table(document.into_inner());
        for part in key {
            let next = match value {
                DeValue::Table(table) => table
                    .into_iter()
                    .find(|(name, _)| name.get_ref() == part)
                    .map(|(name, value)| (name.span().start, value)),
                DeValue::Array(array) => part
                    .parse()
                    .ok()
                    .and_then(|i: usize| array.into_iter().nth(i))
                    .map(|value| (value.span().start, value)),
                _ => None,
            };
            let Some((start, inner)) = next else { break };
            at = start;
            value = inner.into_inner();
        }
    }
    1 + text[..at].matches('\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problems of this repository's build.toml with one piece of text replaced.
    fn problem_of(from: &str, to: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        let text = text.replacen(from, to, 1);
        let mut file: BuildFile = toml::from_str(&text).unwrap();
        file.root = path.parent().unwrap().to_path_buf();
        let problems: Vec<String> = problems(&file, &text).iter().map(Problem::to_string).collect();
        let at = text
            .lines()
            .position(|line| line.contains(to.lines().last().unwrap()))
            .unwrap()
            + 1;
        assert!(
            problems.iter().all(|problem| problem.contains(&format!("line {at}: "))),
            "{to} is on line {at}: {problems:?}"
        );
        problems.join("\n")
    }

    #[test]
    fn this_repositorys_build_toml_has_no_problem() {
        assert_eq!(problem_of("[image]", "[image]"), "");
    }

    #[test]
    fn a_value_that_no_build_can_use_is_reported_with_its_line_and_key() {
        for (from, to, reported) in [
            ("uid = 42494", "uid = 0", "user.uid: 0 is root's"),
            ("gid = 42424", "gid = 0", "user.groups.0.gid: 0 is root's"),
            ("home = \"/var", "home = \"var", "user.home: \"var/lib"),
            ("home = \"/var/lib", "home = \"/var/../lib", "user.home"),
            (
                "name = \"openvswitch\"",
                "name = \"Open vSwitch\"",
                "user.groups.0.name",
            ),
            ("suite = \"noble\"", "suite = \"nobel\"", "24.04 is noble"),
            (
                "suite = \"trixie\"",
                "suite = \"stable/x\"",
                "distros.debian_trixie.suite",
            ),
            (
                "python = \"3.12\"",
                "python = \"3.12\"\nmirror = \"nosuch\"",
                "distros.ubuntu_noble.mirror: \"nosuch\"",
            ),
            (
                "python = \"3.12\"",
                "python = \"3.12\"\nmirror = \"file:/srv\"",
                "distros.ubuntu_noble.mirror",
            ),
            ("python = \"3.12\"", "python = \"three\"", "distros.ubuntu_noble.python"),
            (
                "library/debian:trixie-slim",
                "library/Debian:trixie-slim",
                "distros.debian_trixie.base",
            ),
            (
                "registry = \"docker.io\"",
                "registry = \"https://docker.io\"",
                "image.registry",
            ),
            (
                "prefix = \"openstackhelm\"",
                "prefix = \"OpenStack Helm\"",
                "image.prefix",
            ),
            (
                "distros = [\"ubuntu_noble\"]",
                "distros = [\"ubuntu_nobel\"]",
                "image.distros.0: no distro",
            ),
            (
                "distro = \"debian_trixie\"",
                "distro = \"ubuntu_noble\"",
                "runtime.distro",
            ),
            (
                "\"org.opencontainers.image.title\"",
                "\"org.opencontainers.image.version\"",
                "the project ref",
            ),
            (
                "host = \"*\"",
                "host = \"*\"\nca = \"nosuch.pem\"",
                "registries.0.ca: reading",
            ),
            (
                "python = \">=3.10\"",
                "python = \"3.10 or so\"",
                "project.series.1.python",
            ),
        ] {
            let found = problem_of(from, to);
            assert!(found.contains(reported), "{to}: {found}");
        }
    }
}
