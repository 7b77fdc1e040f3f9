//! Which daemon gets which line, with fake daemons that record lines and can fail. tests/vtysh.rs uses real ones.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;

type Received = Arc<Mutex<BTreeMap<&'static str, Vec<String>>>>;

struct FakeFrr {
    directory: tempfile::TempDir,
    received: Received,
}

impl FakeFrr {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            received: Received::default(),
        }
    }

    /// A daemon that does not know lines with the prefixes in `unknown`, rejects those in `rejects`, and ends at the line `die`.
    fn daemon(&self, name: &'static str, unknown: &'static [&'static str], rejects: &'static [&'static str]) {
        let listener = UnixListener::bind(self.directory.path().join(format!("{name}.vty"))).unwrap();
        let received = self.received.clone();
        thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut pending = Vec::new();
            let mut chunk = [0; 4096];
            loop {
                match stream.read(&mut chunk) {
                    Ok(read) if read > 0 => pending.extend_from_slice(&chunk[..read]),
                    _ => return,
                }
                while let Some(end) = pending.iter().position(|&byte| byte == 0) {
                    let line = String::from_utf8(pending.drain(..=end).take(end).collect()).unwrap();
                    received.lock().unwrap().entry(name).or_default().push(line.clone());
                    let begins = |words: &[&str]| words.iter().any(|word| line.starts_with(word));
                    let (text, status) = match () {
                        () if line == "die" && !begins(unknown) => return,
                        () if begins(unknown) => (format!("% [{name}] Unknown command: {line}\n"), 2),
                        () if begins(rejects) => (format!("{name} will not\n"), 13),
                        () if line.starts_with("show") => (format!("{line} of {name}\n"), 0),
                        () => (String::new(), 0),
                    };
                    let mut bytes = text.into_bytes();
                    bytes.extend_from_slice(&[0, 0, 0, status]);
                    stream.write_all(&bytes).unwrap();
                }
            }
        });
    }

    fn open(&self) -> Session {
        Session::open(self.directory.path(), Duration::from_secs(5)).unwrap()
    }

    fn received(&self, name: &str) -> Vec<String> {
        self.received.lock().unwrap().get(name).cloned().unwrap_or_default()
    }
}

const NO_BGP: &[&str] = &["router", "address-family", "import", "redistribute"];

fn statuses(session: &mut Session, lines: &[&str]) -> Vec<u8> {
    lines.iter().map(|line| session.execute(line).status).collect()
}

#[test]
fn a_daemon_outside_a_context_does_not_get_its_lines() {
    let frr = FakeFrr::new();
    frr.daemon("zebra", NO_BGP, &[]);
    frr.daemon("bgpd", &["vni"], &[]);
    let mut session = frr.open();
    let lines = [
        "configure terminal",
        "router bgp 65000",
        " address-family ipv4 unicast",
        "  import vrf red",
        " exit-address-family",
        "exit",
        "vrf red",
        "  vni 5",
        "exit-vrf",
        "end",
    ];
    assert_eq!(statuses(&mut session, &lines), [0; 10]);
    let zebra = [
        "enable",
        "configure terminal",
        "router bgp 65000",
        "vrf red",
        "vni 5",
        "end",
        "configure terminal",
        "end",
    ];
    assert_eq!(frr.received("zebra"), zebra);
    let bgpd = [
        "enable",
        "configure terminal",
        "router bgp 65000",
        "address-family ipv4 unicast",
        "import vrf red",
        "exit",
        "end",
        "configure terminal",
        "vrf red",
        "vni 5",
        "end",
        "configure terminal",
        "end",
    ];
    assert_eq!(frr.received("bgpd"), bgpd);
}

#[test]
fn lines_in_a_context_that_every_daemon_rejected_are_not_sent() {
    let frr = FakeFrr::new();
    frr.daemon("zebra", NO_BGP, &[]);
    frr.daemon("bgpd", &[], &["router bgp 65001"]);
    let mut session = frr.open();
    let lines = [
        "configure terminal",
        "router bgp 65001",
        "no vrf red",
        "exit",
        "no vrf blue",
    ];
    assert_eq!(statuses(&mut session, &lines), [0, 13, 13, 0, 0]);
    assert_eq!(
        frr.received("zebra"),
        ["enable", "configure terminal", "router bgp 65001", "no vrf blue"]
    );
}

