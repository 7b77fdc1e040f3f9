use proptest::prelude::*;

use super::*;
use crate::network::{Address, DefaultRoute};

/// A network with given answers and neighbours.
#[derive(Default)]
struct FakeNetwork {
    answering: Vec<IpAddr>,
    neighbors: Vec<Neighbor>,
    probed: Vec<(IpAddr, Purpose)>,
}

impl NetworkProbe for FakeNetwork {
    fn probe(&mut self, targets: &[IpAddr], purpose: Purpose) -> Vec<Reachable> {
        self.probed.extend(targets.iter().map(|target| (*target, purpose)));
        let answers = targets.iter().map(|target| self.answering.contains(target));
        answers
            .map(|yes| if yes { Reachable::Yes } else { Reachable::No })
            .collect()
    }

    fn neighbors(&mut self) -> Vec<Neighbor> {
        self.neighbors.clone()
    }
}

fn interface(addresses: &[&str], routes: &[(u32, Option<&str>)]) -> Interface {
    Interface {
        name: "br-ex".into(),
        index: 1,
        up: true,
        addresses: addresses
            .iter()
            .map(|net| Address {
                net: net.parse().unwrap(),
                secondary: false,
            })
            .collect(),
        default_routes: routes
            .iter()
            .map(|(metric, gateway)| DefaultRoute {
                metric: *metric,
                gateway: gateway.map(|text| text.parse().unwrap()),
            })
            .collect(),
    }
}

struct Case {
    choice: &'static str,
    interface: Interface,
    network: FakeNetwork,
    notes: Vec<String>,
}

fn case(choice: &'static str, addresses: &[&str], routes: &[(u32, Option<&str>)]) -> Case {
    Case {
        choice,
        interface: interface(addresses, routes),
        network: FakeNetwork::default(),
        notes: Vec::new(),
    }
}

impl Case {
    fn answering(mut self, addresses: &[&str]) -> Self {
        self.network.answering = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self
    }

    fn knowing(mut self, neighbors: &[(&str, NeighborState)]) -> Self {
        let neighbors = neighbors.iter().map(|(address, state)| Neighbor {
            address: address.parse().unwrap(),
            state: *state,
        });
        self.network.neighbors = neighbors.collect();
        self
    }

    /// `ADDRESS discovery reachable`, or the error.
    fn run(&mut self) -> String {
        let node = self.interface.ipv4()[0];
        let choice = self.choice.parse().unwrap();
        match discover(&choice, node, &self.interface, &mut self.network, &mut self.notes) {
            Ok(found) => {
                let one = |found: &FoundPeer| format!("{} {} {:?}", found.address, found.discovery, found.reachable);
                found.iter().map(one).collect::<Vec<_>>().join(", ")
            }
            Err(error) => error.to_string(),
        }
    }
}

const NODE: &[&str] = &["10.0.192.111/24"];

#[test]
fn the_gateway_of_the_default_route() {
    let mut case = case("", NODE, &[(0, Some("10.0.192.254"))]).answering(&["10.0.192.254", "10.0.192.1"]);
    assert_eq!(case.run(), "10.0.192.254 route Yes");
    assert_eq!(
        case.network.probed,
        [("10.0.192.254".parse().unwrap(), Purpose::Report)]
    );
}

#[test]
fn a_gateway_is_used_although_it_does_not_answer() {
    assert_eq!(
        case("detection", NODE, &[(0, Some("10.0.192.1"))]).run(),
        "10.0.192.1 route No"
    );
}

#[test]
fn of_several_default_routes_the_lowest_metric_wins() {
    let mut case = case(
        "",
        NODE,
        &[
            (200, Some("10.0.192.1")),
            (100, Some("10.0.192.2")),
            (300, Some("10.0.192.3")),
        ],
    );
    assert_eq!(case.run(), "10.0.192.2 route No");
    assert!(case.notes.is_empty());
}

#[test]
fn of_equal_default_routes_the_lower_address_wins_with_a_note() {
    let mut case = case("", NODE, &[(100, Some("10.0.192.9")), (100, Some("10.0.192.2"))]);
    assert_eq!(case.run(), "10.0.192.2 route No");
    assert!(
        case.notes[0].contains("--peer-ip 10.0.192.2,10.0.192.9"),
        "{:?}",
        case.notes
    );
}

