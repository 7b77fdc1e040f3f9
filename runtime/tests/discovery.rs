//! frr-init in real network namespaces: each step of the discovery, and the written files.

mod support;

use std::time::{Duration, Instant};

use support::frr::succeed;
use support::site::Site;

const GATEWAY: &str = "route add default via 10.0.192.1 dev br-ex";
/// The agent's user in the image, without any capability.
const AGENT: &[&str] = &[
    "setpriv",
    "--reuid=42494",
    "--regid=42494",
    "--clear-groups",
    "--no-new-privs",
    "--",
];

#[test]
fn frr_init_prints_the_report_and_writes_the_environment() {
    let Some(site) = Site::usual() else { return };
    site.server.ip(GATEWAY);
    let run = site.init(&[]).succeeded();
    let expected = "\
=== BGP Configuration ===
Node:           worker1
Interface:      br-ex (10.0.192.111/24)
Subnet:         10.0.192.0/24

Local (Server):
  IPv4:         10.0.192.111
  ASN:          4200049263 (auto-generated)
  Router ID:    10.0.192.111

Peer (Leaf Switch):
  IPv4:         10.0.192.1
  ASN:          65001 (from ConfigMap)
  Discovery:    route
  Reachable:    yes

==================================
";
    assert_eq!(run.stdout, expected, "{}", run.stderr);
    assert_eq!(run.stderr, "");
    let expected = "\
NODE_NAME='worker1'
NODE_IP='10.0.192.111'
INTERFACE='br-ex'
SUBNET='10.0.192.0/24'
BGP_AS='4200049263'
BGP_ROUTER_ID='10.0.192.111'
BGP_PEER_IP='10.0.192.1'
BGP_PEER_AS='65001'
BGP_PEER_DISCOVERY='route'
";
    assert_eq!(site.env_file().unwrap(), expected);
    let first = std::fs::read(site.path("frr/frr.conf")).unwrap();
    site.init(&[]).succeeded();
    assert_eq!(
        std::fs::read(site.path("frr/frr.conf")).unwrap(),
        first,
        "the same input gives the same bytes"
    );
}

#[test]
fn options_can_be_set_in_the_environment() {
    let Some(site) = Site::usual() else { return };
    let mut command = site.server.command(env!("CARGO_BIN_EXE_obgp-runtime"));
    command
        .arg("frr-init")
        .env("NODE_NAME", "w'1")
        .env("NODE_IP", "192.0.2.7")
        .env("INTERFACE", "br-ex");
    command
        .env("BGP_PEER_IP", "10.0.192.9")
        .env("BGP_AS", "64999")
        .env("ASN_MAPPING", site.path("mapping/mapping.json"));
    command
        .env("SHARED_DIR", site.path("shared"))
        .env("FRR_CONFIG_DIR", site.path("frr"));
    command
        .env("EVPN_RR_IP", "10.255.0.1")
        .env("EVPN_RR_AS", "65100")
        .env("FRR_BFD", "true")
        .env("FRR_IPV6", "false");
    command
        .env("BGP_PASSWORD_FILE", "")
        .env("FRR_EXTRA_CONFIG", "")
        .env("FRR_NO_OUTBOUND_FILTER", "");
    succeed(&mut command);
    let environment = site.env_file().unwrap();
    for line in [
        r"NODE_NAME='w'\''1'",
        "NODE_IP='192.0.2.7'",
        "BGP_AS='64999'",
        "BGP_PEER_DISCOVERY='fixed'",
        "EVPN_RR_IP='10.255.0.1'",
        "EVPN_RR_AS='65100'",
    ] {
        assert!(environment.lines().any(|other| other == line), "{line}:\n{environment}");
    }
    let frr_conf = std::fs::read_to_string(site.path("frr/frr.conf")).unwrap();
    assert!(
        frr_conf.contains("neighbor 10.0.192.9 bfd") && !frr_conf.contains("HOSTS-V6"),
        "{frr_conf}"
    );
}

#[test]
fn of_several_default_routes_the_lowest_metric_wins() {
    let Some(site) = Site::usual() else { return };
    site.server.ip("route add default dev br-ex metric 5");
    site.server.ip("route add default via 10.0.192.7 dev br-ex metric 200");
    site.server.ip("route add default via 10.0.192.1 dev br-ex metric 100");
    site.server.ip("route add default via 10.0.192.8 dev br-ex table 77");
    assert_eq!(site.init(&["--json"]).peer(), "10.0.192.1 route true");
}

