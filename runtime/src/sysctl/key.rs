//! The name of a sysctl below `net`, in the syntax of sysctl(8) -> a path below `/proc/sys`.
//!
//! The separator of a name is a dot or a slash, whichever comes first. The other character then represents a dot within a part:
//! `net.ipv4.conf.br-ex/100.proxy_arp` and `net/ipv4/conf/br-ex.100/proxy_arp` are the same key. A device name may also be
//! written unchanged (`net.ipv4.conf.br-ex.100.proxy_arp`), which is unambiguous because device names have no slash.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::network::is_interface_name;

#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Relative to `/proc/sys`: `net/ipv4/ip_forward`.
    path: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("{0:?} is not a key below net\nhelp: use /usr/sbin/sysctl for other keys")]
    NotNet(String),
    #[error("{0:?} is not a key name")]
    Malformed(String),
    #[error("{key:?}: {device:?} is not a network device name")]
    Device { key: String, device: String },
}

impl Key {
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let separator = text.find(['.', '/']).map(|at| text.as_bytes()[at]);
        let path = match separator {
            Some(b'.') => text
                .chars()
                .map(|c| match c {
                    '.' => '/',
                    '/' => '.',
                    c => c,
                })
                .collect(),
            _ => text.to_string(),
        };
        let bad = |part: &str| {
            part.is_empty()
                || part == "."
                || part == ".."
                || part.contains(|c: char| c.is_control() || c.is_whitespace())
        };
        if path.split('/').any(bad) {
            return Err(KeyError::Malformed(text.to_string()));
        }
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["net", family, kind @ ("conf" | "neigh"), device @ .., leaf] if !device.is_empty() => {
                let device = device.join(".");
                if !is_interface_name(&device) {
                    let key = text.to_string();
                    return Err(KeyError::Device { key, device });
                }
                let path = format!("net/{family}/{kind}/{device}/{leaf}");
                Ok(Self { path })
            }
            ["net", _, ..] => Ok(Self { path }),
            _ => Err(KeyError::NotNet(text.to_string())),
        }
    }

    /// Keys that the agent sets (ovn_bgp_agent/utils/linux_net.py of 4.0.0 to 7.0.0), and rp_filter: strict reverse path filtering
    /// on the bridges would drop packets of asymmetric paths.
    pub fn is_needed_by_agent(&self) -> bool {
        let parts: Vec<&str> = self.path.split('/').collect();
        matches!(
            parts.as_slice(),
            ["net", "ipv4", "ip_forward"]
                | ["net", "ipv4", "conf", _, "forwarding" | "proxy_arp" | "rp_filter"]
                | ["net", "ipv6", "conf", _, "forwarding" | "proxy_ndp"]
        )
    }

    /// The path relative to `/proc/sys/net`.
    pub fn below_net(&self) -> &str {
        &self.path["net/".len()..]
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/proc/sys").join(&self.path)
    }
}

/// With dots, like the output of sysctl(8).
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let swapped = self.path.chars().map(|c| match c {
            '/' => '.',
            '.' => '/',
            c => c,
        });
        f.write_str(&swapped.collect::<String>())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_the_syntax_of_procps() {
        for (text, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            ("net.ipv4.conf.br-ex.proxy_arp", "net/ipv4/conf/br-ex/proxy_arp"),
            // The agent's form for a VLAN device.
            ("net.ipv4.conf.br-ex/100.proxy_arp", "net/ipv4/conf/br-ex.100/proxy_arp"),
            ("net/ipv4/conf/br-ex.100/proxy_arp", "net/ipv4/conf/br-ex.100/proxy_arp"),
            ("net.ipv6.conf.a/b/c.proxy_ndp", "net/ipv6/conf/a.b.c/proxy_ndp"),
            ("net.ipv4.conf.br-ex.100.proxy_arp", "net/ipv4/conf/br-ex.100/proxy_arp"),
            ("net.ipv4.neigh.eth0.gc_stale_time", "net/ipv4/neigh/eth0/gc_stale_time"),
            ("net.core.somaxconn", "net/core/somaxconn"),
        ] {
            let key = Key::parse(text).unwrap();
            assert_eq!(key.path(), Path::new("/proc/sys").join(path), "{text}");
            assert_eq!(Key::parse(&key.to_string()).unwrap(), key, "{text}");
        }
        let vlan = Key::parse("net/ipv4/conf/br-ex.100/proxy_arp").unwrap();
        assert_eq!(vlan.to_string(), "net.ipv4.conf.br-ex/100.proxy_arp");
        assert_eq!(vlan.below_net(), "ipv4/conf/br-ex.100/proxy_arp");
    }

    #[test]
    fn names_outside_net_are_rejected() {
        for text in [
            "kernel.core_pattern",
            "kernel/core_pattern",
            "net",
            "vm.x",
            "/proc/sys/net/x",
            "",
        ] {
            assert!(Key::parse(text).is_err(), "{text}");
        }
        for text in [
            "net/../kernel/core_pattern",
            "net/ipv4/./ip_forward",
            "net//ipv4",
            "net..ipv4",
            "net.ipv4.",
            "net.//.kernel.core_pattern",
            "net.ipv4.conf.//.proxy_arp",
            "net.ipv4.conf.a b.proxy_arp",
            "net.ipv4.conf.a\n.proxy_arp",
            "net.ipv4.conf.a:1.proxy_arp",
            "net.ipv4.conf.sixteen_letters_.proxy_arp",
        ] {
            assert!(Key::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_keys_that_the_agent_needs_are_writable() {
        for text in [
            "net.ipv4.ip_forward",
            "net.ipv4.conf.all.forwarding",
            "net.ipv6.conf.all.forwarding",
            "net.ipv4.conf.br-ex/100.proxy_arp",
            "net.ipv6.conf.br-ex.proxy_ndp",
            "net.ipv4.conf.br-ex.rp_filter",
        ] {
            assert!(Key::parse(text).unwrap().is_needed_by_agent(), "{text}");
        }
        for text in [
            "net.ipv4.conf.all",
            "net.ipv4.conf.br-ex.proxy_ndp",
            "net.ipv6.conf.br-ex.proxy_arp",
            "net.ipv6.conf.br-ex.disable_ipv6",
            "net.ipv4.neigh.br-ex.proxy_arp",
            "net.ipv4.tcp_syncookies",
            "net.core.somaxconn",
            "net.ipv4.ip_forward.x",
        ] {
            assert!(!Key::parse(text).unwrap().is_needed_by_agent(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_key_stays_below_net(text in r"net[./](ipv[46]|\.\.|[a-z./]){0,3}[./](conf|[a-z/.]{0,4})[./][a-z0-9./]{0,9}[./]?[a-z_.]{0,4}") {
            if let Ok(key) = Key::parse(&text) {
                let path = key.path();
                prop_assert!(path.starts_with("/proc/sys/net"));
                prop_assert!(path.components().all(|part| part != std::path::Component::ParentDir));
                prop_assert_eq!(Key::parse(&key.to_string()), Ok(key));
            }
        }
    }
}
