//! The node's side: kernel, interfaces, sockets and ports, as an unprivileged container on the node's network sees
//! them.

use std::fs;
use std::path::Path;

use super::{Affected, Problem};
use crate::agent_options::AgentOptions;
use crate::network::{Netlink, NetlinkError};
use crate::sysctl::access as sysctl;

/// TCP_LISTEN in /proc/net/tcp, and a UDP socket that is not connected in /proc/net/udp.
const LISTENS: &str = "0A";
const BOUND: &str = "07";
const BGP: u16 = 179;
/// Single hop BFD (RFC 5881).
const BFD: u16 = 3784;

/// The configuration that FRR gets.
pub struct Frr<'a> {
    /// The interfaces that lead to leaf switches.
    pub interfaces: Vec<&'a str>,
    pub listen: bool,
    pub bfd: bool,
}

impl Frr<'_> {
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.interfaces.iter().filter_map(|name| no_interface(name)).collect();
        if self.listen {
            problems.extend(port_in_use("TCP", "tcp", LISTENS, BGP, "--listen (BGP_LISTEN)"));
        }
        if self.bfd {
            problems.extend(port_in_use("UDP", "udp", BOUND, BFD, "--bfd (FRR_BFD)"));
        }
        problems.extend(self.interfaces.iter().filter_map(|name| strict_rp_filter(name)));
        problems
    }
}

/// An interface that does not exist. An error of another kind is not reported here.
pub(super) fn no_interface(name: &str) -> Option<Problem> {
    let error = Netlink::open().and_then(|mut netlink| netlink.interface(name)).err()?;
    let NetlinkError::NoInterface { .. } = error else {
        return None;
    };
    let text = error.to_string();
    let (cause, help) = text.split_once("\nhelp: ")?;
    Some(Problem::new(cause, help))
}

/// Whether a program of the node uses a port. `protocol` is the name of its files in /proc/net, `state` that of its
/// sockets.
fn port_in_use(name: &str, protocol: &str, state: &str, port: u16, option: &str) -> Option<Problem> {
    let tables =
        ["", "6"].map(|family| fs::read_to_string(format!("/proc/net/{protocol}{family}")).unwrap_or_default());
    let uid = tables.iter().find_map(|table| owner(table, state, port))?;
    Some(Problem {
        affected: Affected::Frr,
        ..Problem::new(
            format!("{name} port {port} of the node is in use by a program of uid {uid}"),
            format!("stop the other FRR, BIRD (Calico) or speaker (MetalLB, frr-k8s) on this node, or unset {option}"),
        )
    })
}

/// The UID of the socket with a state and a local port, in a table of proc_pid_net(5).
fn owner(table: &str, state: &str, port: u16) -> Option<u32> {
    let port = format!("{port:04X}");
    table.lines().skip(1).find_map(|line| {
        // Local address, remote address, state, queues, timer, retransmits, UID:
        // "  0: 00000000:00B3 00000000:0000 0A 00000000:00000000 00:00000000 00000000   100 …"
        let mut fields = line.split_whitespace().skip(1);
        let (_, local) = fields.next()?.rsplit_once(':')?;
        let found = fields.nth(1)?;
        let uid = fields.nth(3)?.parse().ok()?;
        (local == port && found == state).then_some(uid)
    })
}

/// The kernel uses the larger value of `all` and of the interface; 2 is loose.
fn strict_rp_filter(interface: &str) -> Option<Problem> {
    let value = |name: &str| {
        sysctl::read(&format!("ipv4/conf/{name}/rp_filter"))
            .ok()?
            .parse::<u8>()
            .ok()
    };
    let strict = value("all")?.max(value(interface)?) == 1;
    strict.then(|| {
        Problem::note(
            format!(
                "net.ipv4.conf.{interface}.rp_filter is strict: the kernel drops packets whose way back is another interface"
            ),
            format!("set net.ipv4.conf.{interface}.rp_filter to 2 on the node, in /etc/sysctl.d"),
        )
    })
}

/// The agent puts its addresses into a VRF. The kernel loads the module at the first VRF if the node has it, so a
/// module that is not loaded is only a problem if it is not installed, and containers usually do not see that.
pub(super) fn no_vrf() -> Option<Problem> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let (sys, modules) = (Path::new("/sys/module"), Path::new("/lib/modules").join(&release));
    let (cause, help) = match vrf(sys, Path::new("/proc"), &modules) {
        Vrf::Available => return None,
        Vrf::Unknown => (
            "the kernel module vrf is not loaded; without it on the node, the agent ends with \"Operation not supported\"",
            format!("on the node: modprobe vrf; if that fails on Ubuntu: apt install linux-modules-extra-{release}"),
        ),
        Vrf::Missing => (
            "the kernel has no VRFs (no module vrf), so the agent ends with \"Operation not supported\"",
            format!("use a kernel with CONFIG_NET_VRF (Ubuntu: apt install linux-modules-extra-{release})"),
        ),
    };
    Some(Problem::note(cause, help))
}

