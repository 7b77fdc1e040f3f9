//! Support for tests with real FRR and network namespaces.
#![allow(dead_code)] // Each test binary uses its part.

pub mod agent;
pub mod frr;
pub mod namespace;
pub mod pod;
pub mod site;

/// Whether the test can run. If not, the reason is printed; in CI, which must have everything, the test fails.
pub fn available(missing: Option<String>) -> bool {
    match missing {
        None => true,
        Some(why) if std::env::var_os("CI").is_some() => panic!("{why}"),
        Some(why) => {
            eprintln!("SKIPPED: {why}");
            false
        }
    }
}
