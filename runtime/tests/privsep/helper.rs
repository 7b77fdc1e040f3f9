//! Accepted calls: the agent's own code starts its three contexts through sudo, and each has only the capabilities that it needs.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Output;

use rustix::mount::MountFlags;
use rustix::thread::CapabilitySet;

use super::world::{
    AGENT, CONFIG, NODE_CONFIG, OTHER, directory, listen, privsep, run_to_end, stderr, user, valid, world, write,
};

/// Runs code of the agent. The first call of a privileged function starts the helper.
fn agent(code: &str) -> Output {
    let helper = format!("sudo -n obgp-runtime privsep --config-file {CONFIG} --config-file {NODE_CONFIG}");
    let mut command = user(AGENT, "/usr/bin/python3");
    for section in ["PRIVSEP", "PRIVSEP_OVS_VSCTL", "PRIVSEP_VTYSH"] {
        command.env(format!("OS_{section}__HELPER_COMMAND"), &helper);
    }
    let program = format!(
        "import logging, sys\n\
         logging.basicConfig(level=logging.INFO, stream=sys.stderr)\n\
         from oslo_config import cfg\n\
         import ovn_bgp_agent.privileged\n\
         from ovn_bgp_agent.privileged import linux_net, ovs_vsctl, vtysh\n\
         cfg.CONF(['--config-file', '{CONFIG}', '--config-file', '{NODE_CONFIG}'], project='ovn-bgp-agent')\n\
         {code}\n"
    );
    let output = command.arg("-c").arg(program).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A program in place of vtysh, ovs-vsctl or sysctl: prints its capabilities and whether it can connect to another user's socket.
const PROBE: &str = r#"#!/usr/bin/python3 -I
import os, re, socket
status = open("/proc/self/status").read()
field = lambda name: re.search(name + r":\s+(\S+)", status)[1]
s = socket.socket(socket.AF_UNIX)
try:
    s.connect("/run/frr/bgpd.vty")
    reached = "yes"
except OSError as error:
    reached = error.strerror
environment = ",".join(sorted(set(os.environ) - {"LC_CTYPE"}))
files = ",".join(sorted(n for n in os.listdir("/proc/self/fd") if int(n) > 2 and os.path.exists("/proc/self/fd/" + n)
    and not os.readlink("/proc/self/fd/" + n).startswith(("/proc", "socket:"))))
print(field("CapEff"), field("CapBnd"), field("CapAmb"), field("NoNewPrivs"),
    "reached=" + reached, "environment=" + environment, "files=" + files, "cwd=" + os.getcwd())
"#;

fn bits(capabilities: CapabilitySet) -> String {
    format!("{:016x}", capabilities.bits())
}

/// FRR's socket, which belongs to another user.
fn frr_socket() -> std::os::unix::net::UnixListener {
    let listener = listen("/run/frr/bgpd.vty", OTHER);
    directory("/run/frr", OTHER, 0o750);
    fs::set_permissions("/run/frr/bgpd.vty", fs::Permissions::from_mode(0o770)).unwrap();
    listener
}

#[test]
fn vtysh_can_connect_to_frr() {
    let Some(_world) = world() else { return };
    let _listener = frr_socket();
    write("/usr/bin/vtysh", PROBE, 0, 0o755);
    let output = agent("print(vtysh.run_vtysh_command('show version'))");
    let expected = bits(CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN | CapabilitySet::DAC_OVERRIDE);
    assert_eq!(
        stdout(&output).trim(),
        format!("{expected} {expected} 0000000000000000 0 reached=yes environment=HOME,LC_ALL,PATH files= cwd=/"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn ovs_vsctl_has_the_same_capabilities() {
    let Some(_world) = world() else { return };
    let _listener = frr_socket();
    write("/usr/local/bin/ovs-vsctl", PROBE, 0, 0o755);
    let output = agent("print(ovs_vsctl.ovs_cmd('ovs-vsctl', ['show'])[0])");
    let expected = bits(CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN | CapabilitySet::DAC_OVERRIDE);
    assert!(
        stdout(&output).starts_with(&format!("{expected} {expected} ")),
        "{}",
        stdout(&output)
    );
    assert!(stdout(&output).contains("reached=yes"), "{}", stdout(&output));
}

#[test]
fn the_default_context_configures_the_network_and_cannot_gain_privileges() {
    let Some(_world) = world() else { return };
    let flag = "/proc/sys/net/ipv4/conf/lo/forwarding";
    fs::write(flag, "0").unwrap();
    let output = agent(
        "print(linux_net.set_kernel_flag('net.ipv4.conf.lo.forwarding', '1'))\n\
         linux_net.ensure_bridge('br-test')",
    );
    assert_eq!(fs::read_to_string(flag).unwrap().trim(), "1", "{}", stderr(&output));
    let links = std::process::Command::new("ip").args(["-o", "link"]).output().unwrap();
    assert!(stdout(&links).contains("br-test"), "{}", stdout(&links));

    // The same with a program that prints its capabilities: sysctl, found through PATH.
    fs::create_dir_all("/usr/local/sbin").unwrap();
    write("/usr/local/sbin/sysctl", PROBE, 0, 0o755);
    let output = agent("print(linux_net.set_kernel_flag('a', '1')[0])");
    let own = CapabilitySet::NET_ADMIN
        | CapabilitySet::SYS_ADMIN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::DAC_READ_SEARCH;
    assert!(
        stdout(&output).starts_with(&format!("{0} {0} 0000000000000000 1 ", bits(own))),
        "{}",
        stdout(&output)
    );
}

/// Docker's default capabilities and those that the chart adds.
const POD: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::DAC_READ_SEARCH);

/// Limits this thread and its children.
fn only(capabilities: CapabilitySet) {
    for capability in (0..64).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
        if rustix::thread::capability_is_in_bounding_set(capability) == Ok(true) && !capabilities.contains(capability) {
            rustix::thread::remove_capability_from_bounding_set(capability).unwrap();
        }
    }
}

#[test]
fn a_pods_capabilities_are_enough() {
    let Some(_world) = world() else { return };
    let _listener = frr_socket();
    write("/usr/bin/vtysh", PROBE, 0, 0o755);
    only(POD);
    let output = agent("print(vtysh.run_vtysh_command('show version'))\nlinux_net.ensure_bridge('br-test')");
    assert!(stdout(&output).contains("reached=yes"), "{}", stdout(&output));
}

#[test]
fn the_helper_starts_without_setpcap() {
    let Some(_world) = world() else { return };
    let _listener = frr_socket();
    write("/usr/bin/vtysh", PROBE, 0, 0o755);
    only(POD - CapabilitySet::SETPCAP);
    let output = agent("print(vtysh.run_vtysh_command('show version'))");
    assert!(stdout(&output).contains("reached=yes"), "{}", stdout(&output));
}

#[test]
fn a_missing_capability_is_named() {
    let Some(_world) = world() else { return };
    let _listener = listen(super::world::SOCKET, AGENT);
    only(POD - CapabilitySet::NET_ADMIN - CapabilitySet::DAC_READ_SEARCH);
    let output = run_to_end(&mut privsep(valid()));
    assert!(!output.status.success());
    let message = stderr(&output);
    assert!(
        message.contains("does not have NET_ADMIN, which ovn_bgp_agent.privileged.vtysh_cmd needs"),
        "{message}"
    );
    let mut default = valid();
    default[5] = "ovn_bgp_agent.privileged.default".to_string();
    let message = stderr(&run_to_end(&mut privsep(default)));
    assert!(
        message.contains("does not have DAC_READ_SEARCH, NET_ADMIN, which"),
        "{message}"
    );
}

/// A ConfigMap volume like kubelet's: mode 0777, files that are links to links, mounted read-only.
fn config_map(read_only: bool) {
    const AT: &str = "/etc/ovn-bgp-agent";
    rustix::mount::mount("tmpfs", AT, "tmpfs", MountFlags::empty(), Some(c"mode=777")).unwrap();
    let data = format!("{AT}/..2026_01_02_03_04_05.678901");
    directory(&data, 0, 0o755);
    write(
        format!("{data}/ovn-bgp-agent.conf"),
        "[DEFAULT]\ndebug = true\n",
        0,
        0o644,
    );
    symlink("..2026_01_02_03_04_05.678901", format!("{AT}/..data")).unwrap();
    symlink("..data/ovn-bgp-agent.conf", CONFIG).unwrap();
    if read_only {
        rustix::mount::mount_remount(AT, MountFlags::RDONLY, "").unwrap();
    }
}

#[test]
fn a_mounted_config_map_is_accepted() {
    let Some(_world) = world() else { return };
    config_map(true);
    write("/usr/bin/vtysh", PROBE, 0, 0o755);
    agent("vtysh.run_vtysh_command('show version')");
    // The directory is accepted as well.
    let listener = listen(super::world::SOCKET, AGENT);
    let mut arguments = valid();
    arguments[0] = "--config-dir".to_string();
    arguments[1] = "/etc/ovn-bgp-agent".to_string();
    let output = run_to_end(&mut privsep(&arguments));
    assert!(output.status.success(), "{}", stderr(&output));
    listener.accept().unwrap();
}

#[test]
fn a_writable_config_map_is_refused() {
    let Some(_world) = world() else { return };
    config_map(false);
    let listener = listen(super::world::SOCKET, AGENT);
    let output = run_to_end(&mut privsep(valid()));
    assert!(!output.status.success());
    let message = stderr(&output);
    assert!(
        message.contains("others than root can write to it, and its mount is not read-only"),
        "{message}"
    );
    assert!(listener.accept().is_err());
}

/// In a volume with an fsGroup, /tmp is not sticky and new directories inherit the setgid bit.
#[test]
fn tmp_may_be_an_empty_dir_with_an_fs_group() {
    let Some(_world) = world() else { return };
    fs::set_permissions("/tmp", fs::Permissions::from_mode(0o2777)).unwrap();
    let listener = listen(super::world::SOCKET, AGENT);
    fs::set_permissions(
        Path::new(super::world::SOCKET).parent().unwrap(),
        fs::Permissions::from_mode(0o2700),
    )
    .unwrap();
    let output = run_to_end(&mut privsep(valid()));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        fs::symlink_metadata(super::world::SOCKET)
            .unwrap()
            .file_type()
            .is_socket()
    );
    listener.accept().unwrap();
}

#[test]
fn a_file_of_root_can_name_another_user() {
    let Some(_world) = world() else { return };
    directory("/etc/obgp-runtime", 0, 0o755);
    write("/etc/obgp-runtime/agent-user", "other\n", 0, 0o644);
    let _listener = listen(super::world::SOCKET, AGENT);
    let message = stderr(&run_to_end(&mut privsep(valid())));
    assert!(
        message.contains(&format!(
            "called by uid {AGENT}, not by the agent's user other (uid {OTHER})"
        )),
        "{message}"
    );
    write("/etc/obgp-runtime/agent-user", "ovn-bgp-agent\n", AGENT, 0o644);
    let message = stderr(&run_to_end(&mut privsep(valid())));
    assert!(message.contains("belongs to uid 42777, not to root"), "{message}");
}
