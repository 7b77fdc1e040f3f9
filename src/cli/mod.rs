//! The command line: flags, their environment variables, their help. No logic.

#[cfg(feature = "keyless")]
mod keyless;
mod modes;
mod target;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

#[cfg(feature = "keyless")]
pub use keyless::KeylessArgs;
pub use target::TargetArgs;

use crate::config::ProgressMode;
use crate::oci::Platform;
use crate::sign::KeySource;

/// Build, verify, compare and publish the OVN BGP Agent container images.
///
/// Without a subcommand it builds.
#[derive(Debug, Parser)]
#[command(
    name = "obgp-build",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  obgp-build --distro ubuntu_noble                    both platforms into dist/oci, verified
  obgp-build --distro all --platform linux/arm64      every distro of build.toml, one platform
  DISTRO=ubuntu_jammy PROJECT_REF=6.0.0 obgp-build    the environment of the old build.sh
  obgp-build plan --project-ref master --json         what would be done, every input resolved
  obgp-build verify oci:dist/oci:7.0.0-ubuntu_noble   the contract, checked without running anything
  obgp-build push oci:dist/oci:7.0.0-ubuntu_noble quay.io/team/ovn-bgp-agent
                                                      the verified image under its tag, which is set last
  obgp-build doctor                                   what this machine lacks, and the command that mends it

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 the image breaks its contract, 130 interrupted."
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
    /// The configuration [default: build.toml here or in a directory above]
    #[arg(long, global = true, value_name = "FILE", env = "OBGP_BUILD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Print the result as JSON on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// How progress is shown on stderr
    #[arg(long, global = true, value_enum, default_value_t = ProgressMode::Auto)]
    pub progress: ProgressMode,
    /// The form of diagnostic logs on stderr (their level: RUST_LOG)
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    #[command(flatten)]
    pub registries: RegistryArgs,
}

/// How registries are reached; more of it is in build.toml. Logins are docker's (`docker login`).
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Registries")]
pub struct RegistryArgs {
    /// Talk to registries without TLS. Those on loopback need no saying
    #[arg(long, global = true)]
    pub plain_http: bool,
    /// Certificates (PEM) to trust for registries, besides the system's
    #[arg(long, global = true, value_name = "FILE", env = "OBGP_REGISTRY_CA")]
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
    /// Show what a build would do, every input resolved
    Plan(Box<TargetArgs>),
    /// Check an image against the contract, on its layers, without running it
    Verify(VerifyArgs),
    /// Publish a verified image: blobs, manifests, index, and the tag last
    Push(PushArgs),
    /// Sign an image in a registry: its index and each platform
    Sign(SignArgs),
    /// Attest an image in a registry: its SBOMs, or a predicate of your own
    Attest(AttestArgs),
    /// Copy a published image by digest, with all that belongs to it, and set tags
    Promote(PromoteArgs),
    /// Show what a registry has under a name: platforms, sizes, labels, signatures, referrers
    Inspect(InspectArgs),
    /// Remove temporary tags from a repository
    Prune(PruneArgs),
    /// Compare two images: packages, Python distributions, files, config
    Diff(DiffArgs),
    /// List what is in an image: Debian packages, Python distributions, Rust crates
    Sbom(SbomArgs),
    /// Put an image that an engine has into an OCI layout, and verify it
    Ingest(IngestArgs),
    /// Print the Dockerfile of a distro
    Dockerfile(DockerfileArgs),
    /// Make a distro's base image from its archive, and load it into the engine
    Bootstrap(BootstrapArgs),
    /// Pin the Python distributions of the image with hashes
    Lock(LockArgs),
    /// Look at engine, emulation, tools, network and disk: what works, what is missing, what mends it
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

/// How it is built.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "How to build")]
pub struct BuildOptions {
    /// Where the OCI layout and the report go
    #[arg(long, value_name = "DIR", default_value = "dist")]
    pub output: PathBuf,
    /// How many targets are built at once [default: all slots of build.toml's builders; of one engine: one per processor, two at least]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Run every build step again
    #[arg(long)]
    pub no_cache: bool,
    /// Run the built image on the engine too (a buildkitd runs none): the agent, its imports, its sudo rights, read-only root
    #[arg(long)]
    pub smoke: bool,
    /// Compression of the layers
    #[arg(long, value_enum, default_value_t = CompressionArg::Gzip)]
    pub compression: CompressionArg,
    /// Push what passed, under the image's name
    #[arg(long, env = "PUSH", num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = clap::builder::BoolishValueParser::new(), hide_default_value = true, action = clap::ArgAction::Set)]
    pub push: bool,
    /// A further tag for what is pushed; repeatable
    #[arg(long, value_name = "TAG", requires = "push")]
    pub extra_tag: Vec<String>,
    /// A label of the image, over build.toml's; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    pub label: Vec<(String, String)>,
    /// Who builds, a URI, as the provenance has it
    #[arg(
        long,
        value_name = "URI",
        default_value = "https://opendev.org/openstack/openstack-helm-images/obgp-build"
    )]
    pub builder_id: String,
    #[command(flatten)]
    pub publish: PublishArgs,
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err("a label is KEY=VALUE".to_string()),
    }
}

