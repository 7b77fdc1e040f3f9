//! The command line: flags, their environment variables and help texts. No logic.

pub mod complete;
#[cfg(feature = "keyless")]
mod keyless;
mod modes;
mod parse;
mod signing;
mod target;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::{ArgValueCandidates, ArgValueCompleter};

#[cfg(feature = "keyless")]
pub use keyless::KeylessArgs;
pub use parse::{command, wants_json};
pub use signing::{AttestArgs, SignArgs, SigningArgs};
pub use target::TargetArgs;

use crate::config::{ProgressMode, labels};
use crate::oci::{Platform, name_part};
use crate::sign::KeySource;

/// Build, verify, compare and publish the OVN BGP Agent container images.
///
/// Without a subcommand, obgp-build runs `build`.
#[derive(Debug, Parser)]
#[command(
    name = "obgp-build",
    version,
    after_help = "\
Examples:
  obgp-build --distro ubuntu_noble                    build and verify both platforms in dist/oci
  obgp-build --distro all --platform linux/arm64      build every distro of build.toml for one platform
  DISTRO=ubuntu_jammy PROJECT_REF=6.0.0 obgp-build    use the variables of the former build.sh
  obgp-build plan --project-ref master --json         show the plan with every input resolved
  obgp-build verify oci:dist/oci:7.0.0-ubuntu_noble   check the contract without running the image
  obgp-build push oci:dist/oci:7.0.0-ubuntu_noble quay.io/team/ovn-bgp-agent
                                                      push the verified image, then set its tag
  obgp-build doctor                                   check this machine and print the fixes

Exit codes: 0 success, 1 failure, 2 usage or configuration error, 3 contract violation, 130
interrupted."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output and configuration")]
pub struct GlobalArgs {
    /// Read this configuration [default: build.toml in this directory or above]
    #[arg(long, global = true, value_name = "FILE", env = "OBGP_BUILD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Print the result as JSON on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Format of the progress on stderr
    #[arg(long, global = true, value_enum, default_value_t = ProgressMode::Auto)]
    pub progress: ProgressMode,
    /// Format of the diagnostic logs on stderr; RUST_LOG sets their level
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Let the engine export images instead of reading them from its storage
    #[arg(long, global = true)]
    pub no_engine_storage: bool,
    /// Wait at most this long for a directory that another run uses [default: without limit]
    #[arg(long, global = true, value_name = "SECONDS", env = "OBGP_LOCK_TIMEOUT")]
    pub lock_timeout: Option<u64>,
    #[command(flatten)]
    pub registries: RegistryArgs,
}

/// How to connect to registries. `[[registries]]` of build.toml has more settings; credentials are Docker's.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Registries")]
pub struct RegistryArgs {
    /// Use plain HTTP for registries; loopback registries may always use it
    #[arg(long, global = true)]
    pub plain_http: bool,
    /// Trust these CA certificates (PEM) for registries, besides the system's
    #[arg(long, global = true, value_name = "FILE", env = "OBGP_REGISTRY_CA", value_parser = values::existing_file)]
    pub registry_ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build images into an OCI layout and verify them (the default)
    Build(Box<BuildArgs>),
    /// Show what a build would do, with every input resolved
    Plan(Box<BuildArgs>),
    /// Check an image against the contract, without running it
    Verify(VerifyArgs),
    /// Push a verified image to registries; set the tag last
    Push(PushArgs),
    /// Sign an image in a registry: its index and each platform
    Sign(SignArgs),
    /// Attest an image in a registry: its SBOMs, or your own predicate
    Attest(AttestArgs),
    /// Copy a published image with its referrers by digest, and set tags
    Promote(PromoteArgs),
    /// Show platforms, sizes, labels, signatures and referrers of an image in a registry
    Inspect(InspectArgs),
    /// Remove temporary tags from a repository
    Prune(PruneArgs),
    /// Compare packages, Python distributions, files and config of two images
    Diff(DiffArgs),
    /// List the Debian packages, Python distributions and Rust crates of an image
    Sbom(SbomArgs),
    /// Export an image from the engine into an OCI layout, and verify it
    Ingest(IngestArgs),
    /// Print the Dockerfile of a distro
    Dockerfile(DockerfileArgs),
    /// Build a distro's base image from its package archive, and load it into the engine
    Bootstrap(BootstrapArgs),
    /// Pin the image's Python distributions with hashes
    Lock(LockArgs),
    /// Check engine, emulation, tools, network and disk, and print the fixes
    Doctor(DoctorArgs),
    /// Print shell completions
    Completions(CompletionsArgs),
}

