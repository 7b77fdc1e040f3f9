//! Reduces the process to what the helper's context needs, then executes the helper.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::arguments::Configuration;
use super::context::Context;
use super::trusted::{self, PathError};
use super::{Checked, arguments::Request};

/// The distro's Python, the same path in all distros of the image. -I ignores PYTHON* variables, the script's directory and the user's
/// packages, but not /usr/local/lib/python3.X/dist-packages.
const INTERPRETER: &str = "/usr/bin/python3";
const ISOLATED: &str = "-I";
/// oslo.privsep's console script.
const HELPER: &str = "/usr/local/bin/privsep-helper";
/// The helper's whole environment. It executes `sysctl`, `ip` and `ovs-vsctl` through PATH; Python needs a UTF-8 locale.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LC_ALL", "C.UTF-8"),
];
const LAST_STDIO: RawFd = 2;

#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(
        "the container does not have {missing}, which {context} needs; \
         add it to the container's capabilities (securityContext.capabilities.add)"
    )]
    Capabilities { missing: String, context: &'static str },
    #[error("cannot {doing}: {source}")]
    System { doing: &'static str, source: io::Error },
    #[error("cannot start {INTERPRETER}: {0}")]
    Exec(io::Error),
}

/// Returns only on failure. The process is then partly confined and must end.
pub fn exec(checked: Checked) -> Result<Infallible, ConfineError> {
    let Checked { request, socket } = checked;
    trusted::system_file(INTERPRETER)?;
    trusted::system_file(HELPER)?;

    rustix::process::chdir("/").map_err(system("change to /"))?;
    // oslo.privsep sets its own umask later.
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, none).map_err(system("forbid core dumps"))?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(system("open /dev/null"))?;
    rustix::stdio::dup2_stdin(&null).map_err(system("replace stdin"))?;
    close_inherited_files()?;
    rustix::io::fcntl_setfd(&socket, FdFlags::empty()).map_err(system("keep the socket open"))?;
    rustix::thread::set_thread_groups(&[]).map_err(system("drop supplementary groups"))?;
    limit_capabilities(request.context)?;

    let mut command = Command::new(INTERPRETER);
    command.args([ISOLATED, HELPER]).args(helper_arguments(&request));
    command
        .arg("--privsep_sock_path")
        .arg(format!("/proc/self/fd/{}", socket.as_raw_fd()));
    command.env_clear().envs(ENVIRONMENT);
    Err(ConfineError::Exec(command.exec()))
}

fn helper_arguments(request: &Request) -> Vec<&str> {
    let mut arguments = Vec::new();
    for configuration in &request.configuration {
        match configuration {
            Configuration::File(path) => arguments.extend(["--config-file", path.as_str()]),
            Configuration::Directory(path) => arguments.extend(["--config-dir", path.as_str()]),
        }
    }
    arguments.extend(["--privsep_context", request.context.name()]);
    arguments
}

/// sudo closes inherited files too, but that depends on its settings.
fn close_inherited_files() -> Result<(), ConfineError> {
    let entries = std::fs::read_dir("/proc/self/fd").map_err(system("list open files in /proc"))?;
    for entry in entries {
        let entry = entry.map_err(system("list open files in /proc"))?;
        let number: Option<RawFd> = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(number) = number.filter(|number| *number > LAST_STDIO) else {
            continue;
        };
        // SAFETY: the kernel has just listed the descriptor as open. It may be the one of the listing itself, which stays open until
        // the loop ends. Only a flag is changed.
        let open = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_setfd(open, FdFlags::CLOEXEC).map_err(system("close inherited files"))?;
    }
    Ok(())
}

fn limit_capabilities(context: Context) -> Result<(), ConfineError> {
    let wanted = context.capabilities();
    let held = rustix::thread::capabilities(None).map_err(system("read capabilities"))?;
    let missing = wanted - held.permitted;
    if !missing.is_empty() {
        return Err(ConfineError::Capabilities {
            missing: names(missing),
            context: context.name(),
        });
    }
    // A program that root executes gets the capabilities of the bounding set. Without SETPCAP the set cannot be reduced; then it is
    // what the container has, as for any other root process in it.
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for capability in (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
            let known = rustix::thread::capability_is_in_bounding_set(capability);
            if known == Ok(true) && !wanted.contains(capability) {
                rustix::thread::remove_capability_from_bounding_set(capability)
                    .map_err(system("reduce the capability bounding set"))?;
            }
        }
    }
    // Fails on kernels before 4.3, which have no ambient set.
    let _ = rustix::thread::clear_ambient_capability_set();
    let limited = CapabilitySets {
        effective: wanted,
        permitted: wanted,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, limited).map_err(system("drop capabilities"))?;
    if context.no_new_privileges() {
        rustix::thread::set_no_new_privs(true).map_err(system("set no_new_privs"))?;
    }
    Ok(())
}

fn names(capabilities: CapabilitySet) -> String {
    let names: Vec<&str> = capabilities.iter_names().map(|(name, _)| name).collect();
    names.join(", ")
}

fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> ConfineError {
    move |source| ConfineError::System {
        doing,
        source: source.into(),
    }
}
