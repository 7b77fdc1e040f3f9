//! Checks this machine: each check reports what it found and, if something is missing, the command that fixes it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::base::keyring::{self, Keyring};
use crate::base::tools;
use crate::builders::{Builder, Builders};
use crate::buildkit::Daemon;
use crate::config::file::{BuildFile, Family};
use crate::engine::{ImageStore, Origin};
use crate::oci::Platform;
use crate::plan::host_env::Host;
use crate::util::errors::root_cause;
use crate::util::files::{existing, find_program, free_bytes};

/// Timeout of a network check; a slower server does not serve a build either.
const NETWORK_TIMEOUT: Duration = Duration::from_secs(8);

/// The peak disk use of a two-platform build of one distro, with both bases and the engine's copies.
const DISK_NEEDED: u64 = 4 << 30;

/// IDs that Kolla assigns to other users (kolla/common/users.py).
const KOLLA_UIDS: &[(u32, &str)] = &[(42494, "valkey"), (42495, "kerbside"), (42476, "openvswitch")];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// Works, with a limitation.
    Warn,
    /// A build needs it, or fails without it.
    Missing,
}

#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub status: Status,
    pub found: String,
    /// The command or change that fixes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

fn finding(check: &'static str, status: Status, found: impl Into<String>, fix: Option<&str>) -> Finding {
    Finding {
        check,
        status,
        found: found.into(),
        fix: fix.map(str::to_string),
    }
}

/// Runs all checks; slow network checks run concurrently.
pub async fn examine(file: &BuildFile, host: &Host, output: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let connecting = Builders::connect(&file.builders, &file.root, 1);
    let builders = connecting.await;
    match &builders {
        Ok(builders) => findings.extend(examine_builders(builders, file).await),
        Err(error) => findings.push(finding(
            "engine",
            Status::Missing,
            error.to_string(),
            Some("apt-get install docker.io   # or docker-ce; or set DOCKER_HOST to an engine elsewhere"),
        )),
    }
    findings.push(mmdebstrap());
    findings.push(uidmap(tools::lacking_without_root()));
    findings.extend(keyrings(file));
    findings.push(command("git", "resolves project refs that are branches or tags"));
    findings.push(ca_bundle(host));
    findings.push(proxies(host));
    findings.extend(network(file, host).await);
    findings.push(disk("disk: output", output));
    for builder in builders.iter().flat_map(|b| b.members()) {
        // A buildkitd does not report its data directory.
        let local = builder.daemon.engine().filter(|engine| engine.endpoint().is_local());
        if let Some(engine) = local {
            let mut found = disk("disk: engine", Path::new(&engine.info().data_root));
            name(&mut found, builder, file);
            findings.push(found);
        }
    }
    findings.push(identity(file));
    findings
}

/// Every builder, and whether each platform of build.toml has one.
async fn examine_builders(builders: &Builders, file: &BuildFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for builder in builders.members() {
        let mut found = examine_builder(builder, file.engine.read_storage);
        found.iter_mut().for_each(|finding| name(finding, builder, file));
        findings.extend(found);
    }
    findings.extend(builders.absent().iter().map(|absent| {
        // The check of the platforms reports what is missing.
        let found = format!("builder {}: {}", absent.name, absent.reason);
        finding(
            "engine",
            Status::Warn,
            found,
            Some("start it, or correct its [[builder]]; a build skips it"),
        )
    }));
    findings.push(emulation(builders, &file.image.platforms));
    findings
}

/// If there are several builders, adds the builder's name.
fn name(finding: &mut Finding, builder: &Builder, file: &BuildFile) {
    if !file.builders.is_empty() {
        finding.found = format!("builder {}: {}", builder.name, finding.found);
    }
}

/// `read_storage`: whether images may be read from an engine's storage.
fn examine_builder(builder: &Builder, read_storage: bool) -> Vec<Finding> {
    let endpoint = builder.daemon.endpoint();
    // The builder's name is already in the text.
    let at = match endpoint.origin {
        Origin::Builder(_) => endpoint.address.to_string(),
        _ => endpoint.to_string(),
    };
    let (who, store) = match &builder.daemon {
        Daemon::Engine(engine) => {
            let info = engine.info();
            let store = match info.store {
                ImageStore::Classic => format!(
                    "classic ({}): one platform per tag, bases get a tag per platform; images are {}",
                    info.storage_driver,
                    match engine.storage().is_some_and(|storage| storage.is_readable()) {
                        true if read_storage => "read from its storage",
                        true => "exported by it (reading its storage is turned off)",
                        false => "exported by it",
                    }
                ),
                ImageStore::Containerd => "containerd".to_string(),
            };
            (format!("{} (API {})", info.version, info.api_version), store)
        }
        Daemon::Buildkitd(buildkitd) => (
            format!("buildkitd {}", buildkitd.version()).trim_end().to_string(),
            "none: each build sends the bases and receives the image; no --smoke".to_string(),
        ),
    };
    let builds = format!("answers; builds {}", join(&builder.platforms));
    vec![
        finding("engine", Status::Ok, format!("{who} at {at}"), None),
        finding("image store", Status::Ok, store, None),
        finding("BuildKit", Status::Ok, builds, None),
    ]
}

