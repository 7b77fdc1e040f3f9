//! Parses an arbitrary mapping.json: it is rejected with a position in the text, or it maps any subnet to a valid ASN
//! or an error.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use obgp_runtime::mapping::{Mapping, MappingError};

const SUBNETS: [&str; 5] = ["10.0.192.0/24", "10.0.192.0/31", "10.0.0.0/8", "0.0.0.0/0", "fd00::/64"];

fuzz_target!(|text: &str| {
    let mapping = match Mapping::parse(Path::new("mapping.json"), text) {
        Ok(mapping) => mapping,
        Err(MappingError::Invalid { place, .. }) => {
            assert!(place.line <= text.matches('\n').count() + 1);
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let _ = mapping.collision();
    for subnet in SUBNETS {
        if let Ok(subnet) = subnet.parse()
            && let Ok(asn) = mapping.leaf_asn(subnet)
        {
            assert!(asn.number() != 0 && asn.number() != u32::MAX);
        }
    }
});
