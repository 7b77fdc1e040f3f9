//! The checks before the start, on a machine that is set up like the image in a pod, and then broken in one way.

mod support;

use std::process::{Command, Output, Stdio};

use support::{available, namespace::namespaces_missing};

/// The image's links and user, and the pod's mounts. `sudo` is a fake that always succeeds; the tests of the image use the real one.
const POD: &str = r#"
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/bin /run/upper /run/work /run/agent /run/frr /run/openvswitch /run/iproute2
cp "$0" /run/bin/obgp-runtime
mount -t overlay overlay -o lowerdir=/usr/bin,upperdir=/run/upper,workdir=/run/work /usr/bin
mount -t tmpfs tmpfs /usr/local/sbin
ln -sf /run/bin/obgp-runtime /usr/bin/vtysh
ln -s /run/bin/obgp-runtime /usr/local/sbin/sysctl
rm -f /usr/bin/sudo
printf '#!/bin/sh\n' > /usr/bin/sudo
chmod 755 /usr/bin/sudo
printf '[DEFAULT]\novsdb_connection = unix:/run/openvswitch/db.sock\novn_sb_connection = tcp:127.0.0.1:6642\n' > /run/agent/agent.conf
printf '254 main\n' > /run/iproute2/rt_tables
printf 1 > /proc/sys/net/ipv4/ip_forward
for socket in /run/openvswitch/db.sock /run/frr/zebra.vty /run/frr/bgpd.vty; do touch $socket; chgrp 42424 $socket; chmod 770 $socket; done
chown 42494 /run/agent /run/iproute2
user='--reuid 42494 --regid 42494 --groups 42424'
as() { exec setpriv $user "$@"; }
agent='/run/bin/obgp-runtime agent --timeout 1 --config /run/agent/agent.conf --shared-dir /run/agent --frr-sockets /run/frr
       --rt-tables /run/iproute2/rt_tables --interface br-ex'
"#;
const READ_ONLY: &str = "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys\n";
const CANNOT: &str = "the agent cannot work here: ";