/// Whether each platform has a builder, and each builder runs its platforms in build.toml.
fn emulation(builders: &Builders, wanted: &[Platform]) -> Finding {
    let lacking: Vec<Platform> = wanted
        .iter()
        .copied()
        .filter(|p| builders.foresee([*p]).is_err())
        .collect();
    let listed: Vec<String> = builders
        .members()
        .iter()
        .filter(|b| !b.lacks.is_empty())
        .map(|b| format!("builder {} lists {}, which it cannot run", b.name, join(&b.lacks)))
        .collect();
    let (status, found) = match (lacking.as_slice(), listed.is_empty()) {
        ([], true) => return finding("emulation", Status::Ok, "every platform of build.toml can run", None),
        ([], false) => (Status::Warn, listed.join("; ")),
        (lacking, _) => (Status::Missing, format!("no builder can run {}", join(lacking))),
    };
    finding(
        "emulation",
        status,
        found,
        Some(
            "apt-get install qemu-user-static binfmt-support && \
             { mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc; } && \
             update-binfmts --enable   # or leave the platform out with --platform",
        ),
    )
}

fn join(platforms: &[Platform]) -> String {
    platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(", ")
}

fn mmdebstrap() -> Finding {
    match find_program("mmdebstrap") {
        Some(path) => finding("mmdebstrap", Status::Ok, path.display().to_string(), None),
        None => finding(
            "mmdebstrap",
            Status::Warn,
            "not installed: bases can come from a registry or the engine only",
            Some("apt-get install mmdebstrap"),
        ),
    }
}

/// Root needs none of these programs.
fn uidmap(lacking: Option<String>) -> Finding {
    match lacking {
        None => finding("uidmap", Status::Ok, "bases can be bootstrapped as this user", None),
        Some(programs) => finding(
            "uidmap",
            Status::Warn,
            format!("{programs} not installed: without root, bases can come from a registry or the engine only"),
            Some("apt-get install uidmap   # newuidmap and newgidmap"),
        ),
    }
}

fn keyrings(file: &BuildFile) -> Vec<Finding> {
    let families = [
        (Family::Debian, "keyring: Debian", "debian-archive-keyring"),
        (Family::Ubuntu, "keyring: Ubuntu", "ubuntu-keyring"),
    ];
    let wanted = |family: &Family| file.distros.values().any(|d| d.family == *family);
    let families = families.into_iter().filter(|(family, ..)| wanted(family));
    families
        .map(|(family, check, package)| match keyring::look(family) {
            Keyring::Installed(path) => finding(check, Status::Ok, path.display().to_string(), None),
            Keyring::FromDebian => {
                let text = format!("not installed; fetched from Debian's archive ({package}) when a base is made");
                finding(check, Status::Ok, text, None)
            }
            Keyring::Missing(path) => finding(
                check,
                Status::Warn,
                format!("no {}: its distros cannot be bootstrapped here", path.display()),
                Some(&format!("apt-get install {package}")),
            ),
        })
        .collect()
}

fn command(name: &'static str, why: &str) -> Finding {
    match find_program(name) {
        Some(path) => finding(name, Status::Ok, path.display().to_string(), None),
        None => finding(
            name,
            Status::Warn,
            format!("not installed: {why}"),
            Some(&format!("apt-get install {name}")),
        ),
    }
}

fn ca_bundle(host: &Host) -> Finding {
    match &host.ca_bundle {
        Some(path) => finding(
            "CA bundle",
            Status::Ok,
            format!("{}, given to builds as a secret", path.display()),
            None,
        ),
        None => finding(
            "CA bundle",
            Status::Warn,
            "none found: HTTPS in builds uses the base image's, if it has one",
            Some("apt-get install ca-certificates   # or set SSL_CERT_FILE"),
        ),
    }
}

fn proxies(host: &Host) -> Finding {
    let found = if host.proxies.is_empty() {
        "none set".to_string()
    } else {
        format!(
            "{} given to builds as predefined arguments",
            host.proxies.keys().cloned().collect::<Vec<_>>().join(", ")
        )
    };
    finding("proxies", Status::Ok, found, None)
}