#[test]
fn a_line_unknown_in_the_context_is_sent_one_level_up() {
    let frr = FakeFrr::new();
    frr.daemon("bgpd", &["ip route"], &[]);
    frr.daemon("staticd", NO_BGP, &[]);
    let mut session = frr.open();
    let lines = [
        "configure terminal",
        "router bgp 65000",
        "ip route 10.0.0.0/8 Null0",
        "nonsense",
    ];
    assert_eq!(statuses(&mut session, &lines), [0; 4]);
    assert_eq!(
        frr.received("bgpd").last().unwrap(),
        "nonsense",
        "at the top level it gets all lines again"
    );
    assert_eq!(frr.received("staticd")[3..], ["ip route 10.0.0.0/8 Null0", "nonsense"]);
}

#[test]
fn an_unknown_line_and_a_rejected_line_are_errors() {
    let frr = FakeFrr::new();
    frr.daemon("zebra", &["nonsense"], &["no interface"]);
    frr.daemon("bgpd", &["nonsense"], &[]);
    let mut session = frr.open();
    assert_eq!(session.execute("nonsense").status, Reply::UNKNOWN);
    session.execute("configure terminal");
    let rejected = session.execute("no interface veth0");
    assert_eq!(rejected.status, Reply::REJECTED);
    assert_eq!(
        rejected.rejections().collect::<Vec<_>>(),
        [("zebra", 13, "zebra will not\n")]
    );
    assert_eq!(session.execute("rou bgp 1").status, Reply::REJECTED);
    assert!(!frr.received("bgpd").contains(&"rou bgp 1".to_string()));
}

#[test]
fn a_daemon_that_disconnects_fails_the_line_and_gets_no_further_lines() {
    let frr = FakeFrr::new();
    frr.daemon("zebra", &["die"], &[]);
    frr.daemon("bgpd", &[], &[]);
    let mut session = frr.open();
    session.execute("configure terminal");
    let died = session.execute("die");
    assert_eq!(died.status, Reply::REJECTED);
    assert!(
        died.rejections()
            .next()
            .unwrap()
            .2
            .contains("bgpd closed the connection")
    );
    assert_eq!(session.execute("vrf red").status, 0);
}

#[test]
fn a_daemon_that_rejects_configuration_mode_is_an_error() {
    let frr = FakeFrr::new();
    frr.daemon("mgmtd", &[], &["configure"]);
    frr.daemon("zebra", &[], &[]);
    assert_eq!(frr.open().configure().status, Reply::REJECTED);
}

#[test]
fn outside_configuration_mode_every_daemon_gets_the_line() {
    let frr = FakeFrr::new();
    frr.daemon("zebra", &["show bgp"], &[]);
    frr.daemon("bgpd", &["show zebra"], &[]);
    let mut session = frr.open();
    let answer = session.execute("show bgp summary");
    assert_eq!(
        answer.accepted_texts().collect::<Vec<_>>(),
        ["show bgp summary of bgpd\n"]
    );
    for line in [
        "write memory",
        "wr",
        "copy running-config startup-config",
        "do write file",
    ] {
        assert_eq!(session.execute(line).status, Reply::REJECTED, "{line}");
    }
    for line in ["exit", "end", "", "! comment", "# comment"] {
        assert_eq!(session.execute(line).status, 0);
    }
    assert_eq!(frr.received("zebra"), ["enable", "show bgp summary"]);
}

#[test]
fn no_daemon_and_a_daemon_that_does_not_answer_are_errors() {
    let frr = FakeFrr::new();
    let open = |path: &Path| Session::open(path, Duration::from_millis(200)).unwrap_err();
    assert!(matches!(open(frr.directory.path()), VtyshError::NoDaemons(_)));
    assert!(matches!(
        open(&frr.directory.path().join("none")),
        VtyshError::NoDaemons(_)
    ));
    frr.daemon("bgpd", &[], &[]);
    // Listens, but never answers.
    let _zebra = UnixListener::bind(frr.directory.path().join("zebra.vty")).unwrap();
    assert!(matches!(
        open(frr.directory.path()),
        VtyshError::Vty(VtyError::Timeout { .. })
    ));
}