#[test]
fn an_on_link_default_route_is_ignored() {
    let mut with_other = case("", NODE, &[(0, None), (100, Some("10.0.192.2"))]);
    assert_eq!(with_other.run(), "10.0.192.2 route No");
    let mut alone = case("", NODE, &[(0, None)]).answering(&["10.0.192.254"]);
    assert_eq!(alone.run(), "10.0.192.254 detection:last Yes");
}

#[test]
fn a_gateway_may_be_outside_the_subnet_but_not_the_node_itself() {
    assert_eq!(
        case("", &["10.0.192.111/32"], &[(0, Some("10.9.9.9"))]).run(),
        "10.9.9.9 route No"
    );
    let mut own = case("", NODE, &[(0, Some("10.0.192.111"))]).answering(&["10.0.192.1"]);
    assert_eq!(own.run(), "10.0.192.1 detection:first Yes");
}

#[test]
fn without_a_gateway_the_first_and_the_last_address_are_probed() {
    let ends = ["10.0.192.1", "10.0.192.254"];
    assert_eq!(
        case("", NODE, &[]).answering(&ends).run(),
        "10.0.192.1 detection:first Yes"
    );
    let mut last = case("", NODE, &[]).answering(&["10.0.192.254"]);
    assert_eq!(last.run(), "10.0.192.254 detection:last Yes");
    let asked = ends.map(|address| (address.parse().unwrap(), Purpose::Decision));
    assert_eq!(last.network.probed, asked);
}

#[test]
fn without_an_answer_the_neighbour_table_decides() {
    use NeighborState::{Permanent, Reachable, Stale, Unknown};
    for (neighbors, expected) in [
        (&[("10.0.192.254", Stale)][..], "10.0.192.254 detection:neighbor No"),
        (&[("10.0.192.50", Reachable)], "10.0.192.50 detection:neighbor Yes"),
        (&[("10.0.192.50", Permanent)], "10.0.192.50 detection:neighbor No"),
        (
            &[("10.0.192.50", Reachable), ("10.0.192.254", Stale)],
            "10.0.192.254 detection:neighbor No",
        ),
        // FAILED and INCOMPLETE entries, other subnets, broadcast addresses and IPv6 are ignored.
        (&[("10.0.192.1", Unknown)], "10.0.192.1 detection:fallback No"),
        (&[("10.0.193.9", Reachable)], "10.0.192.1 detection:fallback No"),
        (&[("10.0.192.255", Permanent)], "10.0.192.1 detection:fallback No"),
        (&[("fe80::1", Reachable)], "10.0.192.1 detection:fallback No"),
        // Either of two neighbours could be the leaf switch.
        (
            &[("10.0.192.50", Reachable), ("10.0.192.51", Reachable)],
            "10.0.192.1 detection:fallback No",
        ),
    ] {
        assert_eq!(case("", NODE, &[]).knowing(neighbors).run(), expected, "{neighbors:?}");
    }
}

#[test]
fn the_fallback_is_reported_as_a_guess() {
    let mut case = case("", NODE, &[]);
    assert_eq!(case.run(), "10.0.192.1 detection:fallback No");
    assert!(case.notes[0].contains("is a guess"), "{:?}", case.notes);
}

#[test]
fn the_node_is_never_its_own_peer() {
    let first = &["10.0.192.1/24"];
    assert_eq!(
        case("", first, &[]).answering(&["10.0.192.1", "10.0.192.254"]).run(),
        "10.0.192.254 detection:last Yes"
    );
    for choice in ["", "first"] {
        let said = case(choice, first, &[]).run();
        assert!(
            said.starts_with("the first address of 10.0.192.0/24, 10.0.192.1, is this node's own"),
            "{said}"
        );
    }
    let said = case("last", &["10.0.192.254/24"], &[]).run();
    assert!(
        said.starts_with("the last address of 10.0.192.0/24, 10.0.192.254, is this node's own"),
        "{said}"
    );
    let said = case("10.0.192.1,10.0.192.111", NODE, &[]).run();
    assert!(said.starts_with("--peer-ip 10.0.192.111 is this node's own"), "{said}");
    let second = case("first", &["10.0.192.111/24", "10.0.192.1/24"], &[]).run();
    assert!(second.contains("is this node's own"), "{second}");
}

