//! The checks before the start, on a machine that is made to look like the image in a pod, and then like a broken one.

mod support;

use std::process::{Command, Output, Stdio};

use support::{available, namespace::namespaces_missing};

/// The image's links and user, and what the pod mounts. `sudo` is a stand-in that grants; the real one is asked in the image.
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

/// What `agent` prints after the pod was changed.
fn agent(change: &str) -> String {
    let output = pod(&format!("{change}\nas $agent"));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{change}: {told}");
    told
}

/// One cause alone is named, in one line, and its remedy in the next; nothing was waited for.
fn names(change: &str, cause: &str, help: &str) {
    let told = agent(change);
    let lines: Vec<&str> = told.lines().collect();
    let [first, second] = lines[..] else {
        panic!("{change}: {told}")
    };
    assert!(
        first.starts_with(&format!("obgp-runtime: {CANNOT}")) && first.contains(cause),
        "{change}: {told}"
    );
    assert!(
        second.starts_with("help: ") && second.contains(help),
        "{change}: {told}"
    );
}

#[test]
fn a_sound_pod_is_started() {
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
        let told = agent(change);
        assert!(told.starts_with(waits), "{change}: {told}");
    }
    let told = agent("printf 0 > /proc/sys/net/ipv4/ip_forward");
    assert!(
        told.starts_with("obgp-runtime: note: net.ipv4.ip_forward is 0") && told.contains(waits),
        "{told}"
    );
}

#[test]
fn each_thing_that_is_missing_is_named() {
    if !available(namespaces_missing()) {
        return;
    }
    names(
        READ_ONLY,
        "no network sysctl can be set: /proc/sys/net is read-only; /run/obgp/sysctl is not there",
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
        names(
            &change,
            &format!("the container does not have the capability {name}"),
            &format!("--cap-add {name}"),
        );
    }
    names(
        "user=\"$user --no-new-privs\"",
        "no_new_privs is set",
        "allowPrivilegeEscalation: true",
    );
    names(
        "printf '#!/bin/sh\\necho sudo: unable to mkdir /run/sudo >&2\\necho sudo: a password is required >&2\\nexit 1\\n' > /usr/bin/sudo",
        "sudo does not start obgp-runtime privsep as root: sudoers has no grant for it (uid 42494)",
        "with its own /etc/sudoers",
    );
    names(
        "rm /usr/bin/vtysh",
        "/usr/bin/vtysh, which is to be obgp-runtime: No such file",
        "mount nothing over /usr/bin",
    );
    names(
        "rm /usr/local/sbin/sysctl; ln -s /usr/bin/env /usr/local/sbin/sysctl",
        "/usr/local/sbin/sysctl is /usr/bin/env, not obgp-runtime",
        "mount nothing over /usr/local/sbin",
    );
    names(
        "rm -r /run/frr",
        "there is no directory /run/frr, where FRR's sockets are to be",
        "share FRR's /run/frr",
    );
    names(
        "chgrp 92 /run/frr/bgpd.vty",
        "/run/frr/bgpd.vty is closed to uid 42494: /run/frr/bgpd.vty has group 92 and mode 0770 (FRR's sockets)",
        "add group 92 (docker: --group-add 92; pod: securityContext.supplementalGroups)",
    );
    names("chmod 750 /run/frr", "/run/frr is closed to uid 42494", "add group 0");
    names(
        "user='--reuid 42494 --regid 42494 --groups 92'; chgrp 92 /run/frr/*",
        "(ovsdb_connection)",
        "add group 42424",
    );
    names(
        "rm -r /run/openvswitch",
        "there is no /run/openvswitch for ovsdb_connection",
        "mount the node's directory there",
    );
    names(
        "printf '10 br-ex\\n' > /run/iproute2/rt_tables",
        "/run/iproute2/rt_tables gives br-ex table 10, which is that of the agent's VRF",
        "give br-ex another number",
    );
    names(
        "chmod 600 /run/iproute2/rt_tables",
        "/run/iproute2/rt_tables: cannot read it",
        "readable for everybody",
    );
    let closed = "mount --bind /run/iproute2 /run/iproute2; mount -o remount,ro,bind /run/iproute2";
    names(
        closed,
        "has no table for br-ex and is on a read-only file system",
        "mount a writable directory at /run/iproute2",
    );
    names(
        &format!("rm /run/iproute2/rt_tables; {closed}"),
        "there is no /run/iproute2/rt_tables, and it cannot be made",
        "mount a writable directory there",
    );
}

#[test]
fn frr_init_names_the_sysctls_before_it_looks_for_the_network() {
    if !available(namespaces_missing()) {
        return;
    }
    let init =
        "user=\"$user --no-new-privs --bounding-set -all\"; as /run/bin/obgp-runtime frr-init --shared-dir /run/agent";
    let told = |script: &str| String::from_utf8_lossy(&pod(script).stderr).into_owned();
    let without = told(&format!("{READ_ONLY}{init}"));
    assert!(
        without.starts_with(&format!("obgp-runtime: {CANNOT}no network sysctl can be set")),
        "{without}"
    );
    assert_eq!(without.lines().count(), 2, "{without}");
    let warned = told(&format!("{READ_ONLY}{init} --preflight warn"));
    assert!(warned.starts_with(&format!("obgp-runtime: note: {CANNOT}")), "{warned}");
    assert!(warned.contains("there is no network interface br-ex"), "{warned}");
    let with = told(init);
    assert!(
        with.contains("there is no network interface br-ex") && !with.contains("cannot work here"),
        "{with}"
    );
}

#[test]
fn all_problems_are_named_at_once() {
    if !available(namespaces_missing()) {
        return;
    }
    let told = agent(&format!("rm /usr/bin/vtysh; rm -r /run/frr; {READ_ONLY}"));
    assert_eq!(told.matches(CANNOT).count(), 3, "{told}");
    assert_eq!(told.matches("help: ").count(), 3, "{told}");
}
