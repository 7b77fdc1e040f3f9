//! `sysctl` on the real kernel, in network and mount namespaces: with `/proc/sys` writable, read-only as in a container, and with the
//! node's `/proc/sys/net` mounted elsewhere.

mod support;

use std::os::unix::fs::symlink;
use std::process::{Command, Output, Stdio};

use support::{available, namespace::namespaces_missing};

/// Like a container engine.
const READ_ONLY: &str = "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys\n";
const MOUNT: &str = "mkdir -p /run/obgp/sysctl; mount --bind /proc/sys/net /run/obgp/sysctl\n";
/// Something else at the place of the mount.
const NOT_PROC: &str = "mkdir -p /run/obgp/sysctl/ipv4/conf/br-ex; echo 0 > /run/obgp/sysctl/ipv4/ip_forward\n\
                        echo 0 > /run/obgp/sysctl/ipv4/conf/br-ex/proxy_arp\n";

/// Runs a shell script in new namespaces, with `sysctl` first in PATH.
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

fn fails(script: &str, messages: &[&str]) {
    let (code, stdout, stderr) = seen(script);
    assert_eq!(code, Some(1), "{script}: {stdout}{stderr}");
    for message in messages {
        assert!(stderr.contains(message), "{script}: {message:?} is not in {stderr:?}");
    }
}

#[test]
fn the_output_is_that_of_procps() {
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
    for (arguments, message) in [
        ("", "a key is missing"),
        ("-x net.ipv4.ip_forward", "unknown argument \"-x\""),
    ] {
        let (code, _, stderr) = seen(&format!("sysctl {arguments}"));
        assert_eq!(code, Some(2), "{arguments}: {stderr}");
        assert!(stderr.contains(message) && stderr.contains("Usage: sysctl"), "{stderr}");
    }
    succeeds("sysctl --help | grep -c 'proxy_arp,rp_filter'", "1\n");
    succeeds(
        "sysctl -nw net.ipv4.ip_forward=1; sysctl --values net.ipv4.ip_forward",
        "1\n1\n",
    );
    // The second key is set although the first one fails.
    let (code, stdout, _) =
        seen("sysctl -w net.ipv4.none=1 net.ipv4.ip_forward=1 || s=$?; get ipv4/ip_forward; exit $s");
    assert_eq!((code, stdout.as_str()), (Some(1), "net.ipv4.ip_forward = 1\n1\n"));
}

#[test]
fn only_keys_and_values_of_the_agent_are_written() {
    if !available(namespaces_missing()) {
        return;
    }
    for (setting, message) in [
        ("net.ipv4.tcp_syncookies=0", "the agent does not need it"),
        ("net.ipv4.conf.br-ex.arp_ignore=1", "the agent does not need it"),
        ("kernel.core_pattern=1", "is not a key below net"),
        ("net/../kernel/sysrq=0", "is not a key name"),
        ("net.ipv4.conf.br-ex.proxy_arp=3", "is not allowed"),
        ("net.ipv4.conf.br-ex.proxy_arp=", "is not allowed"),
    ] {
        fails(&format!("sysctl -w {setting}"), &[message, "sysctl: "]);
    }
}

#[test]
fn with_a_read_only_proc_keys_are_written_through_the_mount() {
    if !available(namespaces_missing()) {
        return;
    }
    let set = "sysctl -w net.ipv4.conf.br-ex.proxy_arp=1 net.ipv6.conf.br-ex/100.proxy_ndp=1\n";
    let written = "net.ipv4.conf.br-ex.proxy_arp = 1\nnet.ipv6.conf.br-ex/100.proxy_ndp = 1\n";
    succeeds(
        &format!("{MOUNT}{READ_ONLY}{set}get ipv4/conf/br-ex/proxy_arp; get ipv6/conf/br-ex.100/proxy_ndp"),
        &format!("{written}1\n1\n"),
    );
    // The process's own network namespace counts, not that of the mount.
    succeeds(
        &format!(
            "{MOUNT}{READ_ONLY}unshare --net sh -c 'ip link add br-ex type bridge; {}'; get ipv4/conf/br-ex/proxy_arp",
            "sysctl -w net.ipv4.conf.br-ex.proxy_arp=1"
        ),
        "net.ipv4.conf.br-ex.proxy_arp = 1\n0\n",
    );
    // A key that has the value is not written.
    succeeds(&format!("{set}{READ_ONLY}{set}"), &written.repeat(2));
}

#[test]
fn without_a_writable_mount_the_error_has_the_fix() {
    if !available(namespaces_missing()) {
        return;
    }
    let set = "sysctl -w net.ipv4.conf.br-ex.proxy_arp=1";
    let denied = "sysctl: permission denied on key \"net.ipv4.conf.br-ex.proxy_arp\": /proc/sys/net is not writable: Read-only file system";
    let fix = "help: mount the node's /proc/sys/net at /run/obgp/sysctl";
    fails(
        &format!("{READ_ONLY}{set}"),
        &[denied, "/run/obgp/sysctl is not there", fix],
    );
    let not_proc = "/run/obgp/sysctl is not a mount of /proc/sys/net";
    fails(
        &format!("{NOT_PROC}{READ_ONLY}{set} || s=$?; grep 0 /run/obgp/sysctl/ipv4/conf/br-ex/proxy_arp; exit $s"),
        &[denied, not_proc, fix],
    );
    let link = "mkdir -p /run/obgp/sysctl; ln -s /proc/sys/net/ipv4 /run/obgp/sysctl/ipv4\n";
    fails(&format!("{link}{READ_ONLY}{set}"), &[denied, not_proc]);
    let whole = "mkdir -p /run/obgp/sysctl; mount --bind /proc/sys /run/obgp/sysctl\n";
    fails(&format!("{whole}{READ_ONLY}{set}"), &[denied, not_proc]);
    let closed = "mount -o remount,ro,bind /run/obgp/sysctl\n";
    fails(
        &format!("{MOUNT}{closed}{READ_ONLY}{set}"),
        &[denied, "/run/obgp/sysctl is read-only"],
    );
    let user = "setpriv --reuid 42494 --clear-groups";
    fails(
        &format!("chmod 755 /mnt; {MOUNT}{READ_ONLY}{user} {set}"),
        &[
            "/run/obgp/sysctl is not writable: Permission denied",
            "help: run it as root with NET_ADMIN",
        ],
    );
}
