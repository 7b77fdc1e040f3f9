//! Selects what to build and with which builders: the flags shared by `build` and `plan`.

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::complete;
use crate::config::cache::{Cache, CacheEntry};
use crate::config::{BootstrapMode, RuntimeBinary};
use crate::oci::{ImageReference, Platform, name_part};
use crate::plan::settings::TargetRequest;

/// The targets to build.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "What to build")]
pub struct TargetArgs {
    /// Distro of build.toml, or `all`; repeatable
    #[arg(long, value_name = "DISTRO", env = "DISTRO", value_delimiter = ',', add = ArgValueCandidates::new(complete::distros_or_all))]
    pub distro: Vec<String>,
    /// Platform; repeatable or comma-separated [default: from build.toml]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', add = ArgValueCandidates::new(complete::platforms))]
    pub platform: Vec<Platform>,
    /// The agent: a version (from PyPI), or a branch, tag or commit (from git)
    #[arg(long, value_name = "REF", env = "PROJECT_REF")]
    pub project_ref: Option<String>,
    /// Registry in the image's name
    #[arg(long, value_name = "HOST[:PORT]", env = "REGISTRY", value_parser = name_part::registry)]
    pub registry: Option<String>,
    /// Path in the image's name
    #[arg(long, value_name = "PATH", env = "IMAGE_PREFIX", value_parser = name_part::path)]
    pub image_prefix: Option<String>,
    /// Tag of the image [default: REF-DISTRO]
    #[arg(long, value_name = "TAG", value_parser = name_part::tag)]
    pub tag: Option<String>,
    /// Use this base image instead of the distro's own
    #[arg(long, value_name = "REF", value_parser = image)]
    pub base: Option<String>,
    /// When to build the base image from the distro's package archive
    ///
    /// `auto` builds it if neither the engine nor the registry has it.
    #[arg(long, value_enum, default_value_t = BootstrapMode::Auto)]
    pub bootstrap: BootstrapMode,
    /// Use this compiled obgp-runtime for a platform; repeatable
    ///
    /// It must be a static program. Default: the build compiles it.
    #[arg(long, value_name = "PLATFORM=FILE")]
    pub runtime_binary: Vec<RuntimeBinary>,
    /// Fail instead of creating or changing a lock file
    #[arg(long)]
    pub locked: bool,
    /// Use only this builder of build.toml; repeatable [default: all]
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::builders))]
    pub builder: Vec<String>,
    /// Import build cache from this source; repeatable
    ///
    /// The syntax is buildx's: type=registry,ref=HOST/PATH:TAG or type=local,src=DIR.
    #[arg(long, value_name = "CACHE")]
    pub cache_from: Vec<CacheEntry>,
    /// Export build cache to this destination; repeatable
    ///
    /// The syntax is buildx's: type=registry,ref=HOST/PATH:{distro}-{arch}[,mode=max],
    /// type=local,dest=DIR/{distro}-{arch} or type=inline.
    #[arg(long, value_name = "CACHE")]
    pub cache_to: Vec<CacheEntry>,
}

/// The name of an image, as Docker reads it.
fn image(text: &str) -> Result<String, String> {
    ImageReference::familiar(text).map(|_| text.to_string())
}

impl From<&TargetArgs> for TargetRequest {
    fn from(args: &TargetArgs) -> Self {
        let args = args.clone();
        Self {
            distros: args.distro,
            platforms: args.platform,
            project_ref: args.project_ref,
            registry: args.registry,
            image_prefix: args.image_prefix,
            tag: args.tag,
            base: args.base,
            bootstrap: args.bootstrap,
            runtime_binaries: args.runtime_binary,
            locked: args.locked,
            builders: args.builder,
            cache: Cache {
                from: args.cache_from,
                to: args.cache_to,
            },
        }
    }
}
