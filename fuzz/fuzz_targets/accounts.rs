//! Parses arbitrary account files and dpkg databases: they are rejected, or the parsed fields are unambiguous.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obgp_build::image::packages::dpkg;
use obgp_build::verify::{parse_group, parse_gshadow, parse_passwd, parse_shadow};

fuzz_target!(|text: &str| {
    if let Ok(users) = parse_passwd(text) {
        for user in users {
            assert!(!user.name.is_empty() && !user.name.contains([':', '\n', ' ', '+']));
            assert!(user.home.starts_with('/') && !user.shell.contains(char::is_control));
        }
    }
    if let Ok(groups) = parse_group(text) {
        assert!(groups.iter().flat_map(|g| &g.members).all(|m| !m.is_empty()));
    }
    let _ = (parse_shadow(text), parse_gshadow(text), dpkg::parse(text));
});
