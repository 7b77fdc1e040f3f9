//! Parses an arbitrary rt_tables file and adds an entry: the entry is found, its ID was free, and other entries are
//! unchanged.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use obgp_runtime::rt_tables::{DEFAULT_VRF_TABLE, RANGE, addition, find, free, parse};

fuzz_target!(|text: &str| {
    let entries = parse(text);
    assert!(entries.len() <= text.lines().count());
    // A name that the file does not contain.
    let name = (0..).map(|number| format!("br-{number}")).find(|name| entries.iter().all(|entry| entry.name != *name));
    let name = name.unwrap_or_default();
    assert!(find(&entries, &name).is_none());
    let Some(id) = free(&entries, &BTreeSet::new()) else { return };
    assert!(RANGE.contains(&id) && id != DEFAULT_VRF_TABLE && entries.iter().all(|entry| entry.id != id));
    let after = parse(&format!("{text}{}", addition(text, id, &name)));
    assert_eq!(&after[..entries.len()], &entries[..]);
    assert_eq!(find(&after, &name).map(|entry| entry.id), Some(id));
});