#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub options: BuildOptions,
}

/// Flags that change how the targets are built.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "How to build")]
pub struct BuildOptions {
    /// Write the OCI layout and the report to this directory [default: dist next to build.toml]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Build this many targets at once
    ///
    /// Default: the sum of the slots of build.toml's builders. With a single engine: one per processor, at least two.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Run every build step again, without the build cache
    #[arg(long)]
    pub no_cache: bool,
    /// Also run the built image on the engine as a smoke test
    ///
    /// The test runs the agent, its imports and its sudo rights on a read-only root. It needs an engine: a buildkitd
    /// cannot run images.
    #[arg(long)]
    pub smoke: bool,
    /// Compression of the layers
    #[arg(long, value_enum, default_value_t = CompressionArg::Gzip)]
    pub compression: CompressionArg,
    /// Push each image that passes verification, under its own name
    #[arg(long, env = "PUSH", num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = clap::builder::BoolishValueParser::new(), hide_default_value = true, action = clap::ArgAction::Set)]
    pub push: bool,
    /// Also push under this tag; repeatable
    #[arg(long, value_name = "TAG", value_parser = name_part::tag)]
    pub extra_tag: Vec<String>,
    /// Add a label to the image, over those of build.toml; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = labels::parse)]
    pub label: Vec<(String, String)>,
    /// URI of the builder in the provenance [default: the page of obgp-build]
    #[arg(long, value_name = "URI", value_parser = values::uri)]
    pub builder_id: Option<String>,
    #[command(flatten)]
    pub publish: PublishArgs,
}

