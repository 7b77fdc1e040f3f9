//! A server with only frr-init's output, and real leaf switches and spines: FRR 8.4.4 and 10.3.

mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::frr::{FrrRoot, Namespace, Node, Suite, succeed};
use support::site::{SERVER, SERVER_ASN, Site};

const LEAF: &str = "10.0.192.1";
const ESTABLISHED: &str = "Established";
const PATIENCE: Duration = Duration::from_secs(60);
/// Ten seconds, in which three keepalives are missed.
const HOLD: Duration = Duration::from_secs(30);

/// The configuration of a leaf switch that announces a default route to the server, with extra lines.
fn leaf_conf(asn: &str, lines: &str) -> String {
    format!(
        "router bgp {asn}\n bgp router-id 10.255.1.1\n no bgp ebgp-requires-policy\n neighbor {SERVER} remote-as {SERVER_ASN}\n \
         neighbor {SERVER} timers connect 1\n{lines} address-family ipv4 unicast\n  neighbor {SERVER} default-originate\n exit-address-family\n"
    )
}

fn wait_until(what: &str, mut done: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(state) = done() {
        assert!(Instant::now() < deadline, "{what}: {state}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn prefixes(node: &Node, command: &str) -> Vec<String> {
    let reply = node.json(command);
    let routes = reply["routes"].as_object().cloned().unwrap_or_default();
    routes.into_iter().map(|(prefix, _)| prefix).collect()
}

/// Runs frr-init on the server, then FRR with the written configuration.
fn start_server(site: &Site, root: &FrrRoot, arguments: &[&str]) -> Node {
    let run = site
        .init(&[&["--frr-owner", &root.frr_owner()], arguments].concat())
        .succeeded();
    eprintln!("{}{}", run.stdout, run.stderr);
    Node::start(root, &site.server, &site.path("frr"))
}

/// The session is established, only host prefixes are announced, and the session recovers when the leaf switch returns.
fn server_and_leaf(suite: Suite) {
    let Some(root) = FrrRoot::get(suite) else { return };
    let Some(site) = Site::usual() else { return };
    site.server.ip("route add default via 10.0.192.1 dev br-ex");
    let leaf = site.switch(&root, &site.leaf, "leaf", &leaf_conf("65001", ""));
    let server = start_server(&site, &root, &[]);
    assert!(server.vtysh(&["show version"]).contains(suite.frr_version()));
    server.wait_for_session(LEAF, ESTABLISHED, PATIENCE);
    leaf.wait_for_session(SERVER, ESTABLISHED, PATIENCE);

    // Like the agent: addresses of virtual machines on an interface, and connected routes are redistributed.
    site.server.ip("address add 10.250.0.5/32 dev lo");
    site.server.ip("address add 10.251.0.1/24 dev lo");
    let router = format!("router bgp {SERVER_ASN}");
    server.vtysh(&[
        "configure terminal",
        &router,
        "address-family ipv4 unicast",
        "redistribute connected",
    ]);
    let has = |expected: &str| {
        prefixes(&leaf, "show bgp ipv4 unicast json")
            .iter()
            .any(|prefix| prefix == expected)
    };
    wait_until("the leaf learns 10.250.0.5/32", || {
        has("10.250.0.5/32").then_some(()).ok_or("not yet".into())
    });
    assert!(prefixes(&server, "show bgp ipv4 unicast json").contains(&"10.251.0.0/24".to_string()));
    assert!(
        !has("10.251.0.0/24") && !has("10.0.192.0/24"),
        "only single addresses are announced"
    );

    drop(leaf);
    let gone = Instant::now();
    wait_until("the server notices", || match server.session(LEAF) {
        state if state == ESTABLISHED => Err(state),
        _ => Ok(()),
    });
    assert!(gone.elapsed() < HOLD, "{:?}", gone.elapsed());
    let leaf = site.switch(&root, &site.leaf, "leaf", &leaf_conf("65001", ""));
    let back = Instant::now();
    server.wait_for_session(LEAF, ESTABLISHED, PATIENCE);
    let again = |expected: &str| {
        prefixes(&leaf, "show bgp ipv4 unicast json")
            .iter()
            .any(|prefix| prefix == expected)
    };
    wait_until("the leaf learns it again", || {
        again("10.250.0.5/32").then_some(()).ok_or("not yet".into())
    });
    println!(
        "FRR {}: session again {:?} after the leaf was back",
        suite.frr_version(),
        back.elapsed()
    );
}

#[test]
fn a_session_with_a_leaf_recovers_8_4() {
    server_and_leaf(Suite::Bookworm);
}

#[test]
fn a_session_with_a_leaf_recovers_10_3() {
    server_and_leaf(Suite::Trixie);
}

/// A spine behind the leaf switch, which the server reaches through its default route only, learns the server's VNI.
fn evpn(suite: Suite) {
    let Some(root) = FrrRoot::get(suite) else { return };
    let Some(site) = Site::usual() else { return };
    let spine_space = Namespace::new("spine");
    site.leaf.link("up0", &spine_space, "down0");
    site.leaf.ip("address add 10.1.0.0/31 dev up0");
    spine_space.ip("address add 10.1.0.1/31 dev down0");
    spine_space.ip("address add 10.255.0.1/32 dev lo");
    site.leaf.ip("route add 10.255.0.1/32 via 10.1.0.1");
    spine_space.ip("route add 10.0.192.0/24 via 10.1.0.0");
    succeed(
        site.leaf
            .command("sh")
            .args(["-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]),
    );
    site.server.ip("route add default via 10.0.192.1 dev br-ex");

    let _leaf = site.switch(&root, &site.leaf, "leaf", &leaf_conf("65001", ""));
    let spine_conf = format!(
        "router bgp 65100\n bgp router-id 10.255.0.1\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n \
         neighbor {SERVER} remote-as {SERVER_ASN}\n neighbor {SERVER} ebgp-multihop\n neighbor {SERVER} update-source 10.255.0.1\n \
         neighbor {SERVER} timers connect 1\n address-family l2vpn evpn\n  neighbor {SERVER} activate\n exit-address-family\n"
    );
    let spine = site.switch(&root, &spine_space, "spine", &spine_conf);
    let server = start_server(&site, &root, &["--evpn-rr-ip", "10.255.0.1", "--evpn-rr-asn", "65100"]);
    server.wait_for_session("10.255.0.1", ESTABLISHED, PATIENCE);
    server.wait_for_session(LEAF, ESTABLISHED, PATIENCE);
    assert!(
        site.env_file()
            .unwrap()
            .contains("EVPN_RR_IP='10.255.0.1'\nEVPN_RR_AS='65100'\n")
    );

    site.server.ip("link add br100 type bridge");
    site.server.ip(&format!(
        "link add vni100 type vxlan id 100 local {SERVER} dstport 4789 nolearning"
    ));
    site.server.ip("link set vni100 master br100");
    site.server.ip("link set br100 up");
    site.server.ip("link set vni100 up");
    wait_until("the spine learns the server's VNI", || {
        let reply: Value = spine.json("show bgp l2vpn evpn json");
        match reply["numPrefix"].as_u64() {
            Some(count) if count > 0 => Ok(()),
            _ => Err(reply.to_string()),
        }
    });
}

#[test]
fn a_spine_learns_the_vni_8_4() {
    evpn(Suite::Bookworm);
}

#[test]
fn a_spine_learns_the_vni_10_3() {
    evpn(Suite::Trixie);
}

/// Two leaf switches with a password, BFD and IPv6.
fn two_leaves(suite: Suite) {
    let Some(root) = FrrRoot::get(suite) else { return };
    let Some(site) = Site::usual() else { return };
    let second_space = Namespace::new("leaf2");
    site.server.link("up1", &second_space, "down0");
    site.server.ip("link set up1 master br-ex");
    for (space, address) in [
        (&site.leaf, "fd00:192::1/64"),
        (&second_space, "10.0.192.2/24"),
        (&second_space, "fd00:192::2/64"),
    ] {
        space.ip(&format!(
            "address add {address} dev down0 {}",
            if address.contains(':') { "nodad" } else { "" }
        ));
    }
    site.server.ip("address add fd00:192::111/64 dev br-ex nodad");
    std::fs::write(site.path("password"), "s3cret\n").unwrap();
    let lines = format!(
        " neighbor {SERVER} password s3cret\n neighbor {SERVER} bfd\n address-family ipv6 unicast\n  neighbor {SERVER} activate\n exit-address-family\n"
    );
    let first = site.switch(&root, &site.leaf, "leaf", &leaf_conf("65001", &lines));
    let second = site.switch(&root, &second_space, "leaf2", &leaf_conf("65001", &lines));
    let password = site.path("password").display().to_string();
    let arguments = [
        "--peer-ip",
        "10.0.192.1,10.0.192.2",
        "--ipv6",
        "--bfd",
        "--password-file",
        &password,
    ];
    let server = start_server(&site, &root, &arguments);
    for leaf in ["10.0.192.1", "10.0.192.2"] {
        server.wait_for_session(leaf, ESTABLISHED, PATIENCE);
    }
    wait_until("the default route has both next hops", || {
        let reply = server.json("show ip route 0.0.0.0/0 json");
        match reply["0.0.0.0/0"][0]["nexthops"].as_array() {
            Some(hops) if hops.len() == 2 => Ok(()),
            _ => Err(reply.to_string()),
        }
    });
    wait_until("BFD is up with both", || {
        let reply = server.json("show bfd peers json");
        let peers = reply.as_array().cloned().unwrap_or_default();
        let up = peers.iter().filter(|peer| peer["status"] == "up").count();
        (up == 2).then_some(()).ok_or(reply.to_string())
    });
    site.server.ip("address add fd00:250::5/128 dev lo nodad");
    let router = format!("router bgp {SERVER_ASN}");
    server.vtysh(&[
        "configure terminal",
        &router,
        "address-family ipv6 unicast",
        "redistribute connected",
    ]);
    for leaf in [&first, &second] {
        wait_until("the leaves learn the IPv6 address", || {
            let learned = prefixes(leaf, "show bgp ipv6 unicast json");
            learned
                .contains(&"fd00:250::5/128".to_string())
                .then_some(())
                .ok_or(format!("{learned:?}"))
        });
        assert!(!prefixes(leaf, "show bgp ipv6 unicast json").contains(&"fd00:192::/64".to_string()));
    }
}

#[test]
fn two_leaves_share_the_traffic_8_4() {
    two_leaves(Suite::Bookworm);
}

#[test]
fn two_leaves_share_the_traffic_10_3() {
    two_leaves(Suite::Trixie);
}
