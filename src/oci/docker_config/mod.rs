//! Looks up the credentials for a repository where docker and podman keep them: the variable `DOCKER_AUTH_CONFIG`, Docker's
//! `config.json`, and podman's `auth.json`.

#[path = "../../../runtime/src/image_repo_sync/docker_config/mod.rs"]
mod config;

use std::ffi::OsString;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use config::Config;
pub use config::Credentials;

/// Real files have a few kilobytes.
const LARGEST: u64 = 4 << 20;

/// The result of a look-up.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Login {
    pub credentials: Option<Credentials>,
    /// Files and helpers that could not be read, although they may have a login. Without secrets.
    pub problems: Vec<String>,
}

/// The credentials for a repository of a registry host such as `quay.io` or `registry:5000`; an empty `path` stands for any
/// repository. Problems are logged, because most pulls need no login.
pub async fn for_repository(host: &str, path: &str) -> Login {
    let (host, path) = (host.to_string(), path.to_string());
    // It may run a helper program and wait for it.
    let found = tokio::task::spawn_blocking(move || find(&Place::all(), &host, &path)).await;
    let login = found.unwrap_or_default();
    for problem in &login.problems {
        tracing::warn!(%problem, "a login cannot be read; continuing without it");
    }
    login
}

/// The registry host and the path of an image reference: `docker.io` and `library/debian` for `debian:12`.
pub fn registry_and_path(reference: &str) -> (&str, &str) {
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    let name = match name.rsplit_once(':') {
        // Otherwise the colon belongs to a port.
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
        _ => ("docker.io", name),
    }
}

/// `DOCKER_CONFIG`, or `.docker` in the home directory.
pub fn directory() -> Option<PathBuf> {
    let home = || etcetera::home_dir().ok().map(|home| home.join(".docker"));
    set("DOCKER_CONFIG").map(PathBuf::from).or_else(home)
}

fn set(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}

/// A text with logins.
enum Place {
    Variable(&'static str, Vec<u8>),
    File(PathBuf),
}

impl Place {
    /// Docker's places (28.3 and newer read the variable), then podman's
    /// (<https://docs.podman.io/en/stable/markdown/podman-login.1.html#authfile-path>).
    fn all() -> Vec<Self> {
        use std::os::unix::ffi::OsStringExt as _;
        const VARIABLE: &str = "DOCKER_AUTH_CONFIG";
        let mut places: Vec<Self> = Vec::new();
        places.extend(set(VARIABLE).map(|text| Self::Variable(VARIABLE, text.into_vec())));
        let mut files: Vec<PathBuf> = directory().map(|dir| dir.join("config.json")).into_iter().collect();
        match set("REGISTRY_AUTH_FILE") {
            Some(file) => files.push(file.into()),
            None => {
                let per_user = || format!("/run/containers/{}", rustix::process::getuid().as_raw()).into();
                let runtime = set("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("containers"));
                files.push(runtime.unwrap_or_else(per_user).join("auth.json"));
                let home = || etcetera::home_dir().ok().map(|home| home.join(".config"));
                let config = set("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
                files.extend(config.map(|dir| dir.join("containers/auth.json")));
            }
        }
        places.extend(files.into_iter().map(Self::File));
        places
    }

    /// `None` if the file does not exist.
    fn read(&self) -> Result<Option<Config>, String> {
        let text = match self {
            Self::Variable(_, text) => text.clone(),
            Self::File(path) => match read(path) {
                Ok(text) => text,
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(e.to_string()),
            },
        };
        Config::parse(&text).map(Some)
    }

    fn name(&self) -> String {
        match self {
            Self::Variable(name, _) => (*name).to_string(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(LARGEST).read_to_end(&mut text)?;
    Ok(text)
}

/// The first login in these places.
fn find(places: &[Place], host: &str, path: &str) -> Login {
    let mut problems = Vec::new();
    for place in places {
        let found = place.read().and_then(|config| match config {
            Some(config) => config.login(host, path),
            None => Ok(None),
        });
        match found {
            Ok(None) => {}
            Ok(credentials) => return Login { credentials, problems },
            Err(reason) => problems.push(format!("reading the login for {host} in {}: {reason}", place.name())),
        }
    }
    Login {
        credentials: None,
        problems,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_and_the_path_of_a_reference() {
        for (reference, host, path) in [
            ("debian:12", "docker.io", "debian"),
            ("library/debian", "docker.io", "library/debian"),
            ("localhost/x", "localhost", "x"),
            ("reg:5000/a/b:c", "reg:5000", "a/b"),
            ("[::1]:5000/a/b", "[::1]:5000", "a/b"),
            ("quay.io/a/b@sha256:0", "quay.io", "a/b"),
            ("quay.io/a/b:c@sha256:0", "quay.io", "a/b"),
        ] {
            assert_eq!(registry_and_path(reference), (host, path));
        }
    }

    #[test]
    fn a_place_that_cannot_be_read_is_reported_and_the_next_one_is_searched() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            Place::File(path)
        };
        let auths = |auth: &str| format!(r#"{{"auths": {{"r:1": {{"auth": "{auth}"}}}}}}"#);
        let places = [
            Place::Variable("DOCKER_AUTH_CONFIG", b"{".to_vec()),
            file("broken.json", &auths("%")),
            Place::File(dir.path().to_path_buf()),
            Place::File(dir.path().join("missing.json")),
            file("auth.json", &auths("bWU6c2VjcmV0")),
            file("later.json", &auths("YTpi")),
        ];
        let login = find(&places, "r:1", "a/b");
        let expected = Credentials::Password {
            username: "me".into(),
            password: "secret".into(),
        };
        assert_eq!(login.credentials, Some(expected));
        assert_eq!(login.problems.len(), 3, "{:?}", login.problems);
        for (problem, part) in
            login
                .problems
                .iter()
                .zip(["DOCKER_AUTH_CONFIG: ", "broken.json: the login \"r:1\"", "directory"])
        {
            assert!(problem.contains(part), "{problem}");
        }
        assert_eq!(find(&places[3..], "r:2", "a/b"), Login::default());
    }
}