#[test]
fn of_several_next_hops_the_lowest_address_wins() {
    let Some(site) = Site::usual() else { return };
    site.server
        .ip("route add default nexthop via 10.0.192.9 dev br-ex nexthop via 10.0.192.1 dev br-ex");
    let run = site.init(&["--json"]).succeeded();
    assert!(run.stderr.contains("--peer-ip 10.0.192.1,10.0.192.9"), "{}", run.stderr);
    assert_eq!(run.peer(), "10.0.192.1 route true");
}

/// Linux then leaves the next hops out of the routes that it lists.
#[test]
fn default_routes_through_nexthop_objects_are_read_without_compatibility_mode() {
    let group = [
        "nexthop add id 1 via 10.0.192.9 dev br-ex",
        "nexthop add id 2 via 10.0.192.1 dev br-ex",
    ];
    for (mode, objects, peer) in [
        (
            "1",
            &["nexthop add id 3 via 10.0.192.1 dev br-ex"][..],
            "10.0.192.1 route true",
        ),
        (
            "0",
            &["nexthop add id 3 via 10.0.192.1 dev br-ex"][..],
            "10.0.192.1 route true",
        ),
        (
            "0",
            &[group[0], group[1], "nexthop add id 3 group 1/2"][..],
            "10.0.192.1 route true",
        ),
        (
            "0",
            &["nexthop add id 3 dev br-ex"][..],
            "10.0.192.1 detection:first true",
        ),
    ] {
        let Some(site) = Site::usual() else { return };
        let set = format!("echo {mode} >/proc/sys/net/ipv4/nexthop_compat_mode");
        succeed(site.server.command("sh").args(["-c", &set]));
        for object in objects {
            site.server.ip(object);
        }
        site.server.ip("route add default nhid 3");
        assert_eq!(site.init(&["--json"]).peer(), peer, "{mode} {objects:?}");
    }
}

#[test]
fn routes_through_other_interfaces_are_ignored() {
    let Some(site) = Site::usual() else { return };
    site.server.ip("link add other type bridge");
    site.server.ip("link set other up");
    site.server.ip("address add 172.16.0.2/24 dev other");
    site.server.ip("route add default via 172.16.0.1 dev other");
    assert_eq!(site.init(&["--json"]).peer(), "10.0.192.1 detection:first true");
}

#[test]
fn the_first_address_answers() {
    let Some(site) = Site::usual() else { return };
    assert_eq!(site.init(&["--json"]).peer(), "10.0.192.1 detection:first true");
}

#[test]
fn the_last_address_answers() {
    let Some(site) = Site::new("10.0.192.111/24", "10.0.192.254/24") else {
        return;
    };
    assert_eq!(site.init(&["--json"]).peer(), "10.0.192.254 detection:last true");
}

/// ARP is enough: the leaf switch answers neither echo requests nor UDP.
#[test]
fn a_leaf_that_drops_all_packets_is_found() {
    let Some(site) = Site::new("10.0.192.111/24", "") else {
        return;
    };
    // A proxy answers ARP for this address, and nothing else.
    site.leaf.ip("address add 10.0.192.200/24 dev down0");
    site.leaf.ip("neigh add proxy 10.0.192.254 dev down0");
    let mut sysctl = site.leaf.command("sh");
    succeed(sysctl.args([
        "-c",
        "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv4/neigh/down0/proxy_delay",
    ]));
    site.leaf.ip("link add sink type bridge");
    site.leaf.ip("link set sink up");
    site.leaf.ip("route add 10.0.192.254/32 dev sink");
    let run = site.init(&["--json", "--probe-timeout-ms", "2000"]);
    assert_eq!(run.peer(), "10.0.192.254 detection:last true");
}

#[test]
fn without_an_answer_the_neighbour_table_decides() {
    let Some(site) = Site::new("10.0.192.111/24", "") else {
        return;
    };
    let init = || site.init(&["--json", "--probe-timeout-ms", "300"]);
    let mac = "lladdr 02:00:00:00:00:01 dev br-ex";
    site.server.ip(&format!("neigh add 10.0.192.20 {mac} nud failed"));
    assert_eq!(
        init().peer(),
        "10.0.192.1 detection:fallback false",
        "a FAILED entry is ignored"
    );
    site.server.ip(&format!("neigh add 10.0.192.50 {mac} nud stale"));
    assert_eq!(init().peer(), "10.0.192.50 detection:neighbor false");
    site.server.ip(&format!("neigh replace 10.0.192.254 {mac} nud stale"));
    assert_eq!(
        init().peer(),
        "10.0.192.254 detection:neighbor false",
        "the first and the last address take precedence"
    );
}

