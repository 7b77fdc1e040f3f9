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
mount -t tmpfs tmpfs /sys/module
mkdir /sys/module/vrf
ip link set lo up
ip link add br-ex type bridge
ip address add 10.0.192.111/24 dev br-ex
ip link set br-ex up
printf 0 > /proc/sys/net/ipv4/conf/all/rp_filter
printf 0 > /proc/sys/net/ipv4/conf/br-ex/rp_filter
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
export BGP_PEER_IP=10.0.192.1
init='/run/bin/obgp-runtime frr-init --shared-dir /run/agent --agent-config /run/agent/agent.conf --output-dir /run/agent
      --peer-asn external --probe-timeout-ms 10'
# The init container has no capability.
init_user='--no-new-privs --bounding-set -all'
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
    // Sockets that do not exist yet do not show their group.
    let grouped = "agent=\"$agent --vty-group 102\"";
    reports(
        &format!("rm /run/frr/*; {grouped}"),
        "uid 42494 is not in group 102, which FRR's sockets belong to",
        "add group 102",
    );
    assert!(agent(grouped).contains("waiting (0 s of 1 s)"));
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

/// The output of `frr-init` in the changed pod, and whether it succeeded.
fn init(change: &str, arguments: &str) -> (bool, String) {
    let output = pod(&format!("{change}\nuser=\"$user $init_user\"; as $init {arguments}"));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    // The leaf switch does not exist.
    let others = message
        .lines()
        .filter(|line| !line.contains("did not answer") && !line.contains("no ICMP echo"));
    (
        output.status.success(),
        others.map(|line| format!("{line}\n")).collect(),
    )
}

/// `frr-init` fails with a cause and its fix, or continues if it has to.
fn init_reports(change: &str, arguments: &str, cause: &str, help: &str) {
    let (success, message) = init(change, arguments);
    let [first, second] = message.lines().collect::<Vec<_>>()[..] else {
        panic!("{change}: {message}")
    };
    assert!(
        !success && first.starts_with(&format!("obgp-runtime: {cause}")),
        "{change}: {message}"
    );
    assert!(
        second.starts_with("help: ") && second.contains(help),
        "{change}: {message}"
    );
    let (success, warned) = init(change, &format!("{arguments} --preflight warn"));
    assert!(
        success && warned.starts_with(&format!("obgp-runtime: note: {cause}")),
        "{change}: {warned}"
    );
}

/// A server on a port until the pod ends.
fn listener(kind: &str, family: &str, port: u16) -> String {
    format!(
        "python3 -c 'import socket, time; s = socket.socket(socket.{family}, socket.SOCK_{kind}); s.bind((\"\", {port})); \
         {} open(\"/run/bound\", \"w\"); time.sleep(20)' > /dev/null 2>&1 &\nwhile ! test -e /run/bound; do sleep 0.05; done\n",
        if kind == "STREAM" { "s.listen();" } else { "" }
    )
}

#[test]
fn frr_init_reports_the_nodes_problems() {
    if !available(namespaces_missing()) {
        return;
    }
    assert_eq!(init("", "--listen --bfd --vty-group 42424"), (true, String::new()));
    init_reports(
        READ_ONLY,
        "",
        &format!("{CANNOT}cannot set network sysctls"),
        "mount the node's /proc/sys/net",
    );
    init_reports(
        "chgrp 92 /run/openvswitch/db.sock",
        "",
        &format!("{CANNOT}uid 42494 has no access to /run/openvswitch/db.sock (ovsdb_connection)"),
        "add group 92",
    );
    init_reports(
        "",
        "--vty-group 102",
        &format!("{CANNOT}uid 42494 is not in group 102, which FRR's sockets belong to"),
        "add group 102 (docker: --group-add 102; pod: securityContext.supplementalGroups)",
    );
    for family in ["AF_INET", "AF_INET6"] {
        let bgp = listener("STREAM", family, 179);
        let cause = "FRR cannot work here: TCP port 179 of the node is in use by a program of uid 0";
        init_reports(&bgp, "--listen", cause, "unset --listen (BGP_LISTEN)");
        assert_eq!(init(&bgp, ""), (true, String::new()), "bgpd does not listen");
        let bfd = listener("DGRAM", family, 3784);
        let cause = "FRR cannot work here: UDP port 3784 of the node is in use by a program of uid 0";
        init_reports(&bfd, "--bfd", cause, "unset --bfd (FRR_BFD)");
        assert_eq!(init(&bfd, ""), (true, String::new()), "bfdd does not run");
    }
    // Without the mount nothing is known about the socket.
    assert_eq!(init("rm -r /run/openvswitch", ""), (true, String::new()));
}

#[test]
fn frr_init_lists_a_missing_interface_with_the_other_problems() {
    if !available(namespaces_missing()) {
        return;
    }
    let (success, message) = init(&format!("ip link del br-ex; {READ_ONLY}"), "");
    assert!(!success && message.lines().count() == 4, "{message}");
    assert!(
        message.contains(&format!("{CANNOT}cannot set network sysctls")),
        "{message}"
    );
    assert!(
        message.contains(&format!("{CANNOT}there is no network interface br-ex; there are: lo")),
        "{message}"
    );
    assert!(
        message.contains("help: set --interface to the one that leads to the leaf switch"),
        "{message}"
    );
    let (_, message) = init("", "--peer-ip= --peer-interface eth7");
    assert!(
        message.contains(&format!("{CANNOT}there is no network interface eth7")),
        "{message}"
    );
}

#[test]
fn an_uncertain_problem_is_a_note() {
    if !available(namespaces_missing()) {
        return;
    }
    let strict = "obgp-runtime: note: net.ipv4.conf.br-ex.rp_filter is strict";
    for (all, own, noted) in [(1, 0, true), (0, 1, true), (1, 2, false), (2, 1, false), (0, 0, false)] {
        let change = format!(
            "printf {all} > /proc/sys/net/ipv4/conf/all/rp_filter; printf {own} > /proc/sys/net/ipv4/conf/br-ex/rp_filter"
        );
        let (success, message) = init(&change, "");
        assert_eq!(
            (success, message.starts_with(strict)),
            (true, noted),
            "{all} {own}: {message}"
        );
        assert_eq!(message.lines().count(), if noted { 2 } else { 0 }, "{message}");
    }
    for message in [init("rmdir /sys/module/vrf", "").1, agent("rmdir /sys/module/vrf")] {
        let lines: Vec<&str> = message.lines().collect();
        assert!(
            lines[0].starts_with("obgp-runtime: note: the kernel ") && lines[0].contains("module vrf"),
            "{message}"
        );
        assert!(
            lines[1].starts_with("help: ") && lines[1].contains("linux-modules-extra-"),
            "{message}"
        );
    }
    let message = agent("ip link del br-ex");
    assert!(
        message.starts_with("obgp-runtime: note: there is no network interface br-ex"),
        "{message}"
    );
    assert!(
        message.contains("help: create it on the node: ovs-vsctl add-br br-ex"),
        "{message}"
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