/// What to publish besides the image.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Publishing")]
pub struct PublishArgs {
    /// Sign the image and attest its SBOMs with this key
    ///
    /// KEY is a cosign or PKCS#8 private key in PEM, as FILE or env://VAR (passphrase in COSIGN_PASSWORD), or a pkcs11:
    /// URI of a key in a token (PIN in COSIGN_PKCS11_PIN).
    #[arg(long, value_name = "KEY", alias = "sign")]
    pub key: Option<KeySource>,
    /// Write a list of the pushed images for zuul_return
    #[arg(long, value_name = "FILE")]
    pub zuul_artifacts: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompressionArg {
    Gzip,
    Zstd,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  obgp-build verify oci:dist/oci:7.0.0-ubuntu_noble
  obgp-build verify docker:ovn-bgp-agent:latest --distro ubuntu_noble --json
  obgp-build verify quay.io/team/ovn-bgp-agent:7.0.0-ubuntu_noble

An image in a registry is streamed, for every platform, and not stored.")]
pub struct VerifyArgs {
    /// `oci:DIR[:TAG]`, `docker:NAME`, or `HOST/PATH:TAG` in a registry
    #[arg(value_name = "IMAGE", add = ArgValueCompleter::new(complete::images))]
    pub image: String,
    #[command(flatten)]
    pub expect: ExpectArgs,
    /// Also verify signatures and attestations with this public key
    ///
    /// PUB is a public key in PEM, as FILE or env://VAR, or a pkcs11: URI of a key in a token.
    #[arg(long, value_name = "PUB")]
    pub key: Option<KeySource>,
    /// Verify only the signatures; skip contents and attestations
    #[arg(long, requires = "key", conflicts_with_all = ["distro", "platform", "contract"])]
    pub signatures_only: bool,
}

#[derive(Debug, Args)]
pub struct ExpectArgs {
    /// Require this distro [default: from the image's labels and os-release]
    #[arg(long, value_name = "DISTRO", add = ArgValueCandidates::new(complete::distros))]
    pub distro: Option<String>,
    /// Only these platforms
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', add = ArgValueCandidates::new(complete::platforms))]
    pub platform: Vec<Platform>,
    /// Use this contract [default: images/NAME.toml next to build.toml]
    #[arg(long, value_name = "FILE", value_parser = values::existing_file)]
    pub contract: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  obgp-build diff oci:old/oci:7.0.0-ubuntu_noble oci:dist/oci:7.0.0-ubuntu_noble
  obgp-build diff quay.io/team/ovn-bgp-agent:7.0.0-ubuntu_noble oci:dist/oci:7.0.0-ubuntu_noble

Without --exit-code, the exit code is 0 whether or not the images differ.")]
pub struct DiffArgs {
    /// `oci:DIR[:TAG]`, `docker:NAME`, or `HOST/PATH:TAG` in a registry
    #[arg(value_name = "IMAGE", add = ArgValueCompleter::new(complete::images))]
    pub old: String,
    #[arg(value_name = "IMAGE", add = ArgValueCompleter::new(complete::images))]
    pub new: String,
    /// Only these platforms [default: those in both images]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', add = ArgValueCandidates::new(complete::platforms))]
    pub platform: Vec<Platform>,
    /// Exit with 1 if the images differ, like git diff
    #[arg(long)]
    pub exit_code: bool,
}

/// The checks that an image must pass before it is published.
#[derive(Clone, Debug, Default, Args)]
pub struct JudgeArgs {
    /// Require this distro [default: from the image's labels and os-release]
    #[arg(long, value_name = "DISTRO", add = ArgValueCandidates::new(complete::distros))]
    pub distro: Option<String>,
    /// Use this contract [default: images/NAME.toml next to build.toml]
    #[arg(long, value_name = "FILE", value_parser = values::existing_file)]
    pub contract: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  obgp-build push oci:dist/oci:7.0.0-ubuntu_noble quay.io/team/ovn-bgp-agent
  obgp-build push oci:dist/oci:7.0.0-ubuntu_noble localhost:5000/agent:test quay.io/team/agent:7.0.0 --json

obgp-build verifies the contract first, and does not push an image that breaks it. It does not
send blobs that the registry has, so a push can be repeated after an interruption. It does not
move tags that are immutable in build.toml.")]
pub struct PushArgs {
    /// `oci:DIR[:TAG]`
    #[arg(value_name = "IMAGE", add = ArgValueCompleter::new(complete::images))]
    pub image: String,
    /// Destinations, `HOST/PATH[:TAG]` [default TAG: the tag in the layout]
    #[arg(value_name = "REF", required = true)]
    pub destinations: Vec<String>,
    #[command(flatten)]
    pub judge: JudgeArgs,
    #[command(flatten)]
    pub publish: PublishArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  obgp-build promote quay.io/team/agent:change_1234_7.0.0-ubuntu_noble quay.io/team/agent:7.0.0-ubuntu_noble
  obgp-build promote localhost:5000/agent@sha256:… quay.io/team/agent:7.0.0 docker.io/team/agent:7.0.0

obgp-build resolves the source to its digest once, and verifies it by reading its layers. It
copies manifests, blobs, signatures, attestations and referrers. Within a registry it mounts blobs
instead of copying them.")]
pub struct PromoteArgs {
    /// `HOST/PATH:TAG` or `HOST/PATH@DIGEST`
    #[arg(value_name = "SRC")]
    pub source: String,
    /// Destinations, `HOST/PATH[:TAG]` [default TAG: the tag of SRC]
    #[arg(value_name = "DST", required = true)]
    pub destinations: Vec<String>,
    #[command(flatten)]
    pub judge: JudgeArgs,
    /// First verify the signatures with this public key
    ///
    /// PUB is a public key in PEM, as FILE or env://VAR, or a pkcs11: URI of a key in a token.
    #[arg(long, value_name = "PUB")]
    pub key: Option<KeySource>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  obgp-build inspect quay.io/team/ovn-bgp-agent:7.0.0-ubuntu_noble --json")]
pub struct InspectArgs {
    /// `HOST/PATH:TAG` or `HOST/PATH@DIGEST`
    #[arg(value_name = "REF")]
    pub reference: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  obgp-build prune quay.io/team/ovn-bgp-agent --prefix change_ --older-than 7d --dry-run
  obgp-build prune quay.io/team/ovn-bgp-agent --prefix change_1234_

The age of a tag is the time since its last push. A push to a temporary tag ([[registries]] in
build.toml) records this time in a referrer of the image. Tags of unknown age stay. prune removes
tags, not images: an image with another tag stays as it is, and the registry's garbage collection
removes unreferenced images.")]
pub struct PruneArgs {
    /// `HOST/PATH`
    #[arg(value_name = "REPO")]
    pub repository: String,
    /// Remove only tags that begin with TEXT
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub prefix: String,
    /// Remove only tags pushed at least this long ago, e.g. `7d` or `36h` [default: any age]
    #[arg(long, value_name = "AGE")]
    pub older_than: Option<jiff::Span>,
    /// Print the tags that would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  obgp-build sbom oci:dist/oci:7.0.0-ubuntu_noble --platform linux/amd64 --output sbom.spdx.json
  obgp-build sbom oci:dist/oci:7.0.0-ubuntu_noble --format cyclonedx-json --output dist

Equal images give equal documents: dates and identifiers come from the image.")]
pub struct SbomArgs {
    /// `oci:DIR[:TAG]` or `docker:NAME`
    #[arg(value_name = "IMAGE", add = ArgValueCompleter::new(complete::images))]
    pub image: String,
    /// Format: SPDX 2.3 or CycloneDX 1.6
    #[arg(long, value_enum, default_value_t = SbomFormat::SpdxJson)]
    pub format: SbomFormat,
    /// Only these platforms
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', add = ArgValueCandidates::new(complete::platforms))]
    pub platform: Vec<Platform>,
    /// Write to a file, or one file per platform into a directory; `-` is stdout [default: -]
    #[arg(long, value_name = "FILE|DIR")]
    pub output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SbomFormat {
    SpdxJson,
    CyclonedxJson,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  docker build -f dockerfiles/Dockerfile.ubuntu_noble -t agent . && obgp-build ingest docker:agent --tag test")]
pub struct IngestArgs {
    /// `docker:NAME`
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Write the OCI layout to this directory [default: dist next to build.toml]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Tag in the layout [default: the tag of NAME]
    #[arg(long, value_name = "TAG", value_parser = name_part::tag)]
    pub tag: Option<String>,
    /// Compression of the layers
    #[arg(long, value_enum, default_value_t = CompressionArg::Gzip)]
    pub compression: CompressionArg,
    #[command(flatten)]
    pub expect: ExpectArgs,
}

#[derive(Debug, Args)]
pub struct DockerfileArgs {
    /// A distro of build.toml
    #[arg(value_name = "DISTRO", add = ArgValueCandidates::new(complete::distros))]
    pub distro: String,
}

#[derive(Debug, Args)]
pub struct BootstrapArgs {
    /// A distro of build.toml
    #[arg(value_name = "DISTRO", add = ArgValueCandidates::new(complete::distros))]
    pub distro: String,
    /// Platform; repeatable or comma-separated [default: from build.toml]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', add = ArgValueCandidates::new(complete::platforms))]
    pub platform: Vec<Platform>,
    /// Build the base again even if the engine already has it
    #[arg(long)]
    pub refresh: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  obgp-build lock                                      lock every distro of build.toml
  obgp-build lock --distro ubuntu_jammy --project-ref 6.0.0
  obgp-build lock --constraints https://releases.openstack.org/constraints/upper/2026.1 --project-ref 6.0.0")]
pub struct LockArgs {
    /// A distro of build.toml; repeatable [default: all]
    #[arg(long, value_name = "DISTRO", value_delimiter = ',', add = ArgValueCandidates::new(complete::distros))]
    pub distro: Vec<String>,
    /// Git ref or version of the agent [default: from build.toml]
    #[arg(long, value_name = "REF", env = "PROJECT_REF")]
    pub project_ref: Option<String>,
    /// Use these upper constraints, and replace the copy in images/ with them
    #[arg(long, value_name = "FILE|URL")]
    pub constraints: Option<String>,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Check the disk space of this output directory [default: dist next to build.toml]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}
