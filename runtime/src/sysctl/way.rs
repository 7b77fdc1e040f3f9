//! The two places where the network's sysctls may be writable, and whether they are.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, StatVfsMountFlags};
use rustix::io::Errno;

/// The container's own.
pub const OWN: &str = "/proc/sys/net";
/// Where the node's `/proc/sys/net` is mounted.
pub const MOUNT: &str = "/run/obgp/sysctl";
/// Every kernel has it, and everybody may read it.
const PROBE: &str = "ipv4/ip_forward";
/// Container engines' AppArmor profiles, which forbid writing to `/proc/sys`, but not to a mount elsewhere.
const PROFILES: [&str; 4] = ["docker-default", "cri-containerd", "crio-default", "containers-default"];

/// Why neither place is writable.
#[derive(Debug)]
pub struct Access {
    own: String,
    mount: String,
    /// The mount is there, but this process may not write to it.
    mounted: bool,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{OWN} {}; {MOUNT} {}", self.own, self.mount)
    }
}

impl Access {
    pub fn help(&self) -> String {
        match self.mounted {
            true => "write it as root with NET_ADMIN, as the agent's root helper does".into(),
            false => format!(
                "mount the node's {OWN} at {MOUNT}, writable (docker: --volume {OWN}:{MOUNT}; pod: a hostPath volume)"
            ),
        }
    }
}

/// Whether root in this container can write the network's sysctls, as far as another user can see.
pub fn check() -> Result<(), Access> {
    let Err(own) = mounted_writable(OWN).and_then(|()| confined()) else {
        return Ok(());
    };
    mounted_writable(MOUNT).map_err(|mount| Access {
        own,
        mount,
        mounted: false,
    })
}

fn mounted_writable(place: &str) -> Result<(), String> {
    let failed = |error: Errno| match error {
        Errno::NOENT | Errno::NOTDIR => "is not there".to_string(),
        error => format!("is not readable: {}", io::Error::from(error)),
    };
    let is_proc = rustix::fs::statfs(place).map_err(failed)?.f_type == PROC_SUPER_MAGIC;
    if !is_proc || !Path::new(place).join(PROBE).exists() {
        return Err(format!("is not a mount of {OWN}"));
    }
    let flags = rustix::fs::statvfs(place).map_err(failed)?.f_flag;
    match flags.contains(StatVfsMountFlags::RDONLY) {
        true => Err("is read-only".into()),
        false => Ok(()),
    }
}

fn confined() -> Result<(), String> {
    let profile = std::fs::read_to_string("/proc/self/attr/apparmor/current")
        .or_else(|_| std::fs::read_to_string("/proc/self/attr/current"))
        .unwrap_or_default();
    let profile = profile.trim_end_matches(['\0', '\n']);
    match forbids(profile) {
        true => Err(format!("is closed by the AppArmor profile {profile}")),
        false => Ok(()),
    }
}

/// A process's label, as in `docker-default (enforce)`.
fn forbids(profile: &str) -> bool {
    profile.ends_with("(enforce)") && PROFILES.iter().any(|name| profile.starts_with(name))
}

/// The value of a key, without its last newline. `path` is relative to `net`.
pub fn read(path: &str) -> io::Result<String> {
    let mut text = String::new();
    let file = open(OWN, path, OFlags::RDONLY).or_else(|error| match error.kind() {
        ErrorKind::PermissionDenied => open(MOUNT, path, OFlags::RDONLY),
        _ => Err(error),
    });
    file?.read_to_string(&mut text)?;
    text.truncate(text.trim_end_matches('\n').len());
    Ok(text)
}

/// Writes by the first place that admits it.
pub fn write(path: &str, value: &str) -> io::Result<Result<(), Access>> {
    let attempt = |place| open(place, path, OFlags::WRONLY)?.write_all(value.as_bytes());
    let own = match attempt(OWN) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            error
        }
        result => return result.map(Ok),
    };
    let mount = match attempt(MOUNT) {
        // The kernel does not take the value.
        Err(error) if error.kind() == ErrorKind::InvalidInput => return Err(error),
        Err(error) => error,
        Ok(()) => return Ok(Ok(())),
    };
    let state = mounted_writable(MOUNT);
    let mounted = state.is_ok();
    Ok(Err(Access {
        own: format!("is closed: {own}"),
        mount: state.err().unwrap_or_else(|| format!("is closed: {mount}")),
        mounted,
    }))
}

/// A file of the kernel's, reached without a link: whatever is mounted there, nothing else is opened.
fn open(place: &str, path: &str, access: OFlags) -> io::Result<File> {
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(CWD, place, step, Mode::empty())?;
    let (directories, name) = path.rsplit_once('/').unwrap_or((".", path));
    for part in directories.split('/') {
        at = rustix::fs::openat(&at, part, step | OFlags::NOFOLLOW, Mode::empty())?;
    }
    // Before a file is opened: opening one is enough to change what a device or a FIFO does.
    if rustix::fs::fstatfs(&at)?.f_type != PROC_SUPER_MAGIC {
        return Err(ErrorKind::Unsupported.into());
    }
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&at, name, flags, Mode::empty())?;
    match rustix::fs::fstatfs(&file)?.f_type == PROC_SUPER_MAGIC {
        true => Ok(file.into()),
        false => Err(ErrorKind::Unsupported.into()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_engines_profiles_close_proc_sys() {
        for profile in [
            "docker-default (enforce)",
            "cri-containerd.apparmor.d (enforce)",
            "containers-default-0.57 (enforce)",
        ] {
            assert!(super::forbids(profile), "{profile}");
        }
        for profile in ["", "unconfined", "docker-default (complain)", "site-agent (enforce)"] {
            assert!(!super::forbids(profile), "{profile}");
        }
    }
}
