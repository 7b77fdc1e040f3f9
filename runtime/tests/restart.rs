//! The effect on the leaf switch of an FRR restart or a drain on a server with frr-init's configuration. FRR 8.4.4 and 10.3.
//!
//! The VRF is a network namespace (zebra -n), because some kernels have no VRFs; bgpd leaks from either.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use obgp_runtime::vty::Connection;
use support::agent::Venv;
use support::frr::{FrrRoot, Namespace, Node, Suite, succeed};
use support::site::{SERVER, SERVER_ASN, Site};

const LEAF: &str = "10.0.192.1";
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest time for which the leaf switch may lack the route to a working address.
const LONGEST_GAP: Duration = Duration::from_millis(1500);
const LASTING: &str = "10.250.0.5/32";
const REMOVED: &str = "10.250.0.6/32";

/// A server with an address in its VRF, and a leaf switch.
struct Lab {
    // Fields are dropped in this order.
    server: Option<Node>,
    leaf: Node,
    vrf: Namespace,
    site: Site,
    root: FrrRoot,
}

impl Lab {
    fn new(suite: Suite) -> Option<Self> {
        let (root, site) = (FrrRoot::get(suite)?, Site::usual()?);
        let vrf = Namespace::new("vrf");
        for address in [LASTING, REMOVED] {
            vrf.ip(&format!("address add {address} dev lo"));
        }
        let leaf_conf = format!(
            "router bgp 65001\n bgp router-id 10.255.1.1\n no bgp ebgp-requires-policy\n \
             neighbor {SERVER} remote-as {SERVER_ASN}\n neighbor {SERVER} timers connect 1\n \
             address-family ipv4 unicast\n  neighbor {SERVER} default-originate\n exit-address-family\n"
        );
        let leaf = site.switch(&root, &site.leaf, "leaf", &leaf_conf);
        site.init(&["--frr-owner", &root.frr_owner(), "--peer-ip", LEAF])
            .succeeded();
        let daemons = site.path("frr/daemons");
        let text = fs::read_to_string(&daemons).unwrap();
        let text = text.replace("zebra_options=\"", "zebra_options=\"-n ");
        // By default watchfrr waits 60 s before it restarts a daemon that was started recently.
        fs::write(
            &daemons,
            format!("{text}watchfrr_options=\"--min-restart-interval=1\"\n"),
        )
        .unwrap();
        let mut lab = Self {
            server: None,
            leaf,
            vrf,
            site,
            root,
        };
        lab.start();
        lab.wait_for(LASTING, true);
        lab.wait_for(REMOVED, true);
        Some(lab)
    }

    fn start(&mut self) {
        let node = Node::start_with_vrf(&self.root, &self.site.server, &self.site.path("frr"), Some(&self.vrf));
        self.server = Some(node);
    }

    fn server(&self) -> &Node {
        self.server.as_ref().unwrap()
    }

