use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Mapping, String> {
    Mapping::parse(Path::new("mapping.json"), text).map_err(|error| error.to_string())
}

fn leaf(text: &str, subnet: &str) -> Result<u32, String> {
    let asn = parse(text)?.leaf_asn(subnet.parse().unwrap());
    asn.map(Asn::number).map_err(|error| error.to_string())
}

#[test]
fn strings_and_numbers_of_16_and_32_bit() {
    let text =
        r#"{"10.0.192.0/24":"65001", "10.0.193.0/24":65002, "10.0.194.0/24":"4200000001", "10.0.195.0/24":4294967294}"#;
    for (subnet, asn) in [
        ("10.0.192.0/24", 65001),
        ("10.0.193.0/24", 65002),
        ("10.0.194.0/24", 4_200_000_001),
        ("10.0.195.0/24", 4_294_967_294),
    ] {
        assert_eq!(leaf(text, subnet), Ok(asn));
    }
}

#[test]
fn the_longest_prefix_that_covers_the_subnet_wins() {
    let text = r#"{"10.0.0.0/8":"1", "10.0.192.0/24":"3", "10.0.0.0/16":"2", "::/0": "6", "fd00:1::/64": 7}"#;
    for (subnet, asn) in [
        ("10.0.192.0/24", 3),
        ("10.0.192.8/31", 3),
        ("10.0.192.111/24", 3),
        ("10.0.193.0/24", 2),
        ("10.200.0.0/24", 1),
        ("10.0.192.7/32", 3),
        ("fd00:1::5/64", 7),
        ("fd00:2::/64", 6),
    ] {
        assert_eq!(leaf(text, subnet), Ok(asn), "{subnet}");
    }
}

