//! The lines that open and close FRR's configuration contexts.

/// The kinds of contexts that determine which lines open or close a context within them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Router,
    AddressFamily,
    EvpnVni,
    Vrf,
    Interface,
    RouteMap,
    Bfd,
    BfdPeer,
    KeyChain,
    Key,
}

/// The effect of a line on the open contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Opens a context within the first `parent` contexts. Deeper contexts are closed.
    Open { parent: usize, kind: Kind },
    /// Closes the innermost context.
    Close,
    /// A command without an effect on contexts.
    Stay,
    /// Starts with an abbreviation of a word that opens a context. Only the daemons could resolve it.
    Abbreviated,
}

/// Classifies a line by its words, in the syntax of FRR 8 to 10. `open` has the open contexts, outermost first.
pub fn step(words: &[&str], open: &[Kind]) -> Step {
    use Kind::*;
    let below = |parent: usize, kind: Kind| Step::Open { parent, kind };
    match *words {
        ["exit" | "quit"] => Step::Close,
        ["exit-address-family"] if open.last() == Some(&AddressFamily) => Step::Close,
        ["exit-vni"] if open.last() == Some(&EvpnVni) => Step::Close,
        ["exit-vrf"] if open.last() == Some(&Vrf) => Step::Close,
        ["router", _, ..] => below(0, Router),
        ["vrf", _] => below(0, Vrf),
        ["interface", _] | ["interface", _, "vrf", _] => below(0, Interface),
        ["route-map", _, "permit" | "deny", _] => below(0, RouteMap),
        ["bfd"] => below(0, Bfd),
        ["key", "chain", _] => below(0, KeyChain),
        ["address-family", ..] if open.first() == Some(&Router) => below(1, AddressFamily),
        ["vni", _] if open.starts_with(&[Router, AddressFamily]) => below(2, EvpnVni),
        ["peer", ..] | ["profile", _] if open.first() == Some(&Bfd) => below(1, BfdPeer),
        ["key", _] if open.first() == Some(&KeyChain) => below(1, Key),
        [word, _, ..] if is_abbreviation(word) => Step::Abbreviated,
        _ => Step::Stay,
    }
}

/// `route` is a command itself (RIP), and so are words of one or two letters (`ip`, `rd`, `no`).
fn is_abbreviation(word: &str) -> bool {
    const OPENERS: [&str; 5] = ["router", "vrf", "interface", "route-map", "address-family"];
    let begins = |opener: &&str| opener.len() > word.len() && opener.starts_with(word);
    (word.len() >= 3 || word == "vr") && word != "route" && OPENERS.iter().any(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classify(line: &str, open: &[Kind]) -> Step {
        step(&line.split_whitespace().collect::<Vec<_>>(), open)
    }

    #[test]
    fn lines_open_and_close_contexts() {
        use Kind::*;
        let open = |parent, kind| Step::Open { parent, kind };
        for (line, contexts, expected) in [
            ("router bgp 65000", &[][..], open(0, Router)),
            ("router bgp 65000 vrf red", &[Router, AddressFamily], open(0, Router)),
            ("vrf red", &[Router], open(0, Vrf)),
            ("vni 5", &[Vrf], Step::Stay),
            ("vni 5", &[Router, AddressFamily], open(2, EvpnVni)),
            ("vni 6", &[Router, AddressFamily, EvpnVni], open(2, EvpnVni)),
            ("address-family ipv6 unicast", &[Router], open(1, AddressFamily)),
            (
                "address-family ipv6 unicast",
                &[Router, AddressFamily],
                open(1, AddressFamily),
            ),
            ("address-family ipv6 unicast", &[Vrf], Step::Stay),
            ("interface br-ex", &[], open(0, Interface)),
            ("no interface br-ex", &[], Step::Stay),
            ("no vrf red", &[], Step::Stay),
            ("import vrf red", &[Router, AddressFamily], Step::Stay),
            ("exit", &[Router], Step::Close),
            ("exit-address-family", &[Router, AddressFamily], Step::Close),
            ("exit-address-family", &[Router], Step::Stay),
            ("exit-vrf", &[Vrf], Step::Close),
            ("exit-vrf", &[Router], Step::Stay),
            ("route-map out permit 10", &[], open(0, RouteMap)),
            ("route-map out", &[], Step::Stay),
            ("rou bgp 65000", &[], Step::Abbreviated),
            ("int br-ex", &[], Step::Abbreviated),
            ("addr ipv4", &[Router], Step::Abbreviated),
            ("route 10.0.0.0/8", &[Router], Step::Stay),
            ("ip route 10.0.0.0/8 10.0.0.1", &[], Step::Stay),
            ("", &[], Step::Stay),
        ] {
            assert_eq!(classify(line, contexts), expected, "{line} in {contexts:?}");
        }
    }
}
