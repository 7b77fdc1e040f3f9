//! What frr-config writes, read by the real parsers of FRR 8.4.4 and 10.3: `vtysh -C` knows the commands of all daemons, `bgpd -C`
//! carries out its own.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::frr::{FrrRoot, Namespace, Suite, succeed};

/// Addresses and ASNs of leaf switches.
const LEAVES: [(&str, &str); 4] = [
    ("10.0.192.1", "65001"),
    ("fd00::1", "65001"),
    ("10.0.192.1,10.0.192.2", "65001,4200000001"),
    ("10.0.192.1,fd00::1", "65001"),
];
const REFLECTORS: [&[&str]; 3] = [
    &[],
    &["--evpn-rr-ip=10.255.0.1", "--evpn-rr-asn=65100"],
    &["--evpn-rr-ip=fd00:ff::1", "--evpn-rr-asn=65100"],
];
/// A line of vtysh's or zebra's, which bgpd alone does not know.
const NOT_BGPD: &[&str] = &["ip nht resolve-via-default"];

fn frr_config(output: &Path, owner: &str, arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_obgp-runtime"));
    command.args([
        "frr-config",
        "--asn=4200049263",
        "--router-id=10.0.192.111",
        "--frr-owner",
        owner,
    ]);
    succeed(command.arg("--output-dir").arg(output).args(arguments));
}

/// Writes each combination of options to a directory of its own; what the combinations are.
fn all_combinations(directory: &Path, owner: &str) -> Vec<String> {
    let (password, extra) = (directory.join("password"), directory.join("extra"));
    fs::write(&password, "s3cret!#\"|?x\n").unwrap();
    fs::write(
        &extra,
        "ip prefix-list SITE seq 5 permit any\nrouter bgp 4200049263\n bgp bestpath med missing-as-worst\nexit\n",
    )
    .unwrap();
    let password = format!("--password-file={}", password.display());
    let extra = format!("--extra-config={}", extra.display());
    let switches = ["--ipv6", "--bfd", "--no-outbound-filter", &password, &extra];
    let mut combinations = Vec::new();
    for (address, asn) in LEAVES {
        for reflector in REFLECTORS {
            for bits in 0..1 << switches.len() {
                let chosen = switches
                    .iter()
                    .enumerate()
                    .filter(|(bit, _)| bits & 1 << bit != 0)
                    .map(|(_, switch)| *switch);
                let leaf = [format!("--peer-ip={address}"), format!("--peer-asn={asn}")];
                let arguments: Vec<&str> = leaf
                    .iter()
                    .map(String::as_str)
                    .chain(reflector.iter().copied())
                    .chain(chosen)
                    .collect();
                let output = directory.join(combinations.len().to_string());
                fs::create_dir(&output).unwrap();
                frr_config(&output, owner, &arguments);
                // bgpd takes a moment to start: it gets the longest files, whose lines are all that others have.
                if arguments.contains(&password.as_str()) && arguments.contains(&extra.as_str()) {
                    fs::write(output.join("for-bgpd"), "").unwrap();
                }
                combinations.push(arguments.join(" "));
            }
        }
    }
    combinations
}

/// What both parsers of a version have to say of each directory's frr.conf, one file of theirs per directory.
fn check(root: &FrrRoot, directory: &Path) {
    const SCRIPT: &str = "\
        for each in /mnt/*/; do \
            { vtysh -C -f $each/frr.conf || echo vtysh ended with $?; \
              test ! -e $each/for-bgpd || /usr/lib/frr/bgpd -C -f $each/frr.conf || echo bgpd ended with $?; \
            } >$each/said 2>&1; \
        done";
    // bgpd reads it as FRR's user.
    succeed(Command::new("chmod").arg("a+rx").arg(directory));
    let space = Namespace::new("check");
    let mut inside = root.command(&[(directory, "/mnt")], "sh");
    inside.args(["-c", SCRIPT]);
    let mut command = space.command(inside.get_program());
    succeed(command.args(inside.get_args()));
}

/// The lines that are a complaint.
fn complaints(directory: &Path) -> String {
    let said = fs::read_to_string(directory.join("said")).unwrap();
    let complaint = |line: &&str| {
        line.contains("ended with")
            || line.contains("on config line")
            || line.contains("nknown command")
            || line.contains("open")
    };
    let lines = said
        .lines()
        .filter(complaint)
        .filter(|line| !NOT_BGPD.iter().any(|other| line.contains(other)));
    lines.collect::<Vec<_>>().join("\n")
}

fn every_combination_is_understood(suite: Suite) {
    let Some(root) = FrrRoot::get(suite) else { return };
    let directory = tempfile::tempdir().unwrap();
    let combinations = all_combinations(directory.path(), &root.frr_owner());
    check(&root, directory.path());
    for (index, combination) in combinations.iter().enumerate() {
        let one = directory.path().join(index.to_string());
        let complaints = complaints(&one);
        let frr_conf = fs::read_to_string(one.join("frr.conf")).unwrap();
        assert!(
            complaints.is_empty(),
            "FRR {}: {combination}\n{complaints}\n{frr_conf}",
            suite.frr_version()
        );
    }
    assert_eq!(combinations.len(), 384);
}

#[test]
fn every_combination_is_understood_by_8_4() {
    every_combination_is_understood(Suite::Bookworm);
}

#[test]
fn every_combination_is_understood_by_10_3() {
    every_combination_is_understood(Suite::Trixie);
}

/// The check is able to fail: a mistake in a line of bgpd's, and one in a line of zebra's.
#[test]
fn a_mistake_is_noticed() {
    for suite in Suite::ALL {
        let Some(root) = FrrRoot::get(suite) else { return };
        for (right, wrong) in [
            ("remote-as 65001", "remote-as 4294967296"),
            ("ip prefix-list", "ip prefix-lists"),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let one = directory.path().join("0");
            fs::create_dir(&one).unwrap();
            frr_config(&one, &root.frr_owner(), &["--peer-ip=10.0.192.1", "--peer-asn=65001"]);
            let text = fs::read_to_string(one.join("frr.conf")).unwrap();
            assert!(text.contains(right));
            fs::write(one.join("frr.conf"), text.replace(right, wrong)).unwrap();
            fs::write(one.join("for-bgpd"), "").unwrap();
            check(&root, directory.path());
            let said = complaints(&one);
            assert!(
                said.contains("vtysh ended with 2") && said.contains("on config line"),
                "{suite:?} {wrong}: {said}"
            );
        }
    }
}
