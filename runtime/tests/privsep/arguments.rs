//! Compares the grammar with a second definition: a regular expression over all arguments.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::LazyLock;

use obgp_runtime::privsep::arguments::{Configuration, parse};
use proptest::prelude::*;
use regex::Regex;

use super::world::{CONFIG, CONTEXT, NODE_CONFIG, SOCKET, valid};

/// Arguments are separated by U+001F, which no accepted argument contains.
static ACCEPTED: LazyLock<Regex> = LazyLock::new(|| {
    let name = r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,254}";
    let base = "/etc/(ovn-)?bgp-agent";
    let file = format!("--config-file\x1f({base}(/{name})+|/run/ovn-bgp-agent/node[.]conf)\x1f");
    let directory = format!("--config-dir\x1f{base}(/{name})*\x1f");
    Regex::new(&format!(
        "^({file}|{directory}){{0,16}}\
         --privsep_context\x1fovn_bgp_agent[.]privileged[.](default|ovs_vsctl_cmd|vtysh_cmd)\x1f\
         --privsep_sock_path\x1f/tmp/tmp[a-z0-9_]{{8}}/privsep[.]sock$"
    ))
    .unwrap()
});

fn accepted(arguments: &[String]) -> bool {
    let given: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    parse(&given).is_ok()
}

/// An attacker's arguments: valid ones, invalid ones, and valid ones with a change.
fn argument() -> impl Strategy<Value = String> {
    let right = prop_oneof![
        Just("--config-file"),
        Just("--config-dir"),
        Just("--privsep_context"),
        Just("--privsep_sock_path"),
        Just(CONFIG),
        Just(NODE_CONFIG),
        Just("/etc/bgp-agent"),
        Just("/etc/ovn-bgp-agent/conf.d"),
        Just(CONTEXT),
        Just(SOCKET),
    ];
    let tempting = prop_oneof![
        Just("--"),
        Just("-"),
        Just(""),
        Just("--help"),
        Just("--config"),
        Just("--config-file=/tmp/x"),
        Just("--log-config-append"),
        Just("/etc/ovn-bgp-agent/../shadow"),
        Just("/etc/ovn-bgp-agent/"),
        Just("/etc/ovn-bgp-agentx/a"),
        Just("//etc/ovn-bgp-agent/a"),
        Just("/etc/ovn-bgp-agent/.a"),
        Just("/etc/ovn-bgp-agent/a\n"),
        Just("os.system"),
        Just("/run/ovn-bgp-agent/other.conf"),
        Just("/tmp/tmpABCDEFGH/privsep.sock"),
        Just("/tmp/tmpabc_1234/privsep.sock/"),
    ];
    let changed = (
        right.clone(),
        any::<prop::sample::Index>(),
        any::<char>(),
        any::<bool>(),
    )
        .prop_map(|(word, at, character, replace)| {
            let mut characters: Vec<char> = word.chars().collect();
            let at = at.index(characters.len());
            match replace {
                true => characters[at] = character,
                false => characters.insert(at, character),
            }
            characters.into_iter().collect()
        });
    prop_oneof![6 => right.prop_map(String::from), 2 => tempting.prop_map(String::from), 1 => changed, 1 => ".{0,20}"]
}

/// A valid call of any length.
fn call() -> impl Strategy<Value = Vec<String>> {
    let name = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,12}";
    let configuration = prop_oneof![
        prop::collection::vec(name, 1..4).prop_map(|names| vec![
            "--config-file".to_string(),
            format!("/etc/ovn-bgp-agent/{}", names.join("/"))
        ]),
        prop::collection::vec(name, 0..4).prop_map(|names| {
            let path = names
                .iter()
                .fold("/etc/bgp-agent".to_string(), |path, name| format!("{path}/{name}"));
            vec!["--config-dir".to_string(), path]
        }),
        Just(vec!["--config-file".to_string(), NODE_CONFIG.to_string()]),
    ];
    let context = prop_oneof![Just("default"), Just("ovs_vsctl_cmd"), Just("vtysh_cmd")];
    (prop::collection::vec(configuration, 0..18), context, "[a-z0-9_]{8}").prop_map(
        |(configuration, context, random)| {
            let mut call = configuration.concat();
            call.extend([
                "--privsep_context".to_string(),
                format!("ovn_bgp_agent.privileged.{context}"),
                "--privsep_sock_path".to_string(),
                format!("/tmp/tmp{random}/privsep.sock"),
            ]);
            call
        },
    )
}

fn joined(arguments: &[String]) -> String {
    arguments.join("\x1f")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn the_parser_accepts_what_the_expression_matches(arguments in prop::collection::vec(argument(), 0..8)) {
        prop_assert_eq!(accepted(&arguments), ACCEPTED.is_match(&joined(&arguments)), "{:?}", arguments);
    }

    #[test]
    fn a_valid_call_is_accepted_with_up_to_sixteen_configurations(call in call()) {
        prop_assert_eq!(accepted(&call), ACCEPTED.is_match(&joined(&call)), "{:?}", call);
    }

    /// A valid call with one argument replaced, removed, repeated or added.
    #[test]
    fn a_changed_call_is_accepted_only_if_the_expression_matches(
        call in call(), at in any::<prop::sample::Index>(), by in argument(), how in 0..4_u8,
    ) {
        let mut call = call;
        let at = at.index(call.len());
        match how {
            0 => call[at] = by,
            1 => drop(call.remove(at)),
            2 => call.insert(at, call[at].clone()),
            _ => call.insert(at, by),
        }
        prop_assert_eq!(accepted(&call), ACCEPTED.is_match(&joined(&call)), "{:?}", call);
    }

    #[test]
    fn any_bytes_are_parsed_without_a_panic(arguments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
        let arguments: Vec<OsString> = arguments.into_iter().map(OsString::from_vec).collect();
        prop_assert!(parse(&arguments).is_err());
    }
}

#[test]
fn node_conf_is_not_passed_on() {
    let arguments: Vec<OsString> = valid().into_iter().map(OsString::from).collect();
    let request = parse(&arguments).unwrap();
    let [Configuration::File(only)] = request.configuration.as_slice() else {
        panic!("{request:?}");
    };
    assert_eq!(only.as_str(), CONFIG);
    assert_eq!(request.context.name(), CONTEXT);
    assert_eq!(request.socket.to_string(), SOCKET);
}

#[test]
fn very_long_paths_are_rejected() {
    let mut long = valid();
    long[1] = format!("/etc/ovn-bgp-agent/{}", "a/".repeat(600) + "a");
    assert!(!accepted(&long));
    let mut name = valid();
    name[1] = format!("/etc/ovn-bgp-agent/{}", "a".repeat(256));
    assert!(!accepted(&name));
}
