//! What the tests that need real FRR and network namespaces share.
#![allow(dead_code)] // Each test binary uses its part.

pub mod agent;
pub mod frr;
pub mod namespace;
pub mod pod;
pub mod site;

/// Whether the test can run; the reason is printed where it cannot, and a failure in CI, where everything must be there.
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
