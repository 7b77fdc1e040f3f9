//! What is to be built, and by whom: the flags that `build` and `plan` share.

use clap::Args;

use crate::config::cache::{Cache, CacheEntry};
use crate::config::{BootstrapMode, RuntimeBinary};
use crate::oci::Platform;
use crate::plan::settings::TargetRequest;

/// What is to be built.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "What to build")]
pub struct TargetArgs {
    /// A distro of build.toml; repeatable, or `all`
    #[arg(long, value_name = "DISTRO", env = "DISTRO", value_delimiter = ',')]
    pub distro: Vec<String>,
    /// A platform; repeatable, or a comma list [default: from build.toml]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',')]
    pub platform: Vec<Platform>,
    /// The agent: a version (from PyPI), or a branch, tag or commit (from git)
    #[arg(long, value_name = "REF", env = "PROJECT_REF")]
    pub project_ref: Option<String>,
    /// Registry of the image's name
    #[arg(long, value_name = "HOST[:PORT]", env = "REGISTRY")]
    pub registry: Option<String>,
    /// Path of the image's name in the registry
    #[arg(long, value_name = "PATH", env = "IMAGE_PREFIX")]
    pub image_prefix: Option<String>,
    /// Tag of the image [default: REF-DISTRO]
    #[arg(long, value_name = "TAG")]
    pub tag: Option<String>,
    /// Base image instead of the distro's own
    #[arg(long, value_name = "REF")]
    pub base: Option<String>,
    /// Make the base from the distro's archive: when the engine and the registry have none, always, or never
    #[arg(long, value_enum, default_value_t = BootstrapMode::Auto)]
    pub bootstrap: BootstrapMode,
    /// obgp-runtime for a platform, compiled already (a static program); repeatable [default: compiled in the build]
    #[arg(long, value_name = "PLATFORM=FILE")]
    pub runtime_binary: Vec<RuntimeBinary>,
    /// Fail rather than make or change a lock
    #[arg(long)]
    pub locked: bool,
    /// Only this builder of build.toml; repeatable [default: all]
    #[arg(long, value_name = "NAME")]
    pub builder: Vec<String>,
    /// Take cached steps from there too, as buildx has it: type=registry,ref=HOST/PATH:TAG or type=local,src=DIR; repeatable
    #[arg(long, value_name = "CACHE")]
    pub cache_from: Vec<CacheEntry>,
    /// Leave cached steps there: type=registry,ref=HOST/PATH:{distro}-{arch}[,mode=max], type=local,dest=DIR/{distro}-{arch} or type=inline; repeatable
    #[arg(long, value_name = "CACHE")]
    pub cache_to: Vec<CacheEntry>,
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
