//! Parses `--runtime-binary PLATFORM=FILE`: an obgp-runtime that is already compiled.

use std::path::PathBuf;
use std::str::FromStr;

use crate::oci::Platform;

/// `PLATFORM=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeBinary {
    pub platform: Platform,
    pub path: PathBuf,
}

impl FromStr for RuntimeBinary {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (platform, path) = text
            .split_once('=')
            .filter(|(_, path)| !path.is_empty())
            .ok_or("expected PLATFORM=FILE, for example linux/arm64=obgp-runtime-arm64")?;
        Ok(Self {
            platform: platform.parse().map_err(|e| format!("{e}"))?,
            path: path.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wants_both_halves() {
        for text in ["linux/amd64", "linux/amd64=", "=x", "plan9/mips=x"] {
            assert!(text.parse::<RuntimeBinary>().is_err(), "{text}");
        }
    }
}
