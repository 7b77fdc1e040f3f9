use std::os::unix::fs::PermissionsExt;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

const LEAF: &[&str] = &[
    "--asn=4200049263",
    "--router-id=10.0.192.111",
    "--peer-ip=10.0.192.1",
    "--peer-asn=65001",
];

fn try_run(arguments: &[&str]) -> Result<tempfile::TempDir, String> {
    let directory = tempfile::tempdir().unwrap();
    try_run_in(directory.path(), arguments).map(|()| directory)
}

fn try_run_in(directory: &Path, arguments: &[&str]) -> Result<(), String> {
    let output = format!("--output-dir={}", directory.display());
    let all = [&["frr-config"], LEAF, &[output.as_str()], arguments].concat();
    let command = Command::try_parse_from(all).map_err(|error| error.to_string())?;
    run(&command.args).map(drop).map_err(|error| error.to_string())
}

fn file(name: &str, content: &[u8]) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    let text = path.display().to_string();
    (directory, text)
}

#[test]
fn three_files_with_mode_0640() {
    let directory = try_run(&[]).unwrap();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        names.push(entry.file_name().into_string().unwrap());
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
    }
    names.sort();
    assert_eq!(names, ["daemons", "frr.conf", "vtysh.conf"]);
}

#[test]
fn after_an_error_no_file_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let said = try_run_in(directory.path(), &["--evpn-rr-ip=10.255.0.1"]).unwrap_err();
    assert!(said.contains("--evpn-rr-asn is missing"), "{said}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn unusable_options_are_rejected() {
    for (arguments, expected) in [
        (&["--evpn-rr-ip=10.255.0.1"][..], "--evpn-rr-asn is missing"),
        (&["--evpn-rr-asn=65100"], "--evpn-rr-ip is missing"),
        (
            &["--evpn-rr-ip=10.0.192.1", "--evpn-rr-asn=65100"],
            "10.0.192.1 is both",
        ),
        (
            &["--evpn-rr-ip=10.9.0.1", "--evpn-rr-asn=4200049263"],
            "the route reflector's ASN 4200049263 is this server's own",
        ),
    ] {
        let said = try_run(arguments).unwrap_err();
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let parse = |arguments: &[&str]| {
        let command = Command::try_parse_from([&["frr-config"], arguments].concat()).unwrap();
        run(&command.args).unwrap_err().to_string()
    };
    let same = parse(&[
        "--asn=65001",
        "--router-id=10.0.0.1",
        "--peer-ip=10.0.0.2",
        "--peer-asn=65001",
    ]);
    assert!(
        same.contains("the leaf switch's ASN 65001 is this server's own"),
        "{same}"
    );
    let uneven = parse(&[
        "--asn=1",
        "--router-id=10.0.0.1",
        "--peer-ip=10.0.0.2",
        "--peer-asn=65001,65002",
    ]);
    assert!(uneven.starts_with("1 leaf switches and 2 ASNs"), "{uneven}");
    let id = parse(&[
        "--asn=1",
        "--router-id=0.0.0.0",
        "--peer-ip=10.0.0.2",
        "--peer-asn=65001",
    ]);
    assert!(id.contains("0.0.0.0 is not a host address"), "{id}");
}

#[test]
fn passwords_that_frr_cannot_parse_are_rejected() {
    let longest = "x".repeat(80);
    for (content, good) in [
        ("s3cret\n", true),
        (longest.as_str(), true),
        ("", false),
        ("\n", false),
        ("two words", false),
        ("two\nlines", false),
        ("pässword", false),
        (&format!("{longest}x"), false),
    ] {
        let (_keep, path) = file("password", content.as_bytes());
        let result = try_run(&[&format!("--password-file={path}")]);
        match result {
            Ok(directory) => {
                let text = std::fs::read_to_string(directory.path().join("frr.conf")).unwrap();
                assert!(
                    good && text.contains(&format!("password {}\n", content.trim_end())),
                    "{content:?}"
                );
            }
            // The error does not contain the password.
            Err(said) => assert!(
                !good && (content.trim().is_empty() || !said.contains(content)),
                "{content:?}: {said}"
            ),
        }
    }
}

#[test]
fn the_extra_lines_are_at_the_end() {
    let (_keep, path) = file("extra", b"log syslog\r\n\nip prefix-list X permit any\n\n\n");
    let directory = try_run(&[&format!("--extra-config={path}")]).unwrap();
    let text = std::fs::read_to_string(directory.path().join("frr.conf")).unwrap();
    assert!(
        text.ends_with("! Lines of --extra-config.\nlog syslog\n\nip prefix-list X permit any\nend\n"),
        "{text}"
    );
    let (_keep, path) = file("extra", b"log syslog\nban\x07ner\n");
    let said = try_run(&[&format!("--extra-config={path}")]).unwrap_err();
    assert!(said.contains("line 2: FRR cannot parse control characters"), "{said}");
    assert!(
        try_run(&["--extra-config=/nonexistent"])
            .unwrap_err()
            .contains("cannot read /nonexistent")
    );
}
