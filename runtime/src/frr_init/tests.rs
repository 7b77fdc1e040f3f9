use clap::Parser;

use super::*;
use crate::network::{Address, DefaultRoute};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

fn args(arguments: &[&str]) -> Args {
    Command::try_parse_from([&["frr-init"], arguments].concat())
        .unwrap()
        .args
}

fn interface(addresses: &[(&str, bool)], gateway: Option<&str>) -> Interface {
    Interface {
        name: "br-ex".into(),
        index: 7,
        up: true,
        addresses: addresses
            .iter()
            .map(|(net, secondary)| Address {
                net: net.parse().unwrap(),
                secondary: *secondary,
            })
            .collect(),
        default_routes: gateway
            .map(|gateway| DefaultRoute {
                metric: 0,
                gateway: Some(gateway.parse().unwrap()),
            })
            .into_iter()
            .collect(),
    }
}

fn address(arguments: &[&str], interface: &Interface) -> (String, Vec<String>) {
    let mut notes = Vec::new();
    let chosen = node_address(&args(arguments), interface, &mut notes);
    (
        chosen.map_or_else(|error| error.to_string(), |net| net.to_string()),
        notes,
    )
}

#[test]
fn of_several_addresses_the_one_that_leads_to_the_leaf_is_used() {
    let several = &[
        ("192.168.5.4/24", false),
        ("10.0.192.111/24", false),
        ("10.0.192.9/24", true),
    ][..];
    let plain = interface(several, None);
    let routed = interface(several, Some("10.0.192.1"));
    assert_eq!(address(&[], &plain).0, "192.168.5.4/24");
    assert_eq!(address(&[], &routed).0, "10.0.192.111/24");
    assert_eq!(address(&["--peer-ip", "192.168.5.1"], &routed).0, "192.168.5.4/24");
    assert_eq!(address(&["--node-ip", "10.0.192.9"], &routed).0, "10.0.192.9/24");
    assert_eq!(address(&["--node-ip", "172.16.0.1"], &routed).0, "10.0.192.111/24");
    assert!(address(&[], &plain).1[0].contains("10.0.192.111/24, 10.0.192.9/24"));
}

#[test]
fn a_single_address_causes_no_note() {
    let (chosen, notes) = address(
        &[],
        &interface(&[("10.0.192.111/24", false), ("169.254.0.1/32", false)], None),
    );
    assert_eq!((chosen.as_str(), notes.len()), ("10.0.192.111/24", 0));
}

#[test]
fn an_interface_without_ipv4_is_an_error() {
    for addresses in [&[][..], &[("fd00::5/64", false)], &[("169.254.0.1/32", false)]] {
        let said = address(&[], &interface(addresses, None)).0;
        assert!(said.starts_with("br-ex has no IPv4 address, which the ASN"), "{said}");
    }
    let down = Interface {
        up: false,
        ..interface(&[], None)
    };
    assert!(address(&[], &down).0.contains("(and it is down)"));
}

#[test]
fn empty_options_count_as_absent() {
    let empty = args(&[
        "--peer-ip",
        "",
        "--node-ip",
        "",
        "--asn",
        "",
        "--evpn-rr-ip",
        "",
        "--password-file",
        "",
    ]);
    assert_eq!(empty.peer_ip, Choice::Detection);
    assert_eq!((empty.node_ip.0, empty.asn.0), (None, None));
    assert_eq!(empty.frr.route_reflector().unwrap(), None);
}

#[test]
fn an_unusable_asn_is_rejected() {
    assert!(Command::try_parse_from(["frr-init", "--asn", "4294967295"]).is_err());
}

#[test]
fn a_fixed_leaf_gets_the_asn_of_its_own_subnet() {
    let text = r#"{"10.0.192.0/24": 65001, "fd00:7::/64": 65007, "10.9.0.0/16": 65009}"#;
    let site = Site {
        node: "10.0.192.111/24".parse().unwrap(),
        interface: interface(&[("10.0.192.111/24", false), ("fd00:7::5/64", false)], None),
        leaf_asns: LeafAsns::Mapping(Mapping::parse("mapping.json".as_ref(), text).unwrap()),
    };
    for (address, asn) in [("10.0.192.1", 65001), ("fd00:7::1", 65007), ("10.9.9.9", 65009)] {
        let found = FoundPeer {
            address: address.parse().unwrap(),
            discovery: Discovery::Fixed,
            reachable: peer::Reachable::No,
        };
        let (found, _) = site.leaf_asn(site.subnet_of_leaf(&found)).unwrap();
        assert_eq!(found, PeerAs::Number(Asn::new(asn).unwrap()));
    }
}

#[test]
fn the_leafs_asn_is_mapped_or_configured() {
    let number = |number| LeafAsn::Configured(PeerAs::Number(Asn::new(number).unwrap()));
    for (arguments, expected) in [
        (&[][..], LeafAsn::Mapping),
        (&["--peer-as="], LeafAsn::Mapping),
        (&["--peer-asn=mapping"], LeafAsn::Mapping),
        (&["--peer-as=external"], LeafAsn::Configured(PeerAs::External)),
        (&["--peer-asn=65001"], number(65001)),
    ] {
        assert_eq!(args(arguments).peer_asn, expected, "{arguments:?}");
    }
    assert!(Command::try_parse_from(["frr-init", "--peer-as=internal"]).is_err());
}

#[test]
fn the_nodes_ip_is_used_where_an_unnumbered_node_has_no_other() {
    let bare = interface(&[], None);
    let address = |arguments: &[&str]| node_address(&args(arguments), &bare, &mut Vec::new()).map_err(|_| ());
    let unnumbered = ["--peer-interface=eth0", "--node-ip=10.0.0.5"];
    assert_eq!(address(&unnumbered), Ok("10.0.0.5/32".parse().unwrap()));
    assert_eq!(address(&unnumbered[..1]), Err(()));
    assert_eq!(address(&unnumbered[1..]), Err(()));
}