#[test]
fn an_error_for_a_missing_entry_has_the_entry_to_add() {
    assert_eq!(
        leaf(r#"{"10.0.193.0/24":"65002"}"#, "10.0.192.111/24").unwrap_err(),
        "No Leaf ASN mapping found\n  \
           Subnet: 10.0.192.0/24\n  \
           File:   mapping.json (1 entry, none for this subnet)\n  \
           Add:    \"10.0.192.0/24\": \"<ASN of the leaf switch>\""
    );
    assert!(leaf("{}", "10.0.192.0/24").unwrap_err().contains("(no entries)"));
}

#[test]
fn an_error_for_a_missing_file_has_the_entry_to_add() {
    let directory = tempfile::tempdir().unwrap();
    let missing = Mapping::load(directory.path()).unwrap();
    let error = missing
        .leaf_asn("10.0.192.0/24".parse().unwrap())
        .unwrap_err()
        .to_string();
    let file = directory.path().join("mapping.json");
    assert!(
        error.contains(&format!("File:   {} (does not exist)", file.display())),
        "{error}"
    );
    std::fs::write(&file, r#"{"10.0.192.0/24":"65001"}"#).unwrap();
    for path in [directory.path(), &file] {
        let mapping = Mapping::load(path).unwrap();
        assert_eq!(
            mapping.leaf_asn("10.0.192.0/24".parse().unwrap()).unwrap().number(),
            65001
        );
    }
}

#[test]
fn errors_have_line_and_column() {
    for (text, expected) in [
        ("", "mapping.json:1:0: EOF while parsing a value"),
        (
            "{\n  \"10.0.192.0/24\": \"65001\",\n}",
            "mapping.json:3:1: trailing comma",
        ),
        (
            "{\"10.0.192.0/24\": \"65001\"",
            "mapping.json:1:25: EOF while parsing an object",
        ),
        (
            "[]",
            "mapping.json:1:0: invalid type: sequence, expected an object of subnets and ASNs",
        ),
        ("{} x", "mapping.json:1:4: trailing characters"),
        (
            "{\n  \"10.0.192.0/24\": \"65001\",\n  \"10.0.192.0/24\": \"65001\"\n}",
            "mapping.json:3:3: 10.0.192.0/24 is a duplicate of the entry at 2:3; remove one",
        ),
        (
            "{\n  \"ü\": 1}",
            "mapping.json:2:3: \"ü\" is not a network as in \"10.0.192.0/24\"",
        ),
        (
            "{\"10.0.192.0\": 1}",
            "mapping.json:1:2: \"10.0.192.0\" has no prefix length; a network is expected, as in \"10.0.192.0/24\"",
        ),
        (
            "{\"10.0.192.5/24\": 1}",
            "mapping.json:1:2: \"10.0.192.5/24\" has bits set after its prefix; the network is \"10.0.192.0/24\"",
        ),
        (
            "{\"10.0.192.0/33\": 1}",
            "mapping.json:1:2: \"10.0.192.0/33\" is not a network as in \"10.0.192.0/24\"",
        ),
        (
            "{\"10.0.192.0/24\":\n \"4294967296\"}",
            "mapping.json:2:2: 10.0.192.0/24: \"4294967296\" is not an ASN: an integer from 1 to 4294967294 is expected",
        ),
        (
            "{\"10.0.192.0/24\": 4294967295}",
            "mapping.json:1:19: 10.0.192.0/24: 4294967295 is not a usable ASN: \
             4294967295, the last 32 bit ASN, is reserved (RFC 7300)",
        ),
        (
            "{\"10.0.192.0/24\": 0}",
            "mapping.json:1:19: 10.0.192.0/24: 0 is not a usable ASN: 0 is reserved (RFC 7607)",
        ),
        (
            "{\"10.0.192.0/24\": -1}",
            "mapping.json:1:19: 10.0.192.0/24: \"-1\" is not an ASN: an integer",
        ),
        (
            "{\"10.0.192.0/24\": 65001.5}",
            "mapping.json:1:19: 10.0.192.0/24: \"65001.5\" is not an ASN: an integer",
        ),
        (
            "{\"10.0.192.0/24\": 1e4}",
            "mapping.json:1:19: 10.0.192.0/24: \"1e4\" is not an ASN: an integer",
        ),
        (
            "{\"10.0.192.0/24\": null}",
            "mapping.json:1:19: 10.0.192.0/24: the ASN is not a string or a number",
        ),
        (
            "{\"10.0.192.0/24\": [1]}",
            "mapping.json:1:19: 10.0.192.0/24: the ASN is not a string or a number",
        ),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(expected), "{text:?}:\n{error}\n{expected}");
    }
}

#[test]
fn a_network_that_covers_a_part_of_the_subnet_is_an_error() {
    let text = "{\"10.0.0.0/8\": \"65001\",\n \"10.0.192.128/25\": \"65002\"}";
    let error = leaf(text, "10.0.192.0/24").unwrap_err();
    assert!(
        error.starts_with("mapping.json:2:2: 10.0.192.128/25 covers only a part of 10.0.192.0/24, the node's subnet"),
        "{error}"
    );
    assert_eq!(leaf(text, "10.0.193.0/24"), Ok(65001), "other subnets are not affected");
}

#[test]
fn networks_in_different_slash_8_collide() {
    let collision = |text: &str| parse(text).unwrap().collision().unwrap_or_default();
    let said = collision(r#"{"10.0.192.0/24":"1", "172.0.192.0/25":"2"}"#);
    assert!(
        said.contains("10.0.192.0/24 and 172.0.192.0/25 are in different /8 and collide")
            && said.contains("10.0.192.1 and 172.0.192.1 both get 4200049153"),
        "{said}"
    );
    let said = collision(r#"{"10.0.192.0/24":"1", "172.16.5.0/24":"2"}"#);
    assert!(said.contains("These two networks have no such addresses"), "{said}");
    assert!(collision(r#"{"0.0.0.0/0":"1"}"#).contains("spans several /8"));
    assert_eq!(
        collision(r#"{"10.0.192.0/24":"1", "10.1.192.0/24":"2", "fd00::/64": 3}"#),
        ""
    );
}

proptest! {
    #[test]
    fn any_text_is_parsed_without_a_panic(text in ".{0,200}") {
        let _ = parse(&text);
    }

    /// Almost valid files, some of them valid.
    #[test]
    fn any_object_is_parsed_without_a_panic(text in r#"\{("[0-9a-f.:/]{0,18}": ?["0-9.eE-]{0,11},?\n?){0,4}\}"#) {
        let _ = parse(&text).map(|mapping| mapping.collision());
    }

    /// The result equals a search through all prefix lengths from the longest.
    #[test]
    fn the_longest_prefix_equals_an_exhaustive_search(
        nets in prop::collection::btree_map((0u32..64, 8u8..=24), 1u32..60000, 0..12),
        node in 0u32..64,
    ) {
        // Networks from a small range, so that they nest.
        let net = |(bits, length): (u32, u8)| Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 | bits << 8), length).unwrap().trunc();
        let mut expected = std::collections::BTreeMap::new();
        for (key, asn) in nets {
            if Asn::new(asn).is_ok() {
                expected.insert(net(key), asn);
            }
        }
        let text = serde_json::to_string(&expected.iter().map(|(net, asn)| (net.to_string(), asn)).collect::<std::collections::BTreeMap<_, _>>()).unwrap();
        let subnet = net((node, 24));
        let tried = (0..=24).rev().find_map(|length| expected.get(&Ipv4Net::new(subnet.network(), length).unwrap().trunc()));
        prop_assert_eq!(leaf(&text, &subnet.to_string()).ok(), tried.copied());
    }
}