async fn network(file: &BuildFile, host: &Host) -> Vec<Finding> {
    let index = host
        .pip_index
        .clone()
        .unwrap_or_else(|| "https://pypi.org/simple".into());
    let mut questions = vec![(
        "network: Python index",
        index.trim_end_matches('/').to_string() + "/pip/",
        Status::Missing,
    )];
    for (check, family) in [
        ("network: Debian archive", Family::Debian),
        ("network: Ubuntu archive", Family::Ubuntu),
    ] {
        if let Some(distro) = file.distros.values().find(|d| d.family == family) {
            let mirror = crate::base::mirror(distro, crate::oci::Architecture::Amd64);
            let url = format!("{}/dists/{}/Release", mirror.trim_end_matches('/'), distro.suite);
            questions.push((check, url, Status::Warn));
        }
    }
    let registries = file
        .distros
        .values()
        .filter_map(|d| d.base.split('/').next())
        .collect::<std::collections::BTreeSet<_>>();
    for registry in registries {
        let host = if registry == "docker.io" {
            "registry-1.docker.io"
        } else {
            registry
        };
        questions.push(("network: registry", format!("https://{host}/v2/"), Status::Warn));
    }
    let client = match reqwest::Client::builder().timeout(NETWORK_TIMEOUT).build() {
        Ok(client) => client,
        Err(e) => return vec![finding("network", Status::Warn, format!("no HTTP client: {e}"), None)],
    };
    let answers = questions.iter().map(|(_, url, _)| ask(&client, url));
    let answers = futures_util::future::join_all(answers).await;
    let fix = "set HTTPS_PROXY, SSL_CERT_FILE or PIP_INDEX_URL, or a mirror in build.toml, if there is another way out";
    questions
        .into_iter()
        .zip(answers)
        .map(|((check, url, otherwise), answer)| match answer {
            Ok(()) => finding(check, Status::Ok, format!("{} answers", origin(&url)), None),
            Err(reason) => finding(check, otherwise, format!("{}: {reason}", origin(&url)), Some(fix)),
        })
        .collect()
}

/// A URL without parts that may be secret.
fn origin(url: &str) -> String {
    url::Url::parse(url).map_or_else(|_| "(unparsable URL)".into(), |u| u.origin().ascii_serialization())
}

async fn ask(client: &reqwest::Client, url: &str) -> Result<(), String> {
    match client.head(url).send().await {
        // A registry that answers 401 to a request without a token is reachable.
        Ok(answer) if answer.status().is_success() || answer.status() == reqwest::StatusCode::UNAUTHORIZED => Ok(()),
        Ok(answer) => Err(format!("answered {}", answer.status())),
        Err(error) => {
            let error = error.without_url();
            Err(root_cause(&error))
        }
    }
}

fn disk(check: &'static str, path: &Path) -> Finding {
    let existing = existing(path).unwrap_or_else(|_| PathBuf::from("/"));
    match free_bytes(&existing) {
        Some(free) => {
            let found = format!(
                "{:.1} GiB free at {}",
                free as f64 / f64::from(1 << 30),
                existing.display()
            );
            if free >= DISK_NEEDED {
                finding(check, Status::Ok, found, None)
            } else {
                let fix = "docker builder prune; docker image prune; or --output on another disk";
                finding(
                    check,
                    Status::Warn,
                    format!("{found}, a build needs about 4 GiB"),
                    Some(fix),
                )
            }
        }
        None => finding(
            check,
            Status::Warn,
            format!("no file system statistics of {}", existing.display()),
            None,
        ),
    }
}

fn identity(file: &BuildFile) -> Finding {
    let user = &file.user;
    let taken = |id: u32| KOLLA_UIDS.iter().find(|(kolla, _)| *kolla == id).map(|(_, name)| *name);
    let mut ids = vec![format!("{} {}:{}", user.name, user.uid, user.gid)];
    let mut collisions = Vec::new();
    if let Some(name) = taken(user.uid) {
        collisions.push(format!("Kolla gives {} to {name}", user.uid));
    }
    for group in &user.groups {
        ids.push(format!("{} {}", group.name, group.gid));
        if group.name == "openvswitch" && taken(group.gid) != Some("openvswitch") {
            collisions.push(format!("Kolla's openvswitch is 42476, this image's {}", group.gid));
        }
    }
    if collisions.is_empty() {
        return finding("IDs", Status::Ok, ids.join(", "), None);
    }
    finding(
        "IDs",
        Status::Warn,
        format!("{}: {}", ids.join(", "), collisions.join("; ")),
        Some(
            "nothing, unless Kolla's images share volumes or host sockets with this one: then set [user] in build.toml",
        ),
    )
}