    fn wait_for(&self, prefix: &str, there: bool) {
        let deadline = Instant::now() + PATIENCE;
        while has(&self.leaf.sockets(), prefix) != there {
            assert!(
                Instant::now() < deadline,
                "{prefix} there: {}\n{}\n{}\n{}",
                !there,
                self.leaf.vtysh(&["show bgp ipv4 unicast", "show bgp summary"]),
                self.server().vtysh(&[
                    "show running-config",
                    "show bgp ipv4 unicast",
                    "show bgp vrf bgp-vrf ipv4",
                    "show ip route vrf bgp-vrf",
                    "show interface vrf bgp-vrf"
                ]),
                self.server().log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn signal(&self, daemon: &str, signal: &str) {
        let pids = succeed(Command::new("ip").args(["netns", "pids", self.site.server.name()]));
        let is_it =
            |pid: &&str| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == daemon);
        let pid = pids.lines().find(is_it).unwrap();
        succeed(Command::new("kill").args([signal, pid]));
        // zebra 10.3 may keep the route of an address that is removed at the moment when bgpd ends.
        while is_it(&pid) {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(500));
    }

    /// How long the leaf switch has no route to the lasting address, from `restart` until the removed address is gone too.
    fn gap(&mut self, name: &str, restart: impl FnOnce(&mut Self)) -> Duration {
        let sockets = self.leaf.sockets();
        let ended = Arc::new(AtomicBool::new(false));
        let watch = std::thread::spawn({
            let ended = ended.clone();
            move || watch(&sockets, &ended)
        });
        let begin = Instant::now();
        restart(self);
        self.vrf.ip(&format!("address del {REMOVED} dev lo"));
        // Stale routes end with the restarted daemon's End-of-RIB marker, not with the leaf switch's stale path timer.
        self.wait_for(REMOVED, false);
        let swept = begin.elapsed();
        self.server().wait_for_session(LEAF, "Established", PATIENCE);
        self.wait_for(LASTING, true);
        std::thread::sleep(Duration::from_secs(3));
        ended.store(true, Ordering::SeqCst);
        let gap = watch.join().unwrap();
        println!("{name}: the address is gone for {gap:?}; stale routes are gone after {swept:?}");
        self.vrf.ip(&format!("address add {REMOVED} dev lo"));
        self.wait_for(REMOVED, true);
        gap
    }
}

/// Whether the leaf switch's zebra has a route to a prefix.
fn has(sockets: &Path, prefix: &str) -> bool {
    let mut zebra = Connection::open(sockets, "zebra", PATIENCE).unwrap();
    zebra.execute("enable").unwrap();
    has_route(&mut zebra, prefix)
}

fn has_route(zebra: &mut Connection, prefix: &str) -> bool {
    let reply = zebra.execute(&format!("show ip route {prefix} json")).unwrap();
    reply.text.contains(&format!("{prefix:?}"))
}

/// The longest time without the route.
fn watch(sockets: &Path, ended: &AtomicBool) -> Duration {
    let mut zebra = Connection::open(sockets, "zebra", PATIENCE).unwrap();
    zebra.execute("enable").unwrap();
    let (mut longest, mut gone) = (Duration::ZERO, None);
    while !ended.load(Ordering::SeqCst) {
        gone = match has_route(&mut zebra, LASTING) {
            true => None,
            false => gone.or(Some(Instant::now())),
        };
        longest = longest.max(gone.map_or(Duration::ZERO, |since| since.elapsed()));
        std::thread::sleep(Duration::from_millis(10));
    }
    longest
}

fn restarts(suite: Suite) {
    let Some(mut lab) = Lab::new(suite) else { return };
    let version = suite.frr_version();
    for signal in ["-KILL", "-TERM"] {
        let gap = lab.gap(&format!("FRR {version}, bgpd gets {signal}"), |lab| {
            lab.signal("bgpd", signal)
        });
        assert!(gap <= LONGEST_GAP, "{gap:?}");
    }
    // Routes from the leaf switch stay in the kernel.
    let default = |lab: &Lab| {
        let routes = lab.site.server.ip("route show default");
        assert!(routes.contains("via 10.0.192.1"), "{routes:?}");
    };
    let gap = lab.gap(&format!("FRR {version} restarted"), |lab| {
        default(lab);
        lab.server = None;
        default(lab);
        lab.start();
        default(lab);
    });
    assert!(gap <= LONGEST_GAP, "{gap:?}");
    let gap = lab.gap(&format!("FRR {version}, zebra gets -TERM"), |lab| {
        lab.signal("zebra", "-TERM");
        default(lab);
    });
    assert!(gap <= LONGEST_GAP, "{gap:?}");
    default(&lab);
}

/// The check can fail: if only the running bgpd has the leak, the leaf switch loses the address.
#[test]
fn without_the_leak_in_frr_conf_a_restart_loses_the_address() {
    let Some(mut lab) = Lab::new(Suite::Bookworm) else {
        return;
    };
    let path = lab.site.path("frr/frr.conf");
    let text = fs::read_to_string(&path).unwrap();
    let (before, leak) = text.split_once("! The agent's own configuration").unwrap();
    fs::write(&path, before.replace("  import vrf bgp-vrf\n", "") + "end\n").unwrap();
    lab.server = None;
    lab.start();
    lab.wait_for(LASTING, false);
    let family = format!("router bgp {SERVER_ASN}\naddress-family ipv4 unicast\nimport vrf bgp-vrf");
    let lines: Vec<&str> = family
        .lines()
        .chain(["exit", "exit"])
        .chain(leak.lines().skip(1))
        .collect();
    lab.server().vtysh(&[&["configure terminal"], &lines[..]].concat());
    lab.wait_for(LASTING, true);
    lab.signal("bgpd", "-KILL");
    lab.wait_for(LASTING, false);
}

#[test]
fn an_address_stays_at_the_leaf_while_frr_restarts_8_4() {
    restarts(Suite::Bookworm);
}

#[test]
fn an_address_stays_at_the_leaf_while_frr_restarts_10_3() {
    restarts(Suite::Trixie);
}

/// The agent's configuration of its leak changes nothing and withdraws nothing.
fn the_agent_finds_its_leak(suite: Suite) {
    let (Some(venv), Some(lab)) = (Venv::get(), Lab::new(suite)) else {
        return;
    };
    let leak = format!("frr.vrf_leak('bgp-vrf', '{SERVER_ASN}', '{SERVER}')");
    let [text] = &venv.files(&[&leak])[..] else {
        unreachable!()
    };
    let directory = tempfile::tempdir().unwrap();
    let (vtysh, file) = (directory.path().join("vtysh"), directory.path().join("leak"));
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_obgp-runtime"), &vtysh).unwrap();
    fs::write(&file, text).unwrap();
    let state = || {
        let version = lab.leaf.json("show bgp ipv4 unicast json")["tableVersion"].to_string();
        (lab.server().vtysh(&["show running-config"]), version)
    };
    // The default route from the leaf switch may not have arrived yet.
    let mut before = state();
    loop {
        std::thread::sleep(Duration::from_secs(3));
        match state() {
            same if same == before => break,
            other => before = other,
        }
    }
    let sockets = lab.server().sockets();
    succeed(Command::new(vtysh).arg("--vty_socket").arg(sockets).arg("-f").arg(file));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(before, state());
    assert!(before.0.contains("import vrf bgp-vrf"));
}

#[test]
fn the_agent_finds_its_leak_8_4() {
    the_agent_finds_its_leak(Suite::Bookworm);
}

#[test]
fn the_agent_finds_its_leak_10_3() {
    the_agent_finds_its_leak(Suite::Trixie);
}

/// First the community, then the withdrawal. `--undo` and the agent's start end the drain.
fn drained(suite: Suite) {
    let Some(lab) = Lab::new(suite) else { return };
    lab.server().wait_for_session(LEAF, "Established", PATIENCE);
    let (shared, sockets) = (lab.site.path("shared"), lab.server().sockets());
    let drain = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_obgp-runtime"));
        command
            .arg("drain")
            .arg("--shared-dir")
            .arg(&shared)
            .arg("--frr-sockets")
            .arg(&sockets);
        command.args(arguments);
        command
    };
    let is_marked = || {
        let route = lab.leaf.json(&format!("show bgp ipv4 unicast {LASTING} json"));
        route["paths"][0]["community"]["string"] == "graceful-shutdown"
    };
    assert!(!is_marked());
    let mut child = drain(&["--wait", "3"]).spawn().unwrap();
    let begin = Instant::now();
    while !is_marked() {
        assert!(
            begin.elapsed() < Duration::from_secs(3),
            "the leaf does not see the community"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(has(&lab.leaf.sockets(), LASTING), "the route still works");
    assert!(child.wait().unwrap().success());
    let took = begin.elapsed();
    assert!(
        (Duration::from_secs(3)..Duration::from_secs(6)).contains(&took),
        "{took:?}"
    );
    // Stale routes would remain for two minutes.
    let begin = Instant::now();
    lab.wait_for(LASTING, false);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());

    let begin = Instant::now();
    succeed(&mut drain(&[]));
    assert!(begin.elapsed() < Duration::from_secs(3), "a second run does not wait");
    succeed(&mut drain(&["--undo"]));
    lab.wait_for(LASTING, true);
    assert!(!is_marked() && !shared.join("drained").exists());

    succeed(&mut drain(&["--wait", "0"]));
    lab.wait_for(LASTING, false);
    let mut agent = lab.site.server.command(env!("CARGO_BIN_EXE_obgp-runtime"));
    agent
        .args(["agent", "--program", "/bin/true", "--timeout", "30", "--config"])
        .arg(lab.site.path("agent.conf"));
    fs::write(lab.site.path("rt_tables"), "254\tmain\n").unwrap();
    agent
        .arg("--rt-tables")
        .arg(lab.site.path("rt_tables"))
        .env("PREFLIGHT", "warn");
    succeed(
        agent
            .arg("--shared-dir")
            .arg(&shared)
            .arg("--frr-sockets")
            .arg(&sockets),
    );
    lab.wait_for(LASTING, true);
    assert!(!lab.server().vtysh(&["show running-config"]).contains("shutdown"));
}

#[test]
fn a_node_is_drained_8_4() {
    drained(Suite::Bookworm);
}

#[test]
fn a_node_is_drained_10_3() {
    drained(Suite::Trixie);
}
