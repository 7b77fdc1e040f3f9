//! Who is told what, by daemons that note it and that can be made to fail. The real ones are in tests/vtysh.rs.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;

type Heard = Arc<Mutex<BTreeMap<&'static str, Vec<String>>>>;

struct Lab {
    directory: tempfile::TempDir,
    heard: Heard,
}

impl Lab {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            heard: Heard::default(),
        }
    }

    /// A daemon that does not know the lines with these beginnings, refuses those of `refuses`, and dies of the line `die`.
    fn daemon(&self, name: &'static str, unknown: &'static [&'static str], refuses: &'static [&'static str]) {
        let listener = UnixListener::bind(self.directory.path().join(format!("{name}.vty"))).unwrap();
        let heard = self.heard.clone();
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
                    heard.lock().unwrap().entry(name).or_default().push(line.clone());
                    let begins = |words: &[&str]| words.iter().any(|word| line.starts_with(word));
                    let (text, status) = match () {
                        () if line == "die" && !begins(unknown) => return,
                        () if begins(unknown) => (format!("% [{name}] Unknown command: {line}\n"), 2),
                        () if begins(refuses) => (format!("{name} will not\n"), 13),
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

    fn heard(&self, name: &str) -> Vec<String> {
        self.heard.lock().unwrap().get(name).cloned().unwrap_or_default()
    }
}

const NO_BGP: &[&str] = &["router", "address-family", "import", "redistribute"];

fn statuses(session: &mut Session, lines: &[&str]) -> Vec<u8> {
    lines.iter().map(|line| session.execute(line).status).collect()
}

#[test]
fn who_did_not_enter_a_context_hears_nothing_of_it() {
    let lab = Lab::new();
    lab.daemon("zebra", NO_BGP, &[]);
    lab.daemon("bgpd", &["vni"], &[]);
    let mut session = lab.open();
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
    assert_eq!(lab.heard("zebra"), zebra);
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
    assert_eq!(lab.heard("bgpd"), bgpd);
}

#[test]
fn a_context_that_everybody_refused_swallows_its_lines() {
    let lab = Lab::new();
    lab.daemon("zebra", NO_BGP, &[]);
    lab.daemon("bgpd", &[], &["router bgp 65001"]);
    let mut session = lab.open();
    let lines = [
        "configure terminal",
        "router bgp 65001",
        "no vrf red",
        "exit",
        "no vrf blue",
    ];
    assert_eq!(statuses(&mut session, &lines), [0, 13, 13, 0, 0]);
    assert_eq!(
        lab.heard("zebra"),
        ["enable", "configure terminal", "router bgp 65001", "no vrf blue"]
    );
}

#[test]
fn a_line_that_those_inside_do_not_know_is_for_those_above() {
    let lab = Lab::new();
    lab.daemon("bgpd", &["ip route"], &[]);
    lab.daemon("staticd", NO_BGP, &[]);
    let mut session = lab.open();
    let lines = [
        "configure terminal",
        "router bgp 65000",
        "ip route 10.0.0.0/8 Null0",
        "nonsense",
    ];
    assert_eq!(statuses(&mut session, &lines), [0; 4]);
    assert_eq!(
        lab.heard("bgpd").last().unwrap(),
        "nonsense",
        "back on the top level, it is told everything again"
    );
    assert_eq!(lab.heard("staticd")[3..], ["ip route 10.0.0.0/8 Null0", "nonsense"]);
}

#[test]
fn what_nobody_knows_and_what_one_refuses_is_an_error() {
    let lab = Lab::new();
    lab.daemon("zebra", &["nonsense"], &["no interface"]);
    lab.daemon("bgpd", &["nonsense"], &[]);
    let mut session = lab.open();
    assert_eq!(session.execute("nonsense").status, Reply::UNKNOWN);
    session.execute("configure terminal");
    let refused = session.execute("no interface veth0");
    assert_eq!(refused.status, Reply::REFUSED);
    assert_eq!(
        refused.refusals().collect::<Vec<_>>(),
        [("zebra", 13, "zebra will not\n")]
    );
    assert_eq!(session.execute("rou bgp 1").status, Reply::REFUSED);
    assert!(!lab.heard("bgpd").contains(&"rou bgp 1".to_string()));
}

#[test]
fn a_daemon_that_dies_makes_its_line_fail_and_is_left_alone() {
    let lab = Lab::new();
    lab.daemon("zebra", &["die"], &[]);
    lab.daemon("bgpd", &[], &[]);
    let mut session = lab.open();
    session.execute("configure terminal");
    let died = session.execute("die");
    assert_eq!(died.status, Reply::REFUSED);
    assert!(died.refusals().next().unwrap().2.contains("bgpd went away"));
    assert_eq!(session.execute("vrf red").status, 0);
}

#[test]
fn a_daemon_that_will_not_be_configured_is_not_passed_over() {
    let lab = Lab::new();
    lab.daemon("mgmtd", &[], &["configure"]);
    lab.daemon("zebra", &[], &[]);
    assert_eq!(lab.open().configure().status, Reply::REFUSED);
}

#[test]
fn outside_configuration_everybody_is_asked() {
    let lab = Lab::new();
    lab.daemon("zebra", &["show bgp"], &[]);
    lab.daemon("bgpd", &["show zebra"], &[]);
    let mut session = lab.open();
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
        assert_eq!(session.execute(line).status, Reply::REFUSED, "{line}");
    }
    for line in ["exit", "end", "", "! comment", "# comment"] {
        assert_eq!(session.execute(line).status, 0);
    }
    assert_eq!(lab.heard("zebra"), ["enable", "show bgp summary"]);
}

#[test]
fn nobody_there_is_an_error_and_so_is_one_who_cannot_be_spoken_to() {
    let lab = Lab::new();
    let open = |path: &Path| Session::open(path, Duration::from_millis(200)).unwrap_err();
    assert!(matches!(open(lab.directory.path()), VtyshError::Nobody(_)));
    assert!(matches!(
        open(&lab.directory.path().join("none")),
        VtyshError::Nobody(_)
    ));
    lab.daemon("bgpd", &[], &[]);
    // Listens, but never answers.
    let _zebra = UnixListener::bind(lab.directory.path().join("zebra.vty")).unwrap();
    assert!(matches!(
        open(lab.directory.path()),
        VtyshError::Vty(VtyError::Timeout { .. })
    ));
}
