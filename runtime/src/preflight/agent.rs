//! The requirements of the agent's container: capabilities, sudo, links to this program, accessible sockets, routing tables.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Access, StatVfsMountFlags, access};
use rustix::thread::CapabilitySet;

use super::{Problem, node};
use crate::agent_options::{AgentOptions, Remote};
use crate::files;
use crate::node::Node;
use crate::rt_tables;
use crate::sysctl::access as sysctl;

/// The capabilities of the root helpers (see privsep's contexts), and those that sudo needs to start them.
const CAPABILITIES: [CapabilitySet; 6] = [
    CapabilitySet::NET_ADMIN,
    CapabilitySet::SYS_ADMIN,
    CapabilitySet::DAC_READ_SEARCH,
    CapabilitySet::DAC_OVERRIDE,
    CapabilitySet::SETUID,
    CapabilitySet::SETGID,
];
/// Links to this program under the names that the agent and its root helpers execute.
const LINKS: [&str; 2] = ["/usr/bin/vtysh", "/usr/local/sbin/sysctl"];
/// The agent's root helper creates rt_tables as a copy of it.
const SHIPPED_TABLES: &str = "/usr/share/iproute2/rt_tables";

/// The paths to check.
pub struct Pod<'a> {
    pub config: &'a Path,
    pub frr_sockets: &'a Path,
    pub rt_tables: &'a Path,
    /// The provider bridge, if it is configured.
    pub interface: Option<&'a str>,
    /// The result of frr-init. If it exists, it names the bridge.
    pub env_file: &'a Path,
}

impl Pod<'_> {
    pub(super) fn problems(&self, vty_group: Option<u32>) -> Vec<Problem> {
        let mut problems = capabilities();
        problems.extend(root(problems.is_empty()));
        problems.extend(LINKS.iter().filter_map(|link| not_obgp_runtime(Path::new(link))));
        problems.extend(self.frr(vty_group));
        // `agent` reports a mistake in the configuration itself.
        let options = AgentOptions::load(self.config).unwrap_or_default();
        problems.extend(node::table_taken(&options));
        problems.extend(open_vswitch(&options, Directory::MustExist));
        problems.extend(self.bridge().and_then(|name| no_bridge(&name)));
        if options.has_bridge_tables() {
            problems.extend(self.tables(&options));
        }
        if options.get("DEFAULT", "exposing_method") != Some("ovn") {
            problems.extend(forwarding(sysctl::read("ipv4/ip_forward")));
        }
        problems
    }

    /// The provider bridge.
    fn bridge(&self) -> Option<String> {
        self.interface.map(str::to_string).or_else(|| {
            let text = files::read_text(self.env_file).ok()?;
            Some(Node::parse(&text, self.env_file).ok()?.interface)
        })
    }

    fn frr(&self, vty_group: Option<u32>) -> Option<Problem> {
        let directory = self.frr_sockets;
        if !directory.is_dir() {
            return Some(Problem::new(
                format!("there is no directory {} for FRR's sockets", directory.display()),
                "mount the volume with FRR's /run/frr there",
            ));
        }
        let daemons = ["zebra.vty", "bgpd.vty"].map(|name| directory.join(name));
        let problem = no_access(directory, "FRR's sockets", Access::EXEC_OK).or_else(|| {
            daemons
                .iter()
                .find_map(|path| no_access(path, "FRR's sockets", Access::WRITE_OK))
        });
        // Existing sockets show their group themselves.
        let decided = problem.is_some() || daemons.iter().any(|path| path.exists());
        problem.or_else(|| vty_group.filter(|_| !decided).and_then(not_in_group))
    }

    /// Whether the bridge's routing table has a name or can get one.
    fn tables(&self, options: &AgentOptions) -> Option<Problem> {
        let path = self.rt_tables;
        let shown = path.display();
        let text = match files::read_text(path) {
            Ok(text) => text,
            Err(files::FileError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return no_file(path).then(|| {
                    let help = "mount a writable directory there, empty or with the distribution's rt_tables";
                    Problem::new(format!("there is no {shown}, and it cannot be created"), help)
                });
            }
            Err(error) => {
                return Some(Problem::new(
                    error.to_string(),
                    format!("make {shown} readable for all users"),
                ));
            }
        };
        let interface = self.bridge()?;
        let vrf = options.vrf_table().ok()?;
        match rt_tables::find(&rt_tables::parse(&text), &interface) {
            Some(entry) if entry.id == vrf => Some(Problem::new(
                format!("{shown} gives {interface} table {vrf}, which is the table of the agent's VRF"),
                format!("give {interface} another number in {shown}, or set bgp_vrf_table_id"),
            )),
            None if is_read_only(path) => Some(Problem::new(
                format!("{shown} has no table for {interface} and is on a read-only file system"),
                format!(
                    "mount a writable directory with rt_tables at {}",
                    parent(path).display()
                ),
            )),
            _ => None,
        }
    }
}

fn capabilities() -> Vec<Problem> {
    let lacks = |wanted: &CapabilitySet| rustix::thread::capability_is_in_bounding_set(*wanted) == Ok(false);
    let name = |wanted: CapabilitySet| wanted.iter_names().next().map_or("", |(name, _)| name);
    let help = |name| format!("add {name} (docker: --cap-add {name}; pod: securityContext.capabilities.add)");
    let missing = CAPABILITIES.into_iter().filter(lacks).map(name);
    missing
        .map(|name| Problem::new(format!("the container does not have the capability {name}"), help(name)))
        .collect()
}