#[test]
fn on_a_31_the_peer_is_the_other_address() {
    for (node, other) in [("10.0.192.0/31", "10.0.192.1"), ("10.0.192.1/31", "10.0.192.0")] {
        for choice in ["first", "last"] {
            assert_eq!(
                case(choice, &[node], &[]).run(),
                format!("{other} {choice} No"),
                "{node}"
            );
        }
        assert_eq!(
            case("", &[node], &[]).run(),
            format!("{other} detection:fallback No"),
            "{node}"
        );
        assert!(
            case("", &[node], &[]).answering(&[other]).run().ends_with(" Yes"),
            "{node}"
        );
    }
}

#[test]
fn on_a_30_the_peer_is_the_other_address_unless_first_is_given() {
    assert_eq!(
        case("", &["10.0.192.1/30"], &[]).run(),
        "10.0.192.2 detection:fallback No"
    );
    assert_eq!(
        case("", &["10.0.192.2/30"], &[]).run(),
        "10.0.192.1 detection:fallback No"
    );
    assert!(
        case("first", &["10.0.192.1/30"], &[])
            .run()
            .contains("is this node's own")
    );
}

#[test]
fn a_32_needs_a_route_or_a_fixed_address() {
    for choice in ["", "first", "last"] {
        let said = case(choice, &["10.0.192.111/32"], &[]).run();
        assert!(
            said.starts_with("10.0.192.111/32 leaves no other address for a leaf switch"),
            "{said}"
        );
    }
    assert_eq!(
        case("10.0.192.1", &["10.0.192.111/32"], &[]).run(),
        "10.0.192.1 fixed No"
    );
}

#[test]
fn several_fixed_leaves_of_both_families() {
    let mut case = case("10.0.192.2, fd00::1", NODE, &[]).answering(&["fd00::1"]);
    assert_eq!(case.run(), "10.0.192.2 fixed No, fd00::1 fixed Yes");
}

#[test]
fn addresses_that_cannot_be_a_peer_are_rejected() {
    for text in [
        "leaf",
        "10.0.192.1,",
        "10.0.192.1/24",
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "fe80::1",
        "::",
        "1.1.1.1,1.1.1.1",
    ] {
        assert!(text.parse::<Choice>().is_err(), "{text}");
    }
}

#[test]
fn addresses_that_the_agent_adds_to_br_ex_are_not_the_nodes() {
    let interface = interface(
        &["169.254.0.1/32", "10.0.192.7/32", "10.0.192.111/24", "fd00::5/64"],
        &[],
    );
    let nets: Vec<String> = interface.ipv4().iter().map(Ipv4Net::to_string).collect();
    assert_eq!(nets, ["10.0.192.111/24", "10.0.192.7/32"]);
}

proptest! {
    /// For any subnet and any node address in it, the peer is another host address of the subnet.
    #[test]
    fn a_peer_is_another_host_of_the_subnet(bits: u32, length in 1u8..=31, choice in 0..3usize) {
        let net = Ipv4Net::new(bits.into(), length).unwrap();
        prop_assume!(!net.addr().is_loopback() && !net.addr().is_link_local());
        prop_assume!(length == 31 || (net.addr() != net.network() && net.addr() != net.broadcast()));
        let interface = interface(&[&net.to_string()], &[]);
        let choice = [Choice::Detection, Choice::First, Choice::Last][choice].clone();
        match discover(&choice, net, &interface, &mut FakeNetwork::default(), &mut Vec::new()) {
            Ok(found) => {
                let IpAddr::V4(peer) = found[0].address else { panic!("IPv4") };
                prop_assert!(net.contains(&peer) && peer != net.addr());
                prop_assert!(length == 31 || (peer != net.network() && peer != net.broadcast()));
            }
            Err(PeerError::OwnAddress { address, .. }) => prop_assert_eq!(address, net.addr()),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
