//! Checks the requirements of bootstrapping on this machine: mmdebstrap, emulation for a foreign platform, and user
//! namespaces without root.

use std::ffi::OsStr;
use std::fs;

use super::BaseError;
use crate::oci::{Architecture, Platform};
use crate::util::files::{find_program, find_program_in};

/// Whether this machine can build a base for `platform`.
pub(super) fn check(platform: Platform) -> Result<(), BaseError> {
    if find_program("mmdebstrap").is_none() {
        return Err(BaseError::NoMmdebstrap);
    }
    if let Some(lacking) = lacking_without_root() {
        return Err(BaseError::NoUidmap { lacking });
    }
    if Architecture::host() == Some(platform.architecture()) || is_emulated(platform.architecture()) {
        return Ok(());
    }
    Err(BaseError::NoEmulation { platform })
}

/// Whether the kernel runs programs of `architecture` through an interpreter.
fn is_emulated(architecture: Architecture) -> bool {
    // e_machine, little-endian, is at offset 18 of the magic, which an entry prints in hexadecimal.
    let machine = hex::encode(architecture.elf_machine().to_le_bytes());
    let Ok(entries) = fs::read_dir("/proc/sys/fs/binfmt_misc") else {
        return false;
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .any(|text| {
            text.starts_with("enabled\n")
                && text.lines().any(|line| {
                    line.strip_prefix("magic ")
                        .is_some_and(|magic| magic.starts_with("7f454c46") && magic.get(36..40) == Some(&machine))
                })
        })
}

/// Without root, mmdebstrap uses a user namespace, whose IDs these programs map. Returns the missing ones.
pub fn lacking_without_root() -> Option<String> {
    match rustix::process::geteuid().is_root() {
        true => None,
        false => lacking_in(&std::env::var_os("PATH").unwrap_or_default()),
    }
}

fn lacking_in(path: &OsStr) -> Option<String> {
    let programs = ["newuidmap", "newgidmap"].into_iter();
    let missing: Vec<&str> = programs
        .filter(|program| find_program_in(path, program).is_none())
        .collect();
    (!missing.is_empty()).then(|| missing.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_without_root_lacks_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().as_os_str();
        assert_eq!(lacking_in(path).as_deref(), Some("newuidmap and newgidmap"));
        fs::write(dir.path().join("newuidmap"), "").unwrap();
        assert_eq!(lacking_in(path).as_deref(), Some("newgidmap"));
        fs::write(dir.path().join("newgidmap"), "").unwrap();
        assert_eq!(lacking_in(path), None);
    }
}