fn pod(script: &str) -> Output {
    Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", &format!("{POD}{script}")])
        .arg(env!("CARGO_BIN_EXE_obgp-runtime"))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The output of `agent` in the changed pod.
fn agent(change: &str) -> String {
    let output = pod(&format!("{change}\nas $agent"));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{change}: {message}");
    message
}

/// `agent` reports exactly one cause in one line and its fix in the next, without waiting.
fn reports(change: &str, cause: &str, help: &str) {
    let message = agent(change);
    let lines: Vec<&str> = message.lines().collect();
    let [first, second] = lines[..] else {
        panic!("{change}: {message}")
    };
    assert!(
        first.starts_with(&format!("obgp-runtime: {CANNOT}")) && first.contains(cause),
        "{change}: {message}"
    );
    assert!(
        second.starts_with("help: ") && second.contains(help),
        "{change}: {message}"
    );
}

#[test]
fn a_correct_pod_passes() {
    if !available(namespaces_missing()) {
        return;
    }
    let waits = "obgp-runtime agent: waiting (0 s of 1 s): there is no /run/agent/bgp-config.env\n";
    let mount = "mkdir -p /run/obgp/sysctl; mount --bind /proc/sys/net /run/obgp/sysctl\n";
    for change in [
        "",
        &format!("{mount}{READ_ONLY}"),
        "rm /run/iproute2/rt_tables /run/frr/* /run/openvswitch/*",
        // As in the documented pod, which drops all capabilities and adds those that the agent uses.
        "user=\"$user --bounding-set -net_raw\"",
    ] {
        let message = agent(change);
        assert!(message.starts_with(waits), "{change}: {message}");
    }
    let message = agent("printf 0 > /proc/sys/net/ipv4/ip_forward");
    assert!(
        message.starts_with("obgp-runtime: note: net.ipv4.ip_forward is 0") && message.contains(waits),
        "{message}"
    );
}

#[test]
fn missing_privileges_and_links_are_reported() {
    if !available(namespaces_missing()) {
        return;
    }
    reports(
        READ_ONLY,
        "cannot set network sysctls: /proc/sys/net is read-only; /run/obgp/sysctl is not there",
        "mount the node's /proc/sys/net at /run/obgp/sysctl, writable",
    );
    for name in [
        "NET_ADMIN",
        "SYS_ADMIN",
        "DAC_READ_SEARCH",
        "DAC_OVERRIDE",
        "SETUID",
        "SETGID",
    ] {
        let change = format!("user=\"$user --bounding-set -{}\"", name.to_lowercase());
        reports(
            &change,
            &format!("the container does not have the capability {name}"),
            &format!("--cap-add {name}"),
        );
    }
    reports(
        "user=\"$user --no-new-privs\"",
        "no_new_privs is set",
        "allowPrivilegeEscalation: true",
    );
    reports(
        "printf '#!/bin/sh\\necho sudo: unable to mkdir /run/sudo >&2\\necho sudo: a password is required >&2\\nexit 1\\n' > /usr/bin/sudo",
        "sudo does not start obgp-runtime privsep as root: sudoers has no grant for it (uid 42494)",
        "with its own /etc/sudoers",
    );
    reports(
        "rm /usr/bin/vtysh",
        "/usr/bin/vtysh, which is to be obgp-runtime: No such file",
        "remove the mount over /usr/bin",
    );
    reports(
        "rm /usr/local/sbin/sysctl; ln -s /usr/bin/env /usr/local/sbin/sysctl",
        "/usr/local/sbin/sysctl is /usr/bin/env, not obgp-runtime",
        "remove the mount over /usr/local/sbin",
    );
}

#[test]
fn missing_or_closed_sockets_are_reported() {
    if !available(namespaces_missing()) {
        return;
    }
    reports(
        "rm -r /run/frr",
        "there is no directory /run/frr for FRR's sockets",
        "mount the volume with FRR's /run/frr there",
    );
    reports(
        "chgrp 92 /run/frr/bgpd.vty",
        "uid 42494 has no access to /run/frr/bgpd.vty (FRR's sockets): /run/frr/bgpd.vty has group 92 and mode 0770",
        "add group 92 (docker: --group-add 92; pod: securityContext.supplementalGroups)",
    );
    reports(
        "chmod 750 /run/frr",
        "uid 42494 has no access to /run/frr (",
        "add group 0",
    );
    reports(
        "user='--reuid 42494 --regid 42494 --groups 92'; chgrp 92 /run/frr/*",
        "(ovsdb_connection)",
        "add group 42424",
    );
    reports(
        "rm -r /run/openvswitch",
        "there is no directory /run/openvswitch for ovsdb_connection",
        "mount the node's directory there",
    );
}

#[test]
fn an_unusable_rt_tables_is_reported() {
    if !available(namespaces_missing()) {
        return;
    }
    reports(
        "printf '10 br-ex\\n' > /run/iproute2/rt_tables",
        "/run/iproute2/rt_tables gives br-ex table 10, which is the table of the agent's VRF",
        "give br-ex another number",
    );
    reports(
        "chmod 600 /run/iproute2/rt_tables",
        "cannot read /run/iproute2/rt_tables",
        "readable for all users",
    );
    let closed = "mount --bind /run/iproute2 /run/iproute2; mount -o remount,ro,bind /run/iproute2";
    reports(
        closed,
        "has no table for br-ex and is on a read-only file system",
        "mount a writable directory with rt_tables at /run/iproute2",
    );
    reports(
        &format!("rm /run/iproute2/rt_tables; {closed}"),
        "there is no /run/iproute2/rt_tables, and it cannot be created",
        "mount a writable directory there",
    );
}

#[test]
fn frr_init_checks_the_sysctls_before_the_network() {
    if !available(namespaces_missing()) {
        return;
    }
    let init =
        "user=\"$user --no-new-privs --bounding-set -all\"; as /run/bin/obgp-runtime frr-init --shared-dir /run/agent";
    let message = |script: &str| String::from_utf8_lossy(&pod(script).stderr).into_owned();
    let without = message(&format!("{READ_ONLY}{init}"));
    assert!(
        without.starts_with(&format!("obgp-runtime: {CANNOT}cannot set network sysctls")),
        "{without}"
    );
    assert_eq!(without.lines().count(), 2, "{without}");
    let warned = message(&format!("{READ_ONLY}{init} --preflight warn"));
    assert!(warned.starts_with(&format!("obgp-runtime: note: {CANNOT}")), "{warned}");
    assert!(warned.contains("there is no network interface br-ex"), "{warned}");
    let with = message(init);
    assert!(
        with.contains("there is no network interface br-ex") && !with.contains("cannot work here"),
        "{with}"
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    if !available(namespaces_missing()) {
        return;
    }
    let message = agent(&format!("rm /usr/bin/vtysh; rm -r /run/frr; {READ_ONLY}"));
    assert_eq!(message.matches(CANNOT).count(), 3, "{message}");
    assert_eq!(message.matches("help: ").count(), 3, "{message}");
}