/// Another VRF that has the table of the agent's. FRR's zebra ends when it sees the second one.
pub(super) fn table_taken(options: &AgentOptions) -> Option<Problem> {
    let table = options.vrf_table().ok()?;
    let vrfs = Netlink::open().and_then(|mut netlink| netlink.vrfs()).ok()?;
    let other = other_vrf(vrfs, options.vrf(), table)?;
    Some(Problem::new(
        format!(
            "routing table {table}, which is for the agent's VRF {}, belongs to the VRF {other}",
            options.vrf()
        ),
        "set bgp_vrf_table_id to a table that no VRF of the node has",
    ))
}

fn other_vrf(vrfs: Vec<(String, u32)>, own: &str, wanted: u32) -> Option<String> {
    vrfs.into_iter()
        .find_map(|(name, table)| (name != own && table == wanted).then_some(name))
}

#[derive(Debug, PartialEq, Eq)]
enum Vrf {
    Available,
    /// It is not loaded, and this container does not see the node's modules.
    Unknown,
    Missing,
}

/// `modules` is the directory of the running kernel's modules.
fn vrf(sys_module: &Path, proc: &Path, modules: &Path) -> Vrf {
    // The module has a version, so the directory also exists if the kernel contains it. The sysctl is of Linux 5.8
    // and later.
    if sys_module.join("vrf").exists() || proc.join("sys/net/vrf").exists() {
        return Vrf::Available;
    }
    // Without it, the kernel cannot load modules.
    if !proc.join("modules").exists() {
        return Vrf::Missing;
    }
    let lists = ["modules.builtin", "modules.dep"].map(|name| fs::read_to_string(modules.join(name)));
    if lists.iter().all(Result::is_err) {
        return Vrf::Unknown;
    }
    // "kernel/drivers/net/vrf.ko.zst: …"
    let listed = |list: &String| list.lines().any(|line| line.contains("/vrf.ko"));
    match lists.iter().flatten().any(listed) {
        true => Vrf::Available,
        false => Vrf::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_port_is_found() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 00000000:00B3 00000000:0000 0A 00000000:00000000 00:00000000 00000000   100        0 26215 1 0 100 0 0 10 0\n   \
             1: 0100007F:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 26216 1 0 100 0 0 10 0\n   \
             2: 0100007F:1F90 0100007F:00B3 01 00000000:00000000 00:00000000 00000000     7        0 26217 1 0 100 0 0 10 0\n";
        assert_eq!(owner(table, LISTENS, 179), Some(100));
        assert_eq!(owner(table, LISTENS, 443), Some(0));
        // A connection to port 179 of another host, a connection from port 8080, and no socket at all.
        assert_eq!(owner(table, "01", 179), None);
        assert_eq!(owner(table, LISTENS, 8080), None);
        assert_eq!(owner("", LISTENS, 179), None);
        assert_eq!(owner("header\n 0: x\n", LISTENS, 179), None);
    }

    #[test]
    fn a_table_is_taken_by_another_vrf_only() {
        let vrfs = || vec![("bgp-vrf".to_string(), 10), ("red".to_string(), 20)];
        assert_eq!(other_vrf(vrfs(), "bgp-vrf", 10), None);
        assert_eq!(other_vrf(vrfs(), "bgp-vrf", 20).as_deref(), Some("red"));
        assert_eq!(other_vrf(vrfs(), "blue", 30), None);
    }

    #[test]
    fn a_vrf_is_loaded_built_in_or_on_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["sys", "proc/sys/net", "modules"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        let found = || vrf(&path("sys"), &path("proc"), &path("modules"));
        assert_eq!(found(), Vrf::Missing, "a kernel without modules");
        fs::write(path("proc/modules"), "").unwrap();
        assert_eq!(found(), Vrf::Unknown, "the node's modules are not mounted");
        fs::write(
            path("modules/modules.dep"),
            "kernel/net/vrfs.ko: x\nkernel/drivers/net/vxlan.ko:\n",
        )
        .unwrap();
        assert_eq!(found(), Vrf::Missing);
        fs::write(path("modules/modules.builtin"), "kernel/drivers/net/vrf.ko\n").unwrap();
        assert_eq!(found(), Vrf::Available, "in the kernel");
        fs::remove_file(path("modules/modules.builtin")).unwrap();
        fs::write(path("modules/modules.dep"), "kernel/drivers/net/vrf.ko.zst:\n").unwrap();
        assert_eq!(found(), Vrf::Available, "the kernel can load it");
        fs::remove_file(path("modules/modules.dep")).unwrap();
        for there in ["sys/vrf", "proc/sys/net/vrf"] {
            fs::create_dir(path(there)).unwrap();
            assert_eq!(found(), Vrf::Available, "{there}");
            fs::remove_dir(path(there)).unwrap();
        }
    }
}
