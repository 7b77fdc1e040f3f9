//! Resolves a ref of the agent, an interpreter and OpenStack's upper constraints into a requirements file with the
//! version and hashes of every distribution: `images/<name>/locks/<version or series>-py<X.Y>.txt`.
//!
//! A release's lock includes the agent. A git ref's lock contains only the dependencies of its series, because the
//! agent comes from a commit. One lock serves every platform: [`lock`] resolves for each and fails if they differ. The
//! resolver is uv, with the version and hashes of `locks/tools.txt`, as in the build stage.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::host_env::Host;
use super::source::{self, Source};
use crate::config::BuildFile;
use crate::config::file::ConfigError;
use crate::oci::Architecture;
use crate::progress::Progress;
use crate::util::files::write_atomically;
use crate::util::process::{self, RunError};

/// Upper limit of a download; constraints and locks have a few hundred kilobytes.
const MAX_BYTES: u64 = 4 << 20;

const EXCLUDE_NEWER: &str = "# exclude-newer: ";

/// A lock file.
#[derive(Clone, Debug)]
pub struct LockFile {
    /// Its file name in `images/<name>/locks/`: the build argument LOCK.
    pub name: String,
    pub path: PathBuf,
    /// `sha256:…` of the file.
    pub digest: String,
    /// Versions by distribution, both as in the file.
    pub pins: BTreeMap<String, String>,
    /// The lock contains no upload after this time.
    pub exclude_newer: Option<Timestamp>,
}

/// The name of the lock of `reference` for an interpreter `python` (`3.11`).
pub fn file_name(file: &BuildFile, reference: &str, python: &str) -> Result<String, ConfigError> {
    Ok(format!("{}{python}.txt", prefix(file, reference)?))
}

/// The common prefix of a ref's lock names.
fn prefix(file: &BuildFile, reference: &str) -> Result<String, ConfigError> {
    let of = match source::is_version(reference) {
        true => reference,
        false => &source::series(file, reference)?.constraints,
    };
    Ok(format!("{of}-py"))
}

/// Names and contents of the locks of `reference`, sorted by name. Which lock applies to an image is known only after
/// reading it; if this list is unchanged, so is that lock.
pub fn candidates(file: &BuildFile, reference: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    // A ref without a lock has no candidates, and the verification finds none either.
    let Ok(prefix) = prefix(file, reference) else {
        return Ok(Vec::new());
    };
    let entries = match fs::read_dir(directory(file, "locks")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut locks = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&prefix) {
            locks.push((name, fs::read(path)?));
        }
    }
    locks.sort();
    Ok(locks)
}

/// Reads the lock of `reference` for `python`.
pub fn find(file: &BuildFile, reference: &str, python: &str) -> Result<LockFile, LockError> {
    let name = file_name(file, reference, python)?;
    let path = directory(file, "locks").join(&name);
    let content = match read(&path) {
        Err(LockError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(LockError::Missing {
                path,
                reference: reference.to_string(),
            });
        }
        content => content?,
    };
    parse(name, path, &content)
}

/// The input of [`lock`].
#[derive(Clone, Debug)]
pub struct LockRequest<'a> {
    pub file: &'a BuildFile,
    pub reference: &'a str,
    /// The source of the dependencies, see [`source::resolve`]. For a git ref this may be a release of its series.
    pub source: &'a Source,
    /// `MAJOR.MINOR`.
    pub python: &'a str,
    /// Ignores distributions uploaded later, so that the same time gives the same lock.
    pub exclude_newer: Timestamp,
}