#[test]
fn without_any_evidence_the_first_address_is_a_guess() {
    let Some(site) = Site::new("10.0.192.111/24", "") else {
        return;
    };
    let run = site.init(&["--json"]).succeeded();
    assert!(run.stderr.contains("10.0.192.1 is a guess"), "{}", run.stderr);
    assert!(run.took < Duration::from_secs(3), "{:?}", run.took);
    assert_eq!(run.peer(), "10.0.192.1 detection:fallback false");
    let text = site.init(&["--probe-timeout-ms", "10"]).succeeded().stdout;
    assert!(
        text.contains("  Discovery:    detection:fallback\n  Reachable:    no\n"),
        "{text}"
    );
}

#[test]
fn fixed_addresses_first_and_last_are_used_as_given() {
    let Some(site) = Site::usual() else { return };
    site.server.ip("route add default via 10.0.192.77 dev br-ex");
    for (choice, expected) in [
        ("first", "10.0.192.1 first true"),
        ("last", "10.0.192.254 last false"),
        ("10.0.192.1", "10.0.192.1 fixed true"),
        ("10.0.192.9", "10.0.192.9 fixed false"),
        ("detection", "10.0.192.77 route false"),
        ("", "10.0.192.77 route false"),
    ] {
        assert_eq!(
            site.init(&["--json", "--peer-ip", choice]).peer(),
            expected,
            "{choice:?}"
        );
    }
}

/// For the report, a neighbour that the kernel has as reachable counts as reachable, although it answers no probe.
#[test]
fn a_reachable_neighbour_is_reported_as_reachable() {
    let Some(site) = Site::new("10.0.192.111/24", "") else {
        return;
    };
    site.server.ip(GATEWAY);
    site.server
        .ip("neigh add 10.0.192.1 lladdr 02:00:00:00:00:01 dev br-ex nud reachable");
    assert_eq!(site.init(&["--json"]).peer(), "10.0.192.1 route true");
    site.server
        .ip("neigh replace 10.0.192.1 lladdr 02:00:00:00:00:01 dev br-ex nud permanent");
    assert_eq!(site.init(&["--json"]).peer(), "10.0.192.1 route false");
}

#[test]
fn on_a_31_and_a_30_the_peer_is_the_other_address() {
    for (server, leaf, expected) in [
        ("10.0.192.0/31", "10.0.192.1/31", "10.0.192.1 detection:last true"),
        ("10.0.192.1/31", "10.0.192.0/31", "10.0.192.0 detection:first true"),
        ("10.0.192.1/30", "10.0.192.2/30", "10.0.192.2 detection:last true"),
    ] {
        let Some(site) = Site::new(server, leaf) else { return };
        assert_eq!(site.init(&["--json"]).peer(), expected, "{server}");
    }
}

#[test]
fn a_32_needs_a_default_route() {
    let Some(site) = Site::new("10.0.192.111/32", "10.0.192.1/24") else {
        return;
    };
    let run = site.init(&[]);
    assert!(
        !run.output.status.success() && run.stderr.contains("leaves no other address"),
        "{}",
        run.stderr
    );
    site.server.ip("route add default via 10.0.192.1 dev br-ex onlink");
    assert_eq!(site.init(&["--json"]).peer(), "10.0.192.1 route true");
}

#[test]
fn an_error_names_what_is_missing_and_leaves_no_result() {
    let Some(site) = Site::new("", "") else { return };
    std::fs::write(site.path("shared/bgp-config.env"), "BGP_AS='1'\n").unwrap();
    let run = site.init(&[]);
    assert!(run.stderr.contains("br-ex has no IPv4 address"), "{}", run.stderr);
    assert_eq!(site.env_file(), None, "the earlier result is removed");
    let run = site.init(&["--interface", "br-none"]);
    assert!(
        run.stderr
            .contains("there is no network interface br-none; there are: lo, ")
            && run.stderr.contains("br-ex"),
        "{}",
        run.stderr
    );
    site.server.ip("address add 10.0.192.111/24 dev br-ex");
    site.map("{}");
    let run = site.init(&[]);
    let expected = format!(
        "obgp-runtime: No Leaf ASN mapping found\n  Subnet: 10.0.192.0/24\n  File:   {} (no entries)\n  \
         Add:    \"10.0.192.0/24\": \"<ASN of the leaf switch>\"\n",
        site.path("mapping/mapping.json").display()
    );
    assert_eq!((run.stderr, run.stdout), (expected, String::new()));
    site.map("{\n \"10.0.192.0/24\": \"65001\",\n \"10.0.192.0/24\": \"65002\"\n}");
    let run = site.init(&[]);
    assert!(
        run.stderr
            .contains("mapping.json:3:2: 10.0.192.0/24 is a duplicate of the entry at 2:2"),
        "{}",
        run.stderr
    );
    assert_eq!(site.env_file(), None);
    assert_eq!(std::fs::read_dir(site.path("frr")).unwrap().count(), 0);
}

