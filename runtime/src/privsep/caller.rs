//! Checks that the caller is the agent's user, through sudo.

use std::ffi::OsString;
use std::io;

use super::trusted::{self, PathError};

/// The name of the agent's user, if it is not [`USER`]. Part of the image and owned by root.
const USER_FILE: &str = "/etc/obgp-runtime/agent-user";
const USER: &str = "ovn-bgp-agent";
const PASSWD: &str = "/etc/passwd";

#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    #[error("not run as root; use `sudo obgp-runtime privsep`")]
    NotRoot,
    #[error("not called by sudo: SUDO_UID is not set or not a number")]
    NotSudo,
    #[error("called by uid {uid}, not by the agent's user {name} (uid {expected})")]
    WrongUser { uid: u32, name: String, expected: u32 },
    #[error("{PASSWD} has no user {name}, the agent's user")]
    NoUser { name: String },
    #[error("{USER_FILE} contains {0:?}, which is not a user name")]
    Name(String),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("cannot read {path}")]
    Read { path: &'static str, source: io::Error },
}

#[derive(Debug)]
pub struct Caller {
    pub uid: u32,
}

impl Caller {
    /// `sudo_uid` is the variable that sudo always sets, whatever the caller's environment contains.
    pub fn from_sudo(sudo_uid: Option<OsString>) -> Result<Self, CallerError> {
        if !rustix::process::getuid().is_root() || !rustix::process::geteuid().is_root() {
            return Err(CallerError::NotRoot);
        }
        let digits = sudo_uid.and_then(|value| value.into_string().ok());
        let uid = digits.as_deref().and_then(number).ok_or(CallerError::NotSudo)?;
        let name = user_name()?;
        trusted::system_file(PASSWD)?;
        let expected = uid_of(&name, &read(PASSWD)?);
        match expected {
            // If the user of that name had uid 0, the check would accept root.
            Some(expected) if expected == uid && uid != 0 => Ok(Self { uid }),
            Some(expected) => Err(CallerError::WrongUser { uid, name, expected }),
            None => Err(CallerError::NoUser { name }),
        }
    }
}

fn user_name() -> Result<String, CallerError> {
    match trusted::system_file(USER_FILE) {
        Ok(()) => {}
        Err(error) if error.is_not_found() => return Ok(USER.to_string()),
        Err(error) => return Err(error.into()),
    }
    let text = read(USER_FILE)?;
    let name = text.trim_end();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(CallerError::Name(name.chars().take(64).collect()));
    }
    Ok(name.to_string())
}

fn read(path: &'static str) -> Result<String, CallerError> {
    std::fs::read_to_string(path).map_err(|source| CallerError::Read { path, source })
}

/// passwd(5): name, password, uid, … The first entry of a name counts, as for getpwnam.
fn uid_of(name: &str, passwd: &str) -> Option<u32> {
    let mut entries = passwd.lines().map(|line| line.split(':'));
    let mut entry = entries.find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    entry.nth(1).and_then(number)
}

/// Digits only: `str::parse` would accept `+1`.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uid_is_read_from_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\n\
                      ovn-bgp-agent-2:x:7:7::/:/bin/false\n\
                      ovn-bgp-agent:x:42494:42494:OVN BGP Agent:/var/lib/ovn-bgp-agent:/usr/sbin/nologin\n\
                      ovn-bgp-agent:x:0:0::/:/bin/sh\n";
        assert_eq!(uid_of("ovn-bgp-agent", passwd), Some(42494));
        assert_eq!(uid_of("ovn-bgp", passwd), None);
        assert_eq!(uid_of("x", "x:y:+3:0"), None);
        assert_eq!(uid_of("x", "x:y::0"), None);
        assert_eq!(uid_of("x", "x:y:4294967296:0"), None);
        assert_eq!(uid_of("x", "x"), None);
    }
}