/// Resolves the lock, writes it and returns it.
pub async fn lock(
    request: &LockRequest<'_>,
    host: &Host,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<LockFile, LockError> {
    let file = request.file;
    let uv = install_uv(file, host, progress, cancel).await?;
    let constraints = format!(
        "constraints/{}.txt",
        source::series(file, request.reference)?.constraints
    );
    let requirement = match request.source {
        Source::PyPI { version } => format!("{}=={version}", file.project.name),
        Source::Git { url, commit } => format!("{} @ git+{url}@{commit}", file.project.name),
    };
    let name = file_name(file, request.reference, request.python)?;
    let mut resolved: Option<(Architecture, String)> = None;
    for architecture in Architecture::ALL {
        progress.step(&format!("{name}: resolving {requirement} for {}", architecture.name()));
        let mut command = uv_command(&uv, host);
        command.args([
            "pip",
            "compile",
            "--no-config",
            "--quiet",
            "--no-header",
            "--generate-hashes",
        ]);
        command.args(["--no-python-downloads", "--python-version", request.python]);
        command.args([
            "--python-platform",
            &format!("{}-manylinux_2_28", architecture.gnu_name()),
        ]);
        command.args(["--exclude-newer", &request.exclude_newer.to_string()]);
        if !source::is_version(request.reference) {
            command.args(["--no-emit-package", &file.project.name]);
        }
        // Relative, because uv writes the path into the lock.
        command
            .current_dir(directory(file, ""))
            .args(["--constraints", &constraints, "-"]);
        let output = run(command, &requirement, "uv pip compile", cancel).await?;
        match &resolved {
            Some((other, text)) if *text != output => {
                return Err(LockError::Differs {
                    name,
                    one: *other,
                    other: architecture,
                });
            }
            _ => resolved = Some((architecture, output)),
        }
    }
    let body = resolved.map(|(_, text)| text).unwrap_or_default();
    let content = header(&requirement, request, &constraints) + &body;
    let path = directory(file, "locks").join(&name);
    let lock = parse(name, path, &content)?;
    write(&lock.path, content.as_bytes())?;
    Ok(lock)
}

/// Replaces the upper constraints of `series` with a file or an `http(s)://` URL, for example OpenStack's own
/// (`https://releases.openstack.org/constraints/upper/2026.1`). Returns the path of the new file.
pub async fn replace_constraints(file: &BuildFile, series: &str, from: &str) -> Result<PathBuf, LockError> {
    let content = if from.starts_with("http://") || from.starts_with("https://") {
        download(from).await.map_err(|reason| LockError::Download {
            url: from.to_string(),
            reason,
        })?
    } else {
        read(Path::new(from))?
    };
    for (number, line) in content.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        // `===` is the arbitrary equality of PEP 440, used throughout the list.
        if !line.is_empty() && !line.contains("==") {
            return Err(LockError::NotConstraints {
                from: from.to_string(),
                line: number + 1,
                text: line.chars().take(80).collect(),
            });
        }
    }
    let path = directory(file, "constraints").join(format!("{series}.txt"));
    write(&path, content.as_bytes())?;
    Ok(path)
}

async fn download(url: &str) -> Result<String, String> {
    let say = |error: reqwest::Error| error.without_url().to_string();
    let mut answer = reqwest::get(url)
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(say)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(say)? {
        body.extend_from_slice(&chunk);
        if body.len() as u64 > MAX_BYTES {
            return Err(format!("longer than {MAX_BYTES} bytes"));
        }
    }
    String::from_utf8(body).map_err(|e| e.to_string())
}

fn header(requirement: &str, request: &LockRequest<'_>, constraints: &str) -> String {
    format!(
        "# Made by `obgp-build lock --project-ref {}`; do not edit.\n\
         # {requirement} on Python {}, for every platform, within {constraints}.\n\
         {EXCLUDE_NEWER}{}\n",
        request.reference, request.python, request.exclude_newer
    )
}

fn parse(name: String, path: PathBuf, content: &str) -> Result<LockFile, LockError> {
    let mut pins = BTreeMap::new();
    let mut exclude_newer = None;
    for line in content.lines() {
        if let Some(moment) = line.strip_prefix(EXCLUDE_NEWER) {
            exclude_newer = moment.trim().parse().ok();
        }
        if line.starts_with([' ', '#']) || line.trim().is_empty() {
            continue;
        }
        let pin = line.trim_end_matches('\\').split(';').next().unwrap_or_default().trim();
        let Some((distribution, version)) = pin.split_once("==") else {
            return Err(LockError::NotALock {
                path,
                line: line.chars().take(80).collect(),
            });
        };
        pins.insert(distribution.to_string(), version.to_string());
    }
    if pins.is_empty() || !content.contains("--hash=sha256:") {
        return Err(LockError::NotALock {
            path,
            line: "it has no pins with hashes".into(),
        });
    }
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(content)));
    Ok(LockFile {
        name,
        path,
        digest,
        pins,
        exclude_newer,
    })
}

/// The uv of `locks/tools.txt` in the user's cache; pip installs it there the first time.
async fn install_uv(
    file: &BuildFile,
    host: &Host,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<PathBuf, LockError> {
    let tools = directory(file, "locks").join("tools.txt");
    let digest = hex::encode(Sha256::digest(read(&tools)?));
    let cache = crate::base::cache_directory().join("tools");
    let installed = cache.join(format!("uv-{}", &digest[..16]));
    let uv = installed.join("bin/uv");
    if uv.is_file() {
        return Ok(uv);
    }
    progress.note(&format!(
        "installing uv, pinned by {}, into {}",
        tools.display(),
        installed.display()
    ));
    fs::create_dir_all(&cache).map_err(|e| LockError::io(&cache, e))?;
    let scratch = tempfile::tempdir_in(&cache).map_err(|e| LockError::io(&cache, e))?;
    let mut command = Command::new("python3");
    command.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
        "--requirement",
    ]);
    command.arg(&tools).arg("--target").arg(scratch.path().join("uv"));
    if let Some(bundle) = &host.ca_bundle {
        command.env("PIP_CERT", bundle);
    }
    run(
        command,
        "",
        "python3 -m pip install (Debian: apt-get install python3-pip)",
        cancel,
    )
    .await?;
    match fs::rename(scratch.path().join("uv"), &installed) {
        // A concurrent run installed it first.
        Err(_) if uv.is_file() => Ok(uv),
        Err(e) => Err(LockError::io(&installed, e)),
        Ok(()) => Ok(uv),
    }
}

