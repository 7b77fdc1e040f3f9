//! Sessions without the leaf switch's address (BGP unnumbered) or ASN (`external`), and FRR's timers: a server with
//! frr-init's configuration, and real leaf switches. FRR 8.4.4 and 10.3.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::frr::{FrrRoot, Namespace, Node, Suite, succeed};
use support::site::{SERVER, SERVER_ASN, Site};

const LEAF: &str = "10.0.192.1";
const ESTABLISHED: &str = "Established";
const PATIENCE: Duration = Duration::from_secs(60);

fn wait_until(what: &str, mut done: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(state) = done() {
        assert!(Instant::now() < deadline, "{what}: {state}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Starts FRR with the configuration of frr-init.
fn start_server(site: &Site, root: &FrrRoot) -> Node {
    Node::start(root, &site.server, &site.path("frr"))
}

/// The command lines of a daemon in the namespace.
fn command_line(space: &Namespace, daemon: &str) -> String {
    let pids = succeed(Command::new("ip").args(["netns", "pids", space.name()]));
    let is_it = |pid: &&str| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == daemon);
    let pid = pids.lines().find(is_it).unwrap();
    fs::read_to_string(format!("/proc/{pid}/cmdline"))
        .unwrap()
        .replace('\0', " ")
}

/// Whether a program listens on the BGP port in the namespace.
fn listens(space: &Namespace) -> bool {
    let tables = succeed(space.command("cat").args(["/proc/net/tcp", "/proc/net/tcp6"]));
    tables
        .lines()
        .any(|line| line.contains(":00B3 ") && line.contains(" 0A "))
}

fn agent_drain(site: &Site, server: &Node, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_obgp-runtime"));
    command
        .arg("drain")
        .args(arguments)
        .arg("--shared-dir")
        .arg(site.path("shared"));
    succeed(command.arg("--frr-sockets").arg(server.sockets()))
}

/// A leaf switch with an unnumbered session on swp1 that announces a default route in both families.
fn leaf_conf(id: &str, asn: &str) -> String {
    let family = |name: &str| {
        format!(
            " address-family {name} unicast\n  neighbor swp1 activate\n  neighbor swp1 default-originate\n exit-address-family\n"
        )
    };
    format!(
        "router bgp {asn}\n bgp router-id {id}\n no bgp ebgp-requires-policy\n neighbor swp1 interface remote-as external\n{}{}",
        family("ipv4"),
        family("ipv6")
    )
}

/// Two leaf switches on interfaces without addresses. They learn the server's IPv4 and IPv6 addresses, and the server
/// their default routes, with IPv6 next hops.
fn unnumbered(suite: Suite) {
    let Some(root) = FrrRoot::get(suite) else { return };
    let Some(site) = Site::new("", "") else { return };
    site.server.ip("address add 10.0.192.111/32 dev lo");
    let other = Namespace::new("leaf2");
    for (index, leaf) in [&site.leaf, &other].into_iter().enumerate() {
        site.server.link(&format!("eth{index}"), leaf, "swp1");
    }
    let leaves = [
        site.switch(&root, &site.leaf, "leaf", &leaf_conf("10.255.1.1", "65001")),
        site.switch(&root, &other, "leaf2", &leaf_conf("10.255.1.2", "65002")),
    ];
    // Neither an address nor a mapping of a leaf switch exists.
    fs::remove_file(site.path("mapping/mapping.json")).unwrap();
    let owner = root.frr_owner();
    let arguments = [
        "--frr-owner",
        &owner,
        "--interface",
        "lo",
        "--peer-interface",
        "eth0,eth1",
        "--peer-asn",
        "external",
    ];
    let run = site.init(
        &[
            &arguments[..],
            &["--ipv6", "--graceful-restart", "0", "--zebra-keep", "0", "--listen"],
        ]
        .concat(),
    );
    let run = run.succeeded();
    assert!(
        run.stdout.contains("  Interface:    eth1 (BGP unnumbered)\n"),
        "{}",
        run.stdout
    );
    assert!(
        run.stdout.contains("  ASN:          external (any except 4200049263"),
        "{}",
        run.stdout
    );
    let env = site.env_file().unwrap();
    assert!(
        env.contains("BGP_ROUTER_ID='10.0.192.111'\nBGP_PEER_IP=''\nBGP_PEER_AS='external,external'\n")
            && env.contains("BGP_PEER_INTERFACE='eth0,eth1'\n"),
        "{env}"
    );

    let server = start_server(&site, &root);
    for interface in ["eth0", "eth1"] {
        server.wait_for_session(interface, ESTABLISHED, PATIENCE);
    }
    announces_both_families(&site, &server, &leaves);
    assert!(listens(&site.server), "--listen");
    let zebra = command_line(&site.server, "zebra");
    assert!(!zebra.contains("-K") && !zebra.contains(" -r"), "{zebra}");
    // Neither side keeps stale routes.
    let capability = &leaves[0].json("show bgp neighbors swp1 json")["swp1"]["neighborCapabilities"]["gracefulRestart"];
    assert!(
        capability.is_null() || capability == "advertised",
        "the server does not offer graceful restart: {capability}"
    );

    // The commands for the agent's container find the sessions by the interface's name.
    let drained = agent_drain(&site, &server, &["--wait", "1"]);
    assert!(
        drained.contains("the routes have the community graceful-shutdown")
            && drained.contains("the sessions with eth0 and eth1 are shut down"),
        "{drained}"
    );
    assert_ne!(server.session("eth0"), ESTABLISHED);
    agent_drain(&site, &server, &["--undo"]);
    for interface in ["eth0", "eth1"] {
        server.wait_for_session(interface, ESTABLISHED, PATIENCE);
    }
}

fn announces_both_families(site: &Site, server: &Node, leaves: &[Node; 2]) {
    site.server.ip("address add 10.250.0.5/32 dev lo");
    site.server.ip("address add fd00:250::5/128 dev lo");
    let router = format!("router bgp {SERVER_ASN}");
    for family in ["ipv4", "ipv6"] {
        let family = format!("address-family {family} unicast");
        server.vtysh(&["configure terminal", &router, &family, "redistribute connected"]);
    }
    for (command, prefix) in [("ip", "10.250.0.5/32"), ("ipv6", "fd00:250::5/128")] {
        for leaf in leaves {
            wait_until("the leaf switch learns the address", || {
                let route = leaf.json(&format!("show {command} route {prefix} json"));
                let hop = &route[prefix][0]["nexthops"][0];
                (hop["afi"] == "ipv6" && hop["active"] == true)
                    .then_some(())
                    .ok_or(route.to_string())
            });
        }
    }
    // Through both leaf switches, which have different ASNs.
    wait_until("the kernel has a default route with IPv6 next hops", || {
        let routes = site.server.ip("route show default");
        let both = routes.matches("via inet6 fe80::").count() == 2;
        both.then_some(()).ok_or(routes)
    });
}

#[test]
fn sessions_over_interfaces_without_addresses_8_4() {
    unnumbered(Suite::Bookworm);
}

#[test]
fn sessions_over_interfaces_without_addresses_10_3() {
    unnumbered(Suite::Trixie);
}

/// The server's configuration needs no ASN of the leaf switch; the timers and the options of the daemons arrive in FRR.
fn external(suite: Suite) {
    let Some(root) = FrrRoot::get(suite) else { return };
    let Some(site) = Site::usual() else { return };
    fs::remove_file(site.path("mapping/mapping.json")).unwrap();
    let leaf_conf = format!(
        "router bgp 65077\n bgp router-id 10.255.1.1\n no bgp ebgp-requires-policy\n \
         neighbor {SERVER} remote-as {SERVER_ASN}\n neighbor {SERVER} timers connect 1\n neighbor {SERVER} bfd\n"
    );
    let leaf = site.switch(&root, &site.leaf, "leaf", &leaf_conf);
    let owner = root.frr_owner();
    let base = ["--frr-owner", &owner, "--peer-ip", LEAF];
    let without = site.init(&base).failed();
    assert!(without.contains("No Leaf ASN mapping found"), "{without}");
    let options = [
        "--peer-asn=external",
        "--graceful-restart=45",
        "--graceful-restart-stale-time=90",
        "--zebra-keep=77",
        "--bfd",
        "--bfd-detect-multiplier=5",
        "--bfd-receive-interval=150",
        "--bfd-transmit-interval=200",
    ];
    let run = site.init(&[&base[..], &options, &["--json"]].concat()).succeeded();
    let peer = &run.json()["peers"][0];
    assert_eq!(
        (&peer["address"], &peer["asn"], &peer["asn_source"]),
        (&LEAF.into(), &"external".into(), &"option".into())
    );

    let server = start_server(&site, &root);
    server.wait_for_session(LEAF, ESTABLISHED, PATIENCE);
    assert!(!listens(&site.server), "bgpd runs with -p 0");
    let zebra = command_line(&site.server, "zebra");
    assert!(zebra.contains(" -r -K 77"), "{zebra}");
    has_the_timers(&server, &leaf);

    // The leaf switch restarts: the session recovers although only the server connects.
    let again = restart_leaf(&site, &root, &server, leaf, &leaf_conf);
    println!(
        "FRR {}: session again {again:?} after the leaf was back",
        suite.frr_version()
    );
}

/// Restarts the leaf switch. Returns the time from its start to the session.
fn restart_leaf(site: &Site, root: &FrrRoot, server: &Node, leaf: Node, leaf_conf: &str) -> Duration {
    drop(leaf);
    wait_until("the server notices", || match server.session(LEAF) {
        state if state == ESTABLISHED => Err(state),
        _ => Ok(()),
    });
    let _leaf = site.switch(root, &site.leaf, "leaf", leaf_conf);
    let back = Instant::now();
    server.wait_for_session(LEAF, ESTABLISHED, PATIENCE);
    back.elapsed()
}

fn has_the_timers(server: &Node, leaf: &Node) {
    let neighbor = &leaf.json(&format!("show bgp neighbors {SERVER} json"))[SERVER];
    assert_eq!(
        neighbor["gracefulRestartInfo"]["timers"]["receivedRestartTimer"], 45,
        "{neighbor}"
    );
    let config = server.vtysh(&["show running-config"]);
    assert!(config.contains(" bgp graceful-restart stalepath-time 90\n"), "{config}");
    wait_until("BFD is up with the timers", || {
        let peers = server.json("show bfd peers json");
        let peer = &peers[0];
        let timers = [
            &peer["detect-multiplier"],
            &peer["receive-interval"],
            &peer["transmit-interval"],
        ];
        let up = peer["status"] == "up" && timers.map(|timer| timer.as_u64()) == [Some(5), Some(150), Some(200)];
        up.then_some(()).ok_or(peers.to_string())
    });
}

#[test]
fn a_session_with_any_external_asn_has_the_timers_8_4() {
    external(Suite::Bookworm);
}

#[test]
fn a_session_with_any_external_asn_has_the_timers_10_3() {
    external(Suite::Trixie);
}

/// As a helper of the leaf switch's graceful restart, bgpd waits for the leaf switch to connect, until the leaf
/// switch's restart time is over. A server that listens does not wait.
#[test]
fn a_leaf_that_restarts_gracefully_can_connect_to_a_server_that_listens() {
    for suite in Suite::ALL {
        let Some(root) = FrrRoot::get(suite) else { return };
        let Some(site) = Site::usual() else { return };
        let leaf_conf = format!(
            "router bgp 65001\n bgp router-id 10.255.1.1\n no bgp ebgp-requires-policy\n bgp graceful-restart restart-time 25\n \
             bgp graceful-restart\n neighbor {SERVER} remote-as {SERVER_ASN}\n neighbor {SERVER} timers connect 1\n"
        );
        let owner = root.frr_owner();
        let mut took = Vec::new();
        for listen in [&[][..], &["--listen"]] {
            let leaf = site.switch(&root, &site.leaf, "leaf", &leaf_conf);
            let base = ["--frr-owner", &owner, "--peer-ip", LEAF, "--preflight", "warn"];
            site.init(&[&base[..], listen].concat()).succeeded();
            let server = start_server(&site, &root);
            server.wait_for_session(LEAF, ESTABLISHED, PATIENCE);
            // Its routes are complete, so that it can be helped.
            std::thread::sleep(Duration::from_secs(2));
            took.push(restart_leaf(&site, &root, &server, leaf, &leaf_conf));
        }
        println!(
            "FRR {}: without and with --listen {took:?} after the leaf was back",
            suite.frr_version()
        );
        assert!(
            took[0] < Duration::from_secs(40) && took[1] < Duration::from_secs(12),
            "{took:?}"
        );
    }
}

/// The only ASN that is not external is the server's own.
#[test]
fn a_leaf_with_the_servers_own_asn_is_rejected() {
    for suite in Suite::ALL {
        let Some(root) = FrrRoot::get(suite) else { return };
        let Some(site) = Site::usual() else { return };
        let own = format!(
            "router bgp {SERVER_ASN}\n bgp router-id 10.255.1.1\n neighbor {SERVER} remote-as {SERVER_ASN}\n \
             neighbor {SERVER} timers connect 1\n"
        );
        let _leaf = site.switch(&root, &site.leaf, "leaf", &own);
        let owner = root.frr_owner();
        site.init(&["--frr-owner", &owner, "--peer-ip", LEAF, "--peer-asn", "external"])
            .succeeded();
        let server = start_server(&site, &root);
        wait_until("the server rejects its own ASN", || {
            let neighbor = &server.json(&format!("show bgp neighbors {LEAF} json"))[LEAF];
            let reason = neighbor["lastNotificationReason"].as_str().unwrap_or_default();
            reason
                .ends_with("Bad Peer AS")
                .then_some(())
                .ok_or(neighbor.to_string())
        });
    }
}

/// `--peer-ip` and `--peer-interface` exclude each other, in both commands.
#[test]
fn a_peer_has_an_address_or_an_interface() {
    let Some(site) = Site::usual() else { return };
    let both = ["--peer-ip", LEAF, "--peer-interface", "br-ex", "--peer-asn", "external"];
    let error = site.init(&both).failed();
    assert!(
        error.contains("--peer-ip and --peer-interface exclude each other\nhelp: "),
        "{error}"
    );
    let config = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_obgp-runtime"));
        command.args([
            "frr-config",
            "--asn",
            SERVER_ASN,
            "--router-id",
            SERVER,
            "--peer-asn",
            "external",
        ]);
        command
            .args(arguments)
            .arg("--output-dir")
            .arg(Path::new("/nonexistent"));
        String::from_utf8_lossy(&command.output().unwrap().stderr).into_owned()
    };
    assert!(config(&both[..4]).contains("exclude each other"));
    assert!(config(&[]).contains("there is no leaf switch\nhelp: set --peer-ip"));
}
