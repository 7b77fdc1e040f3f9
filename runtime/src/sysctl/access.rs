//! The two mounts through which network sysctls may be writable: checks, reads and writes.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, StatVfsMountFlags};
use rustix::io::Errno;

/// The container's own mount.
pub const OWN: &str = "/proc/sys/net";
/// The mount of the node's `/proc/sys/net`.
pub const MOUNT: &str = "/run/obgp/sysctl";
/// A key that exists in every kernel and is readable for all users.
const PROBE: &str = "ipv4/ip_forward";
/// AppArmor profiles of container engines. They forbid writes below `/proc/sys`, but not through another mount.
const PROFILES: [&str; 4] = ["docker-default", "cri-containerd", "crio-default", "containers-default"];

/// Why neither mount is writable.
#[derive(Debug)]
pub struct NotWritable {
    own: String,
    mount: String,
    /// [`MOUNT`] exists and is writable, but not for this process.
    mounted: bool,
}

impl fmt::Display for NotWritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{OWN} {}; {MOUNT} {}", self.own, self.mount)
    }
}

impl NotWritable {
    pub fn help(&self) -> String {
        match self.mounted {
            true => "run it as root with NET_ADMIN, as the agent's root helper does".into(),
            false => format!(
                "mount the node's {OWN} at {MOUNT}, writable (docker: --volume {OWN}:{MOUNT}; pod: a hostPath volume)"
            ),
        }
    }
}

/// Whether root in this container can write network sysctls, as far as an unprivileged process can tell.
pub fn check() -> Result<(), NotWritable> {
    let Err(own) = mounted_writable(OWN).and_then(|()| check_apparmor()) else {
        return Ok(());
    };
    mounted_writable(MOUNT).map_err(|mount| NotWritable {
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

fn check_apparmor() -> Result<(), String> {
    let profile = std::fs::read_to_string("/proc/self/attr/apparmor/current")
        .or_else(|_| std::fs::read_to_string("/proc/self/attr/current"))
        .unwrap_or_default();
    let profile = profile.trim_end_matches(['\0', '\n']);
    match forbids(profile) {
        true => Err(format!("is not writable under the AppArmor profile {profile}")),
        false => Ok(()),
    }
}

/// `profile` is a process label such as `docker-default (enforce)`.
fn forbids(profile: &str) -> bool {
    profile.ends_with("(enforce)") && PROFILES.iter().any(|name| profile.starts_with(name))
}

/// The value of a key without its final newline. `path` is relative to `net`.
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

/// Writes through the first mount that permits it.
pub fn write(path: &str, value: &str) -> io::Result<Result<(), NotWritable>> {
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
        // The kernel rejects the value.
        Err(error) if error.kind() == ErrorKind::InvalidInput => return Err(error),
        Err(error) => error,
        Ok(()) => return Ok(Ok(())),
    };
    let state = mounted_writable(MOUNT);
    let mounted = state.is_ok();
    Ok(Err(NotWritable {
        own: format!("is not writable: {own}"),
        mount: state.err().unwrap_or_else(|| format!("is not writable: {mount}")),
        mounted,
    }))
}

/// Opens a file of procfs without following links, whatever is mounted at `place`.
fn open(place: &str, path: &str, access: OFlags) -> io::Result<File> {
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(CWD, place, step, Mode::empty())?;
    let (directories, name) = path.rsplit_once('/').unwrap_or((".", path));
    for part in directories.split('/') {
        at = rustix::fs::openat(&at, part, step | OFlags::NOFOLLOW, Mode::empty())?;
    }
    // Before the file is opened, because opening a device or a FIFO can already have an effect.
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
    fn the_profiles_of_container_engines_forbid_writes() {
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
