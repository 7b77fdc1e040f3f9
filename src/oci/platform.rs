//! Platforms, and their names in OCI, Debian, ELF and the kernel.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The supported processor architectures, with OCI's (Go's) names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    pub const ALL: [Architecture; 2] = [Architecture::Amd64, Architecture::Arm64];

    /// The architecture of this program, if supported.
    pub fn host() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// OCI's name, which is also Debian's for these two.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The name in the kernel and GNU tools.
    pub fn gnu_name(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// `e_machine` in ELF headers (EM_X86_64, EM_AARCH64).
    pub fn elf_machine(self) -> u16 {
        match self {
            Self::Amd64 => 62,
            Self::Arm64 => 183,
        }
    }
}

/// An OCI platform. The OS is always Linux, so every value can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Platform(pub Architecture);

impl Platform {
    pub fn architecture(self) -> Architecture {
        self.0
    }

    /// `linux-arm64`: the form for file names and tags.
    pub fn slug(self) -> String {
        format!("linux-{}", self.0.name())
    }

    /// The `platform` object of an OCI descriptor.
    pub fn to_oci(self) -> oci_spec::image::Platform {
        use oci_spec::image::{Arch, Os, PlatformBuilder};
        PlatformBuilder::default()
            .os(Os::Linux)
            .architecture(match self.0 {
                Architecture::Amd64 => Arch::Amd64,
                Architecture::Arm64 => Arch::ARM64,
            })
            .build()
            .expect("os and architecture are the only required fields")
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "linux/{}", self.0.name())
    }
}

impl From<Platform> for String {
    fn from(p: Platform) -> String {
        p.to_string()
    }
}

impl TryFrom<String> for Platform {
    type Error = UnknownPlatform;
    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl FromStr for Platform {
    type Err = UnknownPlatform;

    /// Accepts `linux/arm64` and common spellings: `arm64`, `linux/arm64/v8`, `linux/x86_64`, `aarch64`.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let arch = s.strip_prefix("linux/").unwrap_or(s);
        match arch {
            "amd64" | "x86_64" => Ok(Self(Architecture::Amd64)),
            "arm64" | "arm64/v8" | "aarch64" => Ok(Self(Architecture::Arm64)),
            _ => Err(UnknownPlatform(s.to_string())),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("unknown platform {0:?}: supported are linux/amd64 and linux/arm64")]
pub struct UnknownPlatform(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_spellings_are_one_platform() {
        for s in ["linux/arm64", "arm64", "linux/arm64/v8", "aarch64"] {
            assert_eq!(s.parse::<Platform>().unwrap().to_string(), "linux/arm64");
        }
        assert!("linux/riscv64".parse::<Platform>().is_err());
        assert!("windows/amd64".parse::<Platform>().is_err());
    }
}