/// What goes beside an image that is published, and who is told.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Publishing")]
pub struct PublishArgs {
    /// Sign the image and attest its SBOMs: a key of cosign's or PKCS#8 (PEM), FILE or env://VAR (password: COSIGN_PASSWORD), or
    /// one in a token, pkcs11:… (PIN: COSIGN_PKCS11_PIN)
    #[arg(long, value_name = "KEY")]
    pub sign: Option<KeySource>,
    /// Write the list of what was pushed, for zuul_return
    #[arg(long, value_name = "FILE")]
    pub zuul_artifacts: Option<PathBuf>,
}

/// Who signs what a registry has.
#[derive(Debug, Args)]
pub struct SigningArgs {
    /// A key of cosign's or PKCS#8 (PEM), FILE or env://VAR (password: COSIGN_PASSWORD), or one in a token, pkcs11:…
    /// (PIN: COSIGN_PKCS11_PIN)
    #[arg(long, value_name = "KEY")]
    #[cfg_attr(not(feature = "keyless"), arg(required = true))]
    #[cfg_attr(
        feature = "keyless",
        arg(required_unless_present = "keyless", conflicts_with = "keyless")
    )]
    pub key: Option<KeySource>,
    #[cfg(feature = "keyless")]
    #[command(flatten)]
    pub keyless: KeylessArgs,
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

An image in a registry is read from there, every platform, and nothing of it is stored.")]
pub struct VerifyArgs {
    /// `oci:DIR[:TAG]`, `docker:NAME`, or `HOST/PATH:TAG` of a registry
    #[arg(value_name = "IMAGE")]
    pub image: String,
    #[command(flatten)]
    pub expect: ExpectArgs,
    /// Verify signatures and attestations too, by this public key: a PEM in FILE or env://VAR, or a token's, pkcs11:…
    #[arg(long, value_name = "PUB")]
    pub key: Option<KeySource>,
    /// Signatures alone: contents and attestations are not read
    #[arg(long, requires = "key")]
    pub signatures_only: bool,
}

#[derive(Debug, Args)]
pub struct ExpectArgs {
    /// The distro it must be [default: what its labels and os-release say]
    #[arg(long, value_name = "DISTRO")]
    pub distro: Option<String>,
    /// Only these platforms
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',')]
    pub platform: Vec<Platform>,
    /// The contract [default: images/NAME.toml beside build.toml]
    #[arg(long, value_name = "FILE")]
    pub contract: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  obgp-build diff oci:old/oci:7.0.0-ubuntu_noble oci:dist/oci:7.0.0-ubuntu_noble
  obgp-build diff quay.io/team/ovn-bgp-agent:7.0.0-ubuntu_noble oci:dist/oci:7.0.0-ubuntu_noble