fn uv_command(uv: &Path, host: &Host) -> Command {
    let mut command = Command::new(uv);
    if let Some(bundle) = &host.ca_bundle {
        command.env("SSL_CERT_FILE", bundle);
    }
    if let Some(index) = &host.pip_index {
        command.env("UV_DEFAULT_INDEX", index);
    }
    command
}

async fn run(
    command: Command,
    input: &str,
    what: &'static str,
    cancel: &CancellationToken,
) -> Result<String, LockError> {
    let failed = |source| LockError::Start { what, source };
    let output = process::run(command, input.as_bytes(), cancel)
        .await
        .map_err(|error| match error {
            RunError::Start(source) | RunError::Wait(source) => failed(source),
            RunError::Cancelled => LockError::Cancelled,
        })?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(LockError::Failed { what, stderr });
    }
    String::from_utf8(output.stdout).map_err(|e| failed(io::Error::other(e)))
}

fn directory(file: &BuildFile, kind: &str) -> PathBuf {
    file.root.join("images").join(&file.image.name).join(kind)
}

fn read(path: &Path) -> Result<String, LockError> {
    let size = fs::metadata(path).map_err(|e| LockError::io(path, e))?.len();
    if size > MAX_BYTES {
        return Err(LockError::io(
            path,
            io::Error::other(format!("longer than {MAX_BYTES} bytes")),
        ));
    }
    fs::read_to_string(path).map_err(|e| LockError::io(path, e))
}

fn write(path: &Path, content: &[u8]) -> Result<(), LockError> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))
        .and_then(|()| write_atomically(path, content))
        .map_err(|e| LockError::io(path, e))
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("no lock {path} for {reference}\nhelp: obgp-build lock --project-ref {reference}", path = path.display())]
    Missing { path: PathBuf, reference: String },
    #[error("{path} is not a lock with hashes: {line}", path = path.display())]
    NotALock { path: PathBuf, line: String },
    #[error("{from}, line {line}, is not an upper constraint: {text:?}")]
    NotConstraints { from: String, line: usize, text: String },
    #[error("downloading {url}: {reason}")]
    Download { url: String, reason: String },
    #[error(
        "the lock {name} would differ between {} and {}: a dependency has a marker for the processor\n\
         help: pin it in the constraints", one.name(), other.name()
    )]
    Differs {
        name: String,
        one: Architecture,
        other: Architecture,
    },
    #[error("running {what}: {source}")]
    Start { what: &'static str, source: io::Error },
    #[error("{what} failed:\n{stderr}")]
    Failed { what: &'static str, stderr: String },
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("interrupted")]
    Cancelled,
}

impl LockError {
    fn io(path: &Path, source: io::Error) -> Self {
        LockError::Io {
            path: path.to_path_buf(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> BuildFile {
        BuildFile::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("build.toml")).unwrap()
    }

    #[test]
    fn every_distro_has_the_locks_of_its_ref_and_of_its_series() {
        let file = file();
        for (name, distro) in &file.distros {
            let reference = distro.reference.as_ref().unwrap_or(&file.project.reference);
            let release = find(&file, reference, &distro.python).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(release.pins.get("ovn-bgp-agent"), Some(reference), "{name}");
            assert!(release.exclude_newer.is_some());
            let branch = format!("stable/{}", source::series(&file, reference).unwrap().constraints);
            let series = find(&file, &branch, &distro.python).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(!series.pins.contains_key("ovn-bgp-agent"), "{name}");
            assert!(series.pins.contains_key("oslo-privsep"), "{name}");
        }
    }

    #[test]
    fn a_missing_lock_says_how_to_make_it() {
        let error = find(&file(), "7.9.9", "3.11").unwrap_err().to_string();
        assert!(error.contains("obgp-build lock --project-ref 7.9.9"), "{error}");
    }

    #[test]
    fn requirements_without_hashes_are_no_lock() {
        let lock = |text| parse("x".into(), "x".into(), text);
        assert!(lock("requests==2.0\n").is_err());
        assert!(lock("requests>=2.0 --hash=sha256:00\n").is_err());
        let good = lock("requests==2.0 ; sys_platform != 'win32' \\\n    --hash=sha256:00\n    # via x\n").unwrap();
        assert_eq!(good.pins["requests"], "2.0");
    }

    #[tokio::test]
    async fn what_is_not_a_list_of_constraints_replaces_nothing() {
        let mut file = file();
        let dir = tempfile::tempdir().unwrap();
        file.root = dir.path().to_path_buf();
        let page = dir.path().join("page");
        fs::write(&page, "<html>404</html>\n").unwrap();
        let error = replace_constraints(&file, "2026.2", &page.display().to_string())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
        fs::write(&page, "# comment\nPyYAML===6.0;python_version>='3.11'\n").unwrap();
        let path = replace_constraints(&file, "2026.2", &page.display().to_string())
            .await
            .unwrap();
        assert!(path.ends_with("images/ovn-bgp-agent/constraints/2026.2.txt"));
    }
}
