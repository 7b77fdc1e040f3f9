//! `obgp-runtime image-repo-sync`: a list of images -> the same images, with the same digests, in a local registry.
//!
//! It replaces `docker pull`, `tag` and `push` in OpenStack-Helm's job of the same name and accepts its environment
//! (`IMAGE_SYNC_LIST`, `LOCAL_REPO`), but talks to both registries directly: no engine, nothing on disk, all platforms, and
//! unmodified manifests, so that signatures stay valid. Signatures are copied too.
//! <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md>

mod client;
mod companions;
mod copy;
mod credentials;
mod docker_config;
mod error;
mod manifest;
mod reference;
mod registry;
mod retry;
mod tls;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::failure::Failure;
use client::{Registries, Settings};
use copy::{Copied, Copier};
use error::SyncError;
use reference::{Entry, LocalRepo};

/// Copy images to a local registry
///
/// Copies all platforms with unchanged digests, and their signatures, attestations and SBOMs. Content that the local registry
/// already has is not sent again. IMAGE is copied to LOCAL_REPO/IMAGE, as with `docker tag`; IMAGE=NAME to LOCAL_REPO/NAME.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  obgp-runtime image-repo-sync --local-repo registry.local:5000 \\\n    \
                        docker.io/openstackhelm/ovn-bgp-agent:7.0.0-ubuntu_noble"
)]
pub struct Args {
    /// Images to copy, separated by commas or as separate arguments
    #[arg(
        value_name = "IMAGE[=NAME]",
        env = "IMAGE_SYNC_LIST",
        value_delimiter = ',',
        required = true
    )]
    images: Vec<String>,
    /// Registry to copy to: `HOST[:PORT][/PREFIX]`
    #[arg(long, env = "LOCAL_REPO")]
    local_repo: String,
    /// Docker configuration with credentials for both registries: config.json or its directory [default: ~/.docker]
    #[arg(long, value_name = "PATH", env = "DOCKER_CONFIG")]
    docker_config: Option<PathBuf>,
    /// CA certificates to trust in addition to the system's (or those of SSL_CERT_FILE)
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Registry that uses plain HTTP; loopback registries may always use it. Can be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    plain_http: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The result for one image: `copied` or `error`.
#[derive(Debug, serde::Serialize)]
struct Outcome {
    source: String,
    destination: String,
    copied: Option<Copied>,
    error: Option<String>,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let local: LocalRepo = args.local_repo.parse()?;
    let entries = entries(&args.images)?;
    let mut wanted = Vec::new();
    for entry in &entries {
        wanted.push((entry, local.destination(entry)?));
    }
    let registries = Registries::new(Settings {
        docker_config: args.docker_config.clone(),
        ca_file: args.ca_file.clone(),
        plain_http: args.plain_http.clone(),
    })?;
    let mut copier = Copier::new(&registries);
    let mut outcomes = Vec::new();
    for (entry, destination) in wanted {
        eprintln!("{} -> {destination}", entry.source);
        let (copied, error) = match companions::copy_with_companions(&mut copier, &entry.source, &destination) {
            Ok(copied) => (Some(copied), None),
            Err(error) => (None, Some(error.to_string())),
        };
        if let Some(error) = &error {
            eprintln!("{}: {error}", entry.source);
        }
        outcomes.push(Outcome {
            source: entry.source.to_string(),
            destination: destination.to_string(),
            copied,
            error,
        });
    }
    print(&outcomes, args.json)?;
    // After a failure the other images are still copied, because nodes may wait for them.
    let failed = outcomes.iter().filter(|outcome| outcome.error.is_some()).count();
    match failed {
        0 => Ok(ExitCode::SUCCESS),
        failed => Err(format!("{failed} of {} images were not copied", outcomes.len()).into()),
    }
}

fn entries(images: &[String]) -> Result<Vec<Entry>, SyncError> {
    let mut entries: Vec<Entry> = Vec::new();
    // The charts' template leaves empty items for excluded images.
    for image in images
        .iter()
        .map(|image| image.trim())
        .filter(|image| !image.is_empty())
    {
        let entry: Entry = image.parse()?;
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    match entries.is_empty() {
        true => Err(SyncError::NoImages),
        false => Ok(entries),
    }
}

fn print(outcomes: &[Outcome], json: bool) -> Result<(), Failure> {
    if json {
        println!("{}", serde_json::to_string_pretty(outcomes)?);
        return Ok(());
    }
    for outcome in outcomes {
        if let Some(copied) = &outcome.copied {
            println!("{} {} {copied}", outcome.destination, copied.digest);
        }
    }
    Ok(())
}