Exits 0 whether or not they differ.")]
pub struct DiffArgs {
    /// `oci:DIR[:TAG]`, `docker:NAME`, or `HOST/PATH:TAG` of a registry
    #[arg(value_name = "IMAGE")]
    pub old: String,
    #[arg(value_name = "IMAGE")]
    pub new: String,
    /// Only these platforms [default: those that both have]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',')]
    pub platform: Vec<Platform>,
}

/// What an image is judged by before it is published.
#[derive(Clone, Debug, Default, Args)]
pub struct JudgeArgs {
    /// The distro it must be [default: what its labels and os-release say]
    #[arg(long, value_name = "DISTRO")]
    pub distro: Option<String>,
    /// The contract [default: images/NAME.toml beside build.toml]
    #[arg(long, value_name = "FILE")]
    pub contract: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  obgp-build push oci:dist/oci:7.0.0-ubuntu_noble quay.io/team/ovn-bgp-agent
  obgp-build push oci:dist/oci:7.0.0-ubuntu_noble localhost:5000/agent:test quay.io/team/agent:7.0.0 --json

The contract is verified first; an image that breaks it is not published. Blobs that a registry has are not sent again,
so a push that was stopped goes on where it was. Tags that build.toml calls immutable are not overwritten.")]
pub struct PushArgs {
    /// `oci:DIR[:TAG]`
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Where to: `HOST/PATH[:TAG]`; without TAG, that of the layout
    #[arg(value_name = "REF", required = true)]
    pub destinations: Vec<String>,
    #[command(flatten)]
    pub judge: JudgeArgs,
    #[command(flatten)]
    pub publish: PublishArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  COSIGN_PASSWORD=… obgp-build sign quay.io/team/agent@sha256:… --key cosign.key
  obgp-build sign quay.io/team/agent:7.0.0-ubuntu_noble --key env://SIGNING_KEY
  COSIGN_PKCS11_PIN=… obgp-build sign quay.io/team/agent:7.0.0-ubuntu_noble \\
      --key 'pkcs11:token=release;object=agent?module-path=/usr/lib/softhsm/libsofthsm2.so'

The index and every manifest that it names are signed, as cosign 2 (tag sha256-….sig) and cosign 3 (bundle, a referrer) look
for it. Contents are not looked at: push and promote do that. Signing again changes nothing; a token signs anew, though.

A token's key is named by a PKCS#11 URI (RFC 7512): token=, serial=, manufacturer=, model=, slot-id= say which token, object=
and id= which key, as far as there are several. Its module (the driver) is module-path= or COSIGN_PKCS11_MODULE_PATH, its PIN
COSIGN_PKCS11_PIN or pin-source=file:/PATH; with pin-value= whoever lists processes sees it.")]
pub struct SignArgs {
    /// `HOST/PATH@DIGEST` or `HOST/PATH:TAG`
    #[arg(value_name = "REF")]
    pub reference: String,
    #[command(flatten)]
    pub signing: SigningArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  obgp-build attest quay.io/team/agent:7.0.0-ubuntu_noble --key cosign.key
  obgp-build attest quay.io/team/agent@sha256:… --key cosign.key --predicate scan.json --type https://example.org/scan/v1

Without --predicate: the SBOM of each platform, SPDX and CycloneDX, read from its layers. `cosign verify-attestation` reads them.")]
pub struct AttestArgs {
    /// `HOST/PATH@DIGEST` or `HOST/PATH:TAG`
    #[arg(value_name = "REF")]
    pub reference: String,
    #[command(flatten)]
    pub signing: SigningArgs,
    /// A predicate about the index (JSON) instead of the SBOMs
    #[arg(long, value_name = "FILE", requires = "predicate_type")]
    pub predicate: Option<PathBuf>,
    /// The predicate's type, a URI
    #[arg(long = "type", value_name = "URI", requires = "predicate")]
    pub predicate_type: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  obgp-build promote quay.io/team/agent:change_1234_7.0.0-ubuntu_noble quay.io/team/agent:7.0.0-ubuntu_noble
  obgp-build promote localhost:5000/agent@sha256:… quay.io/team/agent:7.0.0 docker.io/team/agent:7.0.0

The source is resolved to its digest once, and verified by reading its layers. Manifests, blobs, signatures, attestations
and referrers follow it; within a registry no blob is moved.")]
pub struct PromoteArgs {
    /// `HOST/PATH:TAG` or `HOST/PATH@DIGEST`
    #[arg(value_name = "SRC")]
    pub source: String,
    /// Where to: `HOST/PATH[:TAG]`; without TAG, that of SRC
    #[arg(value_name = "DST", required = true)]
    pub destinations: Vec<String>,
    #[command(flatten)]
    pub judge: JudgeArgs,
    /// First verify the signatures by this public key: a PEM in FILE or env://VAR, or a token's, pkcs11:…
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

A tag's age is that of its last push, of which pushes to temporary tags (build.toml, [[registries]]) leave a record beside
the image. A tag of unknown age stays. Only tags are removed: an image that another tag stands for is not touched, and
what no tag reaches is left to the registry's garbage collection.")]
pub struct PruneArgs {
    /// `HOST/PATH`
    #[arg(value_name = "REPO")]
    pub repository: String,
    /// Only tags that begin with this
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub prefix: String,
    /// Only tags pushed at least so long ago: `7d`, `36h` [default: of any age]
    #[arg(long, value_name = "AGE")]
    pub older_than: Option<jiff::Span>,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  obgp-build sbom oci:dist/oci:7.0.0-ubuntu_noble --platform linux/amd64 --output sbom.spdx.json
  obgp-build sbom oci:dist/oci:7.0.0-ubuntu_noble --format cyclonedx-json --output dist

The same image gives the same bytes: dates and identifiers come from the image.")]
pub struct SbomArgs {
    /// `oci:DIR[:TAG]` or `docker:NAME`
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// SPDX 2.3 or CycloneDX 1.6
    #[arg(long, value_enum, default_value_t = SbomFormat::SpdxJson)]
    pub format: SbomFormat,
    /// Only these platforms
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',')]
    pub platform: Vec<Platform>,
    /// A file, or a directory for a file per platform; `-` is stdout [default: -]
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
    /// Where the OCI layout goes
    #[arg(long, value_name = "DIR", default_value = "dist")]
    pub output: PathBuf,
    /// Tag in the layout [default: the tag of NAME]
    #[arg(long, value_name = "TAG")]
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
    #[arg(value_name = "DISTRO")]
    pub distro: String,
}

#[derive(Debug, Args)]
pub struct BootstrapArgs {
    /// A distro of build.toml
    #[arg(value_name = "DISTRO")]
    pub distro: String,
    /// A platform; repeatable, or a comma list [default: from build.toml]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',')]
    pub platform: Vec<Platform>,
    /// Make it again though one is there
    #[arg(long)]
    pub refresh: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  obgp-build lock                                      every distro of build.toml
  obgp-build lock --distro ubuntu_jammy --project-ref 6.0.0
  obgp-build lock --constraints https://releases.openstack.org/constraints/upper/2026.1 --project-ref 6.0.0")]
pub struct LockArgs {
    /// A distro of build.toml; repeatable [default: all]
    #[arg(long, value_name = "DISTRO", value_delimiter = ',')]
    pub distro: Vec<String>,
    /// The agent's ref [default: from build.toml]
    #[arg(long, value_name = "REF", env = "PROJECT_REF")]
    pub project_ref: Option<String>,
    /// Upper constraints instead of those kept in images/, which they replace
    #[arg(long, value_name = "FILE|URL")]
    pub constraints: Option<String>,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Where a build would put its layout
    #[arg(long, value_name = "DIR", default_value = "dist")]
    pub output: PathBuf,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}
