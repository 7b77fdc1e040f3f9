//! The real parsers of FRR 8.4.4 and 10.3 accept the output of frr-config: `vtysh -C` knows the commands of all daemons, `bgpd -C`
//! executes those of bgpd.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::frr::{FrrRoot, Namespace, Suite, succeed};

/// Leaf switches and their ASNs.
const LEAVES: [(&str, &str); 6] = [
    ("--peer-ip=10.0.192.1", "65001"),
    ("--peer-ip=fd00::1", "65001"),
    ("--peer-ip=10.0.192.1,10.0.192.2", "65001,4200000001"),
    ("--peer-ip=10.0.192.1,fd00::1", "external"),
    ("--peer-interface=eth0", "external"),
    ("--peer-interface=eth0,eth1.100", "65001,external"),
];
/// BFD and graceful restart.
const TIMERS: [&[&str]; 3] = [
    &["--bfd"],
    &[
        "--bfd",
        "--bfd-detect-multiplier=255",
        "--bfd-receive-interval=10",
        "--bfd-transmit-interval=60000",
        "--graceful-restart=1",
        "--graceful-restart-stale-time=4095",
    ],
    &["--graceful-restart=0"],
];
const REFLECTORS: [&[&str]; 3] = [
    &[],
    &["--evpn-rr-ip=10.255.0.1", "--evpn-rr-asn=65100"],
    &["--evpn-rr-ip=fd00:ff::1", "--evpn-rr-asn=65100"],
];
/// A command of zebra, which `bgpd -C` does not know.
const NOT_BGPD: &str = "ip nht resolve-via-default";

/// Writes frr.conf to `output` and returns it.
fn frr_conf(output: &Path, owner: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_obgp-runtime"));
    command.args(["frr-config", "--asn=4200049263", "--router-id=10.0.192.111"]);
    command.args(["--frr-owner", owner]).args(arguments);
    succeed(command.arg("--output-dir").arg(output));
    fs::read_to_string(output.join("frr.conf")).unwrap()
}

/// Creates a directory for each choice of leaf switches and reflector: `all.conf` has the output for every combination of switches,
/// concatenated (starting a parser takes far longer than parsing), and `frr.conf` that for all switches. Returns the number.
fn all_combinations(directory: &Path, scratch: &Path, owner: &str) -> usize {
    let (password, extra) = (scratch.join("password"), scratch.join("extra"));
    fs::write(&password, "s3cret!#\"|?x\n").unwrap();
    let site =
        "ip prefix-list SITE seq 5 permit any\nrouter bgp 4200049263\n bgp bestpath med missing-as-worst\nexit\n";
    fs::write(&extra, site).unwrap();
    let password = format!("--password-file={}", password.display());
    let extra = format!("--extra-config={}", extra.display());
    let switches = ["--ipv6", &password, &extra, "--no-outbound-filter"];
    let fullest = 0b0111;
    let mut count = 0;
    for (leaf, (peer, asn)) in LEAVES.iter().enumerate() {
        for (reflector, evpn) in REFLECTORS.iter().enumerate() {
            let group = directory.join(format!("{leaf}-{reflector}"));
            fs::create_dir(&group).unwrap();
            let mut all = String::new();
            for bits in 0..1 << switches.len() {
                let asn = format!("--peer-asn={asn}");
                let mut arguments = vec![*peer, &asn];
                arguments.extend(*evpn);
                arguments.extend(TIMERS[(bits + leaf) % TIMERS.len()]);
                arguments.extend(
                    switches
                        .iter()
                        .enumerate()
                        .filter(|(bit, _)| bits & 1 << bit != 0)
                        .map(|(_, switch)| *switch),
                );
                let output = if bits == fullest { &group } else { scratch };
                let text = frr_conf(output, owner, &arguments);
                let text = text.strip_suffix("end\n").unwrap();
                all += &format!("! {}\n{text}", arguments.join(" "));
                count += 1;
            }
            fs::write(group.join("all.conf"), all).unwrap();
        }
    }
    count
}

/// The error messages of both parsers of a version about the files.
fn complaints(root: &FrrRoot, directory: &Path) -> Vec<String> {
    const SCRIPT: &str = "\
        for each in /mnt/*/; do \
            vtysh -C -f $each/all.conf || echo $each vtysh ended with $?; \
            sed '/^bfd$/,/^exit$/d' $each/frr.conf > $each/bgpd.conf; \
            /usr/lib/frr/bgpd -C -f $each/bgpd.conf || echo $each bgpd ended with $?; \
        done 2>&1";
    // bgpd reads the file as FRR's user. It does not know bfdd's lines and stops at their end.
    succeed(Command::new("chmod").arg("a+rx").arg(directory));
    let space = Namespace::new("check");
    let mut inside = root.command(&[(directory, "/mnt")], "sh");
    inside.args(["-c", SCRIPT]);
    let mut command = space.command(inside.get_program());
    let output_text = succeed(command.args(inside.get_args()));
    // Parts of the messages about invalid lines and missing files.
    let complaint = |line: &&str| {
        ["ended with", "on config line", "nknown command", "open"]
            .iter()
            .any(|sign| line.contains(sign))
    };
    let lines = output_text
        .lines()
        .filter(complaint)
        .filter(|line| !line.contains(NOT_BGPD));
    lines.map(str::to_string).collect()
}

fn every_combination_is_accepted(suite: Suite) {
    let Some(root) = FrrRoot::get(suite) else { return };
    let (directory, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let count = all_combinations(directory.path(), scratch.path(), &root.frr_owner());
    assert_eq!(count, 6 * 3 * 16);
    let none: [&str; 0] = [];
    assert_eq!(complaints(&root, directory.path()), none, "FRR {}", suite.frr_version());
}

#[test]
fn every_combination_is_accepted_by_8_4() {
    every_combination_is_accepted(Suite::Bookworm);
}

#[test]
fn every_combination_is_accepted_by_10_3() {
    every_combination_is_accepted(Suite::Trixie);
}

/// The check can fail: for a mistake in a command of bgpd and for one in a command of zebra.
#[test]
fn a_mistake_is_detected() {
    for suite in Suite::ALL {
        let Some(root) = FrrRoot::get(suite) else { return };
        for (right, wrong) in [
            ("remote-as 65001", "remote-as 4294967296"),
            ("ip prefix-list", "ip prefix-lists"),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let group = directory.path().join("0");
            fs::create_dir(&group).unwrap();
            let text = frr_conf(&group, &root.frr_owner(), &["--peer-ip=10.0.192.1", "--peer-asn=65001"]);
            assert!(text.contains(right));
            // Overwritten, so that owner and mode stay.
            fs::write(group.join("frr.conf"), text.replace(right, wrong)).unwrap();
            // The mistake follows valid lines: the parser continues to the end.
            let all = format!("{}{}", text.strip_suffix("end\n").unwrap(), text.replace(right, wrong));
            fs::write(group.join("all.conf"), all).unwrap();
            let output_text = complaints(&root, directory.path()).join("\n");
            assert!(
                output_text.contains("vtysh ended with 2") && output_text.contains("on config line"),
                "{suite:?} {wrong}: {output_text}"
            );
        }
    }
}
