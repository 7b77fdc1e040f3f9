//! iproute2's `rt_tables` -> the names of routing tables, as the agent and iproute2 parse them.
//!
//! The agent uses the first line with a decimal number in the first column, followed by the bridge's name. iproute2 also accepts
//! white space before the number, and hexadecimal numbers. An entry that only iproute2 accepts has no name for the agent, but
//! its number is in use.

use std::collections::BTreeSet;

/// The numbers that the agent assigns to bridges (ROUTING_TABLE_MIN and _MAX of its constants).
pub const RANGE: std::ops::RangeInclusive<u32> = 1..=252;

/// The default of bgp_vrf_table_id. Never assigned to a bridge, so that the option can be removed again.
pub const DEFAULT_VRF_TABLE: u32 = 10;

/// Numbers from here on are tried first, because people tend to choose low ones.
const PREFERRED: u32 = 100;

/// The largest accepted file, in bytes.
pub const MAX_SIZE: u64 = 1 << 20;

/// The entries that iproute2 ships, for a system without the file.
pub const STANDARD: &str = "255\tlocal\n254\tmain\n253\tdefault\n0\tunspec\n";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: u32,
    pub name: String,
    /// Whether the agent's regular expression matches the line.
    pub for_agent: bool,
}

/// The entries of a file, in order. Other lines are ignored, as by iproute2.
pub fn parse(text: &str) -> Vec<Entry> {
    text.lines().filter_map(entry).collect()
}

fn entry(line: &str) -> Option<Entry> {
    let mut words = line.split_ascii_whitespace();
    let (number, name) = (words.next()?, words.next()?);
    if number.starts_with('#') || name.starts_with('#') {
        return None;
    }
    let (digits, radix) = match number.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    if !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    Some(Entry {
        id: u32::from_str_radix(digits, radix).ok()?,
        name: name.to_string(),
        for_agent: radix == 10 && line.starts_with(number),
    })
}

/// The entry that the agent uses for a bridge.
pub fn find<'a>(entries: &'a [Entry], name: &str) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.for_agent && entry.name == name)
}

/// A number for a new entry: not in the file, not in `taken`, and not [`DEFAULT_VRF_TABLE`].
pub fn free(entries: &[Entry], taken: &BTreeSet<u32>) -> Option<u32> {
    let used: BTreeSet<u32> = entries.iter().map(|entry| entry.id).collect();
    let candidates = (PREFERRED..=*RANGE.end()).chain(*RANGE.start()..PREFERRED);
    candidates
        .into_iter()
        .find(|id| !used.contains(id) && !taken.contains(id) && *id != DEFAULT_VRF_TABLE)
}

/// The text to append to a file for a new entry. `text` is the file's content, which may lack the final newline.
pub fn addition(text: &str, id: u32, name: &str) -> String {
    let newline = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{newline}{id} {name}\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str =
        "#\n# reserved values\n#\n255\tlocal\n254\tmain\n253\tdefault\n0\tunspec\n#\n# local\n#\n#1\tinr.ruhep\n";

    fn ids(text: &str) -> Vec<(u32, bool)> {
        parse(text).iter().map(|entry| (entry.id, entry.for_agent)).collect()
    }

    #[test]
    fn the_distributions_file_has_four_entries() {
        assert_eq!(ids(FILE), [(255, true), (254, true), (253, true), (0, true)]);
        assert_eq!(free(&parse(FILE), &BTreeSet::new()), Some(100));
        assert_eq!(ids(STANDARD), ids(FILE));
    }

    #[test]
    fn the_agent_accepts_fewer_lines_than_iproute2() {
        let text = "  7 indented\n0x64 br-ex\n200 br-ex # the bridge\n201 br-ex\n9\n10 # nothing\nx10 no\n10x no\n-1 no\n4294967296 no\n";
        assert_eq!(ids(text), [(7, false), (100, false), (200, true), (201, true)]);
        let entries = parse(text);
        assert_eq!(
            find(&entries, "br-ex").map(|entry| entry.id),
            Some(200),
            "the first line that the agent accepts"
        );
        assert_eq!(find(&entries, "indented"), None);
        assert_eq!(
            free(&entries, &BTreeSet::new()),
            Some(101),
            "100 is in use, in hexadecimal"
        );
    }

    #[test]
    fn a_new_entry_collides_with_no_other() {
        let full: String = (1..=252)
            .filter(|id| *id != 10 && *id != 42)
            .map(|id| format!("{id} t{id}\n"))
            .collect();
        assert_eq!(free(&parse(&full), &BTreeSet::new()), Some(42));
        assert_eq!(free(&parse(&full), &BTreeSet::from([42])), None, "10 is never used");
        assert_eq!(free(&[], &BTreeSet::from([100, 101])), Some(102));
    }

    #[test]
    fn an_addition_starts_a_new_line() {
        assert_eq!(addition("", 100, "br-ex"), "100 br-ex\n");
        assert_eq!(addition("0 unspec\n", 100, "br-ex"), "100 br-ex\n");
        assert_eq!(addition("0 unspec", 100, "br-ex"), "\n100 br-ex\n");
    }

    proptest! {
        #[test]
        fn an_added_entry_is_found_and_its_number_was_free(
            text in "([0-9 \t#x]{0,4}(br-ex|lo)?[ \t]?[a-z]{0,3}\n?){0,12}",
            taken in prop::collection::btree_set(0u32..256, 0..40),
        ) {
            let entries = parse(&text);
            let Some(id) = free(&entries, &taken) else { return Ok(()) };
            prop_assert!(RANGE.contains(&id) && id != DEFAULT_VRF_TABLE && !taken.contains(&id));
            prop_assert!(entries.iter().all(|entry| entry.id != id));
            let after = parse(&(text.clone() + &addition(&text, id, "br-new")));
            prop_assert_eq!(&after[..entries.len()], &entries[..]);
            prop_assert_eq!(find(&after, "br-new").map(|entry| entry.id), Some(id));
        }

        #[test]
        fn any_text_is_parsed(text: String) {
            for entry in parse(&text) {
                prop_assert!(!entry.name.is_empty());
            }
        }
    }
}