/// Checks that sudo starts this program as root. Without the capabilities sudo cannot answer, so it is not asked.
fn root(capable: bool) -> Option<Problem> {
    if rustix::thread::no_new_privs() == Ok(true) {
        return Some(Problem::new(
            "no_new_privs is set, with which sudo cannot start the root helpers",
            "set allowPrivilegeEscalation: true (docker: no --security-opt no-new-privileges)",
        ));
    }
    if !capable {
        return None;
    }
    // Asks whether it would, and starts nothing.
    let output = Command::new("sudo")
        .args(["-n", "-l", "obgp-runtime", "privsep", "--privsep_context"])
        .stdin(Stdio::null())
        .output();
    let why = match output {
        Ok(output) if output.status.success() => return None,
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            // Before it come complaints about a read-only /run and a host name without an address.
            let line = text
                .lines()
                .last()
                .filter(|line| !line.contains("password is required"));
            let line = line.unwrap_or("sudoers has no grant for it");
            format!("{line} (uid {})", rustix::process::getuid())
        }
        Err(error) => format!("sudo: {error}"),
    };
    Some(Problem::new(
        format!("sudo does not start obgp-runtime privsep as root: {why}"),
        "run the image as its own user, with its own /etc/sudoers and /usr/bin/sudo, not on a nosuid mount",
    ))
}

/// Without this program's vtysh the agent's sync would fail after the start.
fn not_obgp_runtime(link: &Path) -> Option<Problem> {
    let why = match (fs::canonicalize(link), std::env::current_exe()) {
        (Ok(found), Ok(own)) if found == own => return None,
        (Ok(found), _) => format!("{} is {}, not obgp-runtime", link.display(), found.display()),
        (Err(error), _) => format!("{}, which is to be obgp-runtime: {error}", link.display()),
    };
    Some(Problem::new(
        why,
        format!(
            "remove the mount over {}, which hides the image's files",
            parent(link).display()
        ),
    ))
}

/// The bridge may be created later than this container, by Open vSwitch.
fn no_bridge(name: &str) -> Option<Problem> {
    let missing = node::no_interface(name)?;
    let help = format!("create it on the node: ovs-vsctl add-br {name}, and name it in ovn-bridge-mappings");
    Some(Problem::note(missing.cause, help))
}

/// Root needs no group. FRR's sockets will have this one.
pub(super) fn not_in_group(gid: u32) -> Option<Problem> {
    let own = rustix::process::getgroups().unwrap_or_default();
    let mut groups = own.iter().copied().chain([rustix::process::getegid()]);
    if rustix::process::geteuid().is_root() || groups.any(|group| group.as_raw() == gid) {
        return None;
    }
    let uid = rustix::process::getuid();
    Some(Problem::new(
        format!("uid {uid} is not in group {gid}, which FRR's sockets belong to"),
        add_group(gid),
    ))
}

fn add_group(gid: u32) -> String {
    format!("add group {gid} (docker: --group-add {gid}; pod: securityContext.supplementalGroups)")
}

/// The directory of a socket in this container.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Directory {
    MustExist,
    /// The container does not use the socket.
    MayBeMissing,
}

pub(super) fn open_vswitch(options: &AgentOptions, wanted: Directory) -> Vec<Problem> {
    let mut problems = Vec::new();
    // `agent` reports invalid values itself.
    for expected in options.connections().unwrap_or_default() {
        for remote in expected.remotes {
            let Remote::Unix(path) = remote else { continue };
            let directory = parent(&path);
            if directory.is_dir() {
                problems.extend(no_access(&path, expected.option, Access::WRITE_OK));
            } else if wanted == Directory::MustExist {
                problems.push(Problem::new(
                    format!("there is no directory {} for {}", directory.display(), expected.option),
                    format!(
                        "mount the node's directory there, or set {} to the path of the socket",
                        expected.option
                    ),
                ));
            }
        }
    }
    problems
}

/// A socket or directory that exists and is not accessible to this process. `what` is its purpose.
fn no_access(path: &Path, what: &str, wanted: Access) -> Option<Problem> {
    let Err(error) = access(path, wanted) else { return None };
    // `agent` waits for a socket that does not exist yet.
    if error != rustix::io::Errno::ACCESS {
        return None;
    }
    let closed = path
        .ancestors()
        .find(|part| part.symlink_metadata().is_ok())
        .unwrap_or(path);
    let (gid, mode) = closed
        .metadata()
        .map_or((0, 0), |found| (found.gid(), found.mode() & 0o7777));
    Some(Problem::new(
        format!(
            "uid {1} has no access to {0} ({what}): {2} has group {gid} and mode {mode:04o}",
            path.display(),
            rustix::process::getuid(),
            closed.display()
        ),
        add_group(gid),
    ))
}

/// Neither this process nor the agent's root helper, which copies the distribution's file, can create the file.
fn no_file(path: &Path) -> bool {
    let directory = parent(path);
    access(directory, Access::WRITE_OK).is_err() && (is_read_only(directory) || !Path::new(SHIPPED_TABLES).exists())
}

fn is_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn forwarding(value: io::Result<String>) -> Option<Problem> {
    let off = value.is_ok_and(|value| value == "0");
    off.then(|| {
        Problem::note(
            "net.ipv4.ip_forward is 0: this node does not forward packets to the announced addresses",
            "set it to 1 on the node, in /etc/sysctl.d",
        )
    })
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}
