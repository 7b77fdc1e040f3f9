//! `sysctl` and the checks before the start, on the real kernel: in network and mount namespaces where `/proc/sys` is writable,
//! read-only as in a container, and the node's `/proc/sys/net` mounted elsewhere.

mod support;

use std::os::unix::fs::symlink;
use std::process::{Command, Output, Stdio};

use support::{available, namespace::namespaces_missing};

/// As a container engine leaves it.
const READ_ONLY: &str = "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys\n";
const MOUNT: &str = "mkdir -p /run/obgp/sysctl; mount --bind /proc/sys/net /run/obgp/sysctl\n";
/// Where something else is mounted.
const PRETENCE: &str = "mkdir -p /run/obgp/sysctl/ipv4/conf/br-ex; echo 0 > /run/obgp/sysctl/ipv4/ip_forward\n\
                        echo 0 > /run/obgp/sysctl/ipv4/conf/br-ex/proxy_arp\n";

/// A shell script in namespaces of its own, with `sysctl` first on PATH.
fn shell(script: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    symlink(env!("CARGO_BIN_EXE_obgp-runtime"), directory.path().join("sysctl")).unwrap();
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let setup = "set -e; mount --bind \"$0\" /mnt; mount -t tmpfs tmpfs /run; PATH=/mnt:$PATH\n\
                 ip link add br-ex type bridge; ip link add br-ex.100 type bridge\n\
                 get() { cat /proc/sys/net/$1; }\n";
    Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", &format!("{setup}{script}")])
        .arg(directory.path())
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Exit status, stdout, stderr.
fn seen(script: &str) -> (Option<i32>, String, String) {
    let output = shell(script);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn succeeds(script: &str, stdout: &str) {
    assert_eq!(seen(script), (Some(0), stdout.to_string(), String::new()), "{script}");
}

fn fails(script: &str, complaints: &[&str]) {
    let (code, stdout, stderr) = seen(script);
    assert_eq!(code, Some(1), "{script}: {stdout}{stderr}");
    for complaint in complaints {
        assert!(
            stderr.contains(complaint),
            "{script}: {complaint:?} is not in {stderr:?}"
        );
    }
}

#[test]
fn it_answers_as_procps_does() {
    if !available(namespaces_missing()) {
        return;
    }
    succeeds(
        "sysctl net.ipv4.conf.br-ex.proxy_arp; sysctl -n net/ipv4/conf/br-ex.100/proxy_arp; sysctl -e net.ipv4.none",
        "net.ipv4.conf.br-ex.proxy_arp = 0\n0\n",
    );
    succeeds(
        "sysctl -w net.ipv4.conf.br-ex/100.proxy_arp=1 net.ipv6.conf.all.forwarding=1; get ipv4/conf/br-ex.100/proxy_arp\n\
         sysctl -qw net.ipv4.ip_forward=1; get ipv4/ip_forward",
        "net.ipv4.conf.br-ex/100.proxy_arp = 1\nnet.ipv6.conf.all.forwarding = 1\n1\n1\n",
    );
    fails(
        "sysctl net.ipv4.none",
        &["sysctl: cannot stat /proc/sys/net/ipv4/none: No such file or directory"],
    );
    fails(
        "sysctl -w net.ipv4.conf.br-no.proxy_arp=1",
        &["cannot stat /proc/sys/net/ipv4/conf/br-no/proxy_arp"],
    );
    fails("sysctl -w net.ipv4.ip_forward", &["must be KEY=VALUE"]);
    for (arguments, complaint) in [
        ("", "a key is missing"),
        ("-x net.ipv4.ip_forward", "unknown argument \"-x\""),
    ] {
        let (code, _, stderr) = seen(&format!("sysctl {arguments}"));
        assert_eq!(code, Some(2), "{arguments}: {stderr}");
        assert!(
            stderr.contains(complaint) && stderr.contains("Usage: sysctl"),
            "{stderr}"
        );
    }
    succeeds("sysctl --help | grep -c 'proxy_arp,rp_filter'", "1\n");
    succeeds(
        "sysctl -nw net.ipv4.ip_forward=1; sysctl --values net.ipv4.ip_forward",
        "1\n1\n",
    );
    // The second is set although the first cannot be.
    let (code, stdout, _) =
        seen("sysctl -w net.ipv4.none=1 net.ipv4.ip_forward=1 || s=$?; get ipv4/ip_forward; exit $s");
    assert_eq!((code, stdout.as_str()), (Some(1), "net.ipv4.ip_forward = 1\n1\n"));
}

#[test]
fn only_the_agents_keys_and_values_are_written() {
    if !available(namespaces_missing()) {
        return;
    }
    for (setting, complaint) in [
        ("net.ipv4.tcp_syncookies=0", "the agent does not need it"),
        ("net.ipv4.conf.br-ex.arp_ignore=1", "the agent does not need it"),
        ("kernel.core_pattern=1", "is not a key below net"),
        ("net/../kernel/sysrq=0", "is not the name of a key"),
        ("net.ipv4.conf.br-ex.proxy_arp=3", "is not a value that the agent sets"),
        ("net.ipv4.conf.br-ex.proxy_arp=", "is not a value that the agent sets"),
    ] {
        fails(&format!("sysctl -w {setting}"), &[complaint, "sysctl: "]);
    }
}

#[test]
fn a_read_only_proc_is_written_through_the_nodes() {
    if !available(namespaces_missing()) {
        return;
    }
    let set = "sysctl -w net.ipv4.conf.br-ex.proxy_arp=1 net.ipv6.conf.br-ex/100.proxy_ndp=1\n";
    let written = "net.ipv4.conf.br-ex.proxy_arp = 1\nnet.ipv6.conf.br-ex/100.proxy_ndp = 1\n";
    succeeds(
        &format!("{MOUNT}{READ_ONLY}{set}get ipv4/conf/br-ex/proxy_arp; get ipv6/conf/br-ex.100/proxy_ndp"),
        &format!("{written}1\n1\n"),
    );
    // The network is that of the process, not that of the mount.
    succeeds(
        &format!(
            "{MOUNT}{READ_ONLY}unshare --net sh -c 'ip link add br-ex type bridge; {}'; get ipv4/conf/br-ex/proxy_arp",
            "sysctl -w net.ipv4.conf.br-ex.proxy_arp=1"
        ),
        "net.ipv4.conf.br-ex.proxy_arp = 1\n0\n",
    );
    // What is as it is to be needs no way.
    succeeds(&format!("{set}{READ_ONLY}{set}"), &written.repeat(2));
}

#[test]
fn without_a_way_the_remedy_is_told() {
    if !available(namespaces_missing()) {
        return;
    }
    let set = "sysctl -w net.ipv4.conf.br-ex.proxy_arp=1";
    let denied = "sysctl: permission denied on key \"net.ipv4.conf.br-ex.proxy_arp\": /proc/sys/net is closed: Read-only file system";
    let remedy = "help: mount the node's /proc/sys/net at /run/obgp/sysctl";
    fails(
        &format!("{READ_ONLY}{set}"),
        &[denied, "/run/obgp/sysctl is not there", remedy],
    );
    let pretence = "/run/obgp/sysctl is not a mount of /proc/sys/net";
    fails(
        &format!("{PRETENCE}{READ_ONLY}{set} || s=$?; grep 0 /run/obgp/sysctl/ipv4/conf/br-ex/proxy_arp; exit $s"),
        &[denied, pretence, remedy],
    );
    let link = "mkdir -p /run/obgp/sysctl; ln -s /proc/sys/net/ipv4 /run/obgp/sysctl/ipv4\n";
    fails(&format!("{link}{READ_ONLY}{set}"), &[denied, pretence]);
    let whole = "mkdir -p /run/obgp/sysctl; mount --bind /proc/sys /run/obgp/sysctl\n";
    fails(&format!("{whole}{READ_ONLY}{set}"), &[denied, pretence]);
    let closed = "mount -o remount,ro,bind /run/obgp/sysctl\n";
    fails(
        &format!("{MOUNT}{closed}{READ_ONLY}{set}"),
        &[denied, "/run/obgp/sysctl is read-only"],
    );
    let user = "setpriv --reuid 42494 --clear-groups";
    fails(
        &format!("chmod 755 /mnt; {MOUNT}{READ_ONLY}{user} {set}"),
        &[
            "/run/obgp/sysctl is closed: Permission denied",
            "help: write it as root with NET_ADMIN",
        ],
    );
}