#[test]
fn colliding_asns_are_reported_unless_the_asn_is_given() {
    let Some(site) = Site::usual() else { return };
    site.map(r#"{"10.0.192.0/24": "65001", "172.0.192.0/24": "65002"}"#);
    let run = site.init(&[]).succeeded();
    assert!(
        run.stderr.contains("10.0.192.1 and 172.0.192.1 both get 4200049153"),
        "{}",
        run.stderr
    );
    let run = site.init(&["--asn", "4200000001"]).succeeded();
    assert!(
        run.stderr.is_empty() && run.stdout.contains("4200000001 (configured)"),
        "{}{}",
        run.stderr,
        run.stdout
    );
}

/// With the image's user, who has no capabilities, on a kernel that permits echo requests to no group or to all.
#[test]
fn probing_works_without_capabilities_and_reports_what_is_missing() {
    let Some(site) = Site::new("10.0.192.111/24", "10.0.192.254/24") else {
        return;
    };
    for name in ["", "frr", "shared", "mapping"] {
        succeed(
            std::process::Command::new("chown")
                .arg("42494:42494")
                .arg(site.path(name)),
        );
    }
    // A directory that the user can read.
    let binary = site.path("obgp-runtime");
    std::fs::copy(env!("CARGO_BIN_EXE_obgp-runtime"), &binary).unwrap();
    for (groups, lacks) in [("1 0", true), ("0 2147483647", false)] {
        succeed(
            site.server
                .command("sh")
                .args(["-c", &format!("echo {groups} >/proc/sys/net/ipv4/ping_group_range")]),
        );
        site.server.ip("neigh flush all");
        let run = site
            .init_with(&binary, AGENT, &["--json", "--probe-timeout-ms", "500"])
            .succeeded();
        assert_eq!(run.json()["peers"][0]["discovery"], "detection:last", "{}", run.stderr);
        let reported = run
            .stderr
            .contains("no ICMP echo, for which CAP_NET_RAW or a group in net.ipv4.ping_group_range is needed");
        assert_eq!(reported, lacks, "{}", run.stderr);
    }
}

/// As PID 1, which ignores signals without a handler.
#[test]
fn sigterm_ends_frr_init() {
    let Some(site) = Site::new("10.0.192.111/24", "") else {
        return;
    };
    let mut command = site.server.command("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]);
    // The shell is PID 1 of the namespace and becomes frr-init; a child of it sends the signal.
    command.arg("(sleep 0.5; kill -TERM 1) & exec \"$0\" frr-init \"$@\"");
    command
        .arg(env!("CARGO_BIN_EXE_obgp-runtime"))
        .args(["--probe-timeout-ms", "30000"]);
    command
        .arg("--output-dir")
        .arg(site.path("frr"))
        .arg("--shared-dir")
        .arg(site.path("shared"));
    command.arg("--asn-mapping").arg(site.path("mapping"));
    let start = Instant::now();
    let output = command.output().unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(output.status.code(), Some(143));
    assert_eq!(site.env_file(), None);
}

/// The limit is 50 ms with a default route, and five times that for a debug build on a busy machine.
#[test]
fn with_a_default_route_frr_init_is_fast() {
    let Some(site) = Site::usual() else { return };
    site.server.ip(GATEWAY);
    // Without the time to enter the namespace.
    let entering = (0..5).map(|_| {
        let start = Instant::now();
        succeed(&mut site.server.command("true"));
        start.elapsed()
    });
    let entering = entering.min().unwrap();
    let fastest = || {
        (0..5)
            .map(|_| site.init(&[]).succeeded().took)
            .min()
            .unwrap()
            .saturating_sub(entering)
    };
    let answered = fastest();
    site.leaf.ip("link set down0 down");
    site.server.ip("neigh flush all");
    let silent = fastest();
    println!("frr-init with a default route: {answered:?}; with a gateway that is silent: {silent:?}");
    assert!(
        answered < Duration::from_millis(250) && silent < Duration::from_millis(250),
        "{answered:?} {silent:?}"
    );
}
