//! This vtysh and FRR's own on FRR 8.4.4 and 10.3: the calls of ovn-bgp-agent 7.0.0 lead to the same configuration and output.
//!
//! The agent runs `show ip bgp summary json` and files from four templates (drivers/openstack/utils/frr.py): leak, add-vrf,
//! del-vrf, neighbour discovery. Here the agent's own code renders them, with every possible value.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::agent::Venv;
use support::frr::{FrrRoot, Namespace, Node, Suite};

/// `vtysh` as in the image: a link to the binary.
struct Vtysh {
    directory: tempfile::TempDir,
}

impl Vtysh {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = env!("CARGO_BIN_EXE_obgp-runtime");
        std::os::unix::fs::symlink(program, directory.path().join("vtysh")).unwrap();
        Self { directory }
    }

    fn run(&self, sockets: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.directory.path().join("vtysh"));
        command
            .arg("--vty_socket")
            .arg(sockets)
            .args(arguments)
            .output()
            .unwrap()
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.directory.path().join("config");
        fs::write(&path, text).unwrap();
        path
    }
}

/// A node with FRR and interfaces.
struct Lab {
    // Fields are dropped in this order.
    node: Node,
    _space: Namespace,
    _config: tempfile::TempDir,
    root: FrrRoot,
    vtysh: Vtysh,
}

const BEFORE: &str = "hostname lab\nrouter bgp 64999\n bgp router-id 10.9.0.1\n no bgp ebgp-requires-policy\n \
                      neighbor 10.9.0.2 remote-as 65001\nexit\n";

impl Lab {
    fn new(root: &FrrRoot, role: &str) -> Self {
        let space = Namespace::new(role);
        space.ip("link add veth-a type veth peer name veth-b");
        space.ip("link set veth-a up");
        space.ip("link set veth-b up");
        space.ip("address add 10.9.0.1/24 dev veth-a");
        let config = tempfile::tempdir().unwrap();
        fs::write(
            config.path().join("daemons"),
            "zebra=yes\nbgpd=yes\nbfdd=yes\nzebra_options=\"-A 127.0.0.1\"\nbgpd_options=\"-A 127.0.0.1\"\n",
        )
        .unwrap();
        fs::write(config.path().join("frr.conf"), BEFORE).unwrap();
        fs::write(config.path().join("vtysh.conf"), "").unwrap();
        let node = Node::start(root, &space, config.path());
        // FRR counts as up with `router bgp`; the lines in it may still be missing.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !node.vtysh(&["show running-config"]).contains("neighbor 10.9.0.2") {
            assert!(Instant::now() < deadline, "{}", node.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        Self {
            node,
            _space: space,
            _config: config,
            root: root.clone(),
            vtysh: Vtysh::new(),
        }
    }

    fn running_config(&self) -> String {
        self.node.vtysh(&["show running-config"])
    }

    fn ours(&self, arguments: &[&str]) -> Output {
        self.vtysh.run(&self.node.sockets(), arguments)
    }

    fn ours_file(&self, text: &str) -> Output {
        let path = self.vtysh.file(text);
        self.ours(&["-f", path.to_str().unwrap()])
    }

    /// FRR's vtysh, with the file in its root.
    fn theirs_file(&self, text: &str) -> Output {
        let path = self.node.sockets().join("config");
        fs::write(&path, text).unwrap();
        let sockets = self.node.sockets();
        let mut command = self.root.command(&[(&sockets, "/run/frr")], "vtysh");
        command.args(["-f", "/run/frr/config"]).output().unwrap()
    }
}

fn both(suite: Suite, test: impl FnOnce(&Lab, &Lab)) {
    let Some(root) = FrrRoot::get(suite) else { return };
    let (ours, theirs) = (Lab::new(&root, "ours"), Lab::new(&root, "theirs"));
    assert_eq!(ours.running_config(), theirs.running_config());
    test(&ours, &theirs);
}

fn describe(output: &Output) -> String {
    format!(
        "{}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// From the agent's LEAK_VRF_TEMPLATE.
const LEAK: &str = "
router bgp 64999
  address-family ipv4 unicast
    import vrf bgp-vrf
  exit-address-family

router bgp 64999 vrf bgp-vrf
  bgp router-id 10.9.0.1
  address-family ipv4 unicast

    redistribute connected

  exit-address-family

";

/// Calls of the agent's module `frr` that run vtysh on a file, in their usual order. Some are repeated, like by the reconciliation.
const CALLS: [&str; 13] = [
    "frr.vrf_leak('bgp-vrf', '64999', '10.9.0.1')",
    "frr.vrf_leak('bgp-vrf', '64999', '10.9.0.1')",
    "(frr.set_default_redistribute(['connected', 'kernel']), frr.vrf_leak('bgp-vrf', '64999', '10.9.0.1'))",
    // ovn_evpn_driver, without evpn_local_ip: a route distinguisher that FRR rejects.
    "frr.vrf_reconfigure({'vni': 4, 'bgp_as': '64999'}, 'add-vrf')",
    "frr.vrf_reconfigure({'vni': 4, 'bgp_as': '64999'}, 'del-vrf')",
    // EvpnBridge, with all external IDs that a network can have.
    "frr.vrf_reconfigure(dict(vni=5, vrf_name='vrf-5', local_ip='10.9.0.1', redistribute=['connected', 'kernel']), 'add-vrf')",
    "frr.vrf_reconfigure(dict(vni=6, vrf_name='vrf-6', local_ip='10.9.0.1', route_distinguishers=['64999:6'], \
     route_targets=['64999:6'], export_targets=['64999:61'], import_targets=['64999:62', '64999:63']), 'add-vrf')",
    "frr.vrf_reconfigure(dict(vni=5, vrf_name='vrf-5', local_ip='10.9.0.1', redistribute=['connected', 'kernel']), 'add-vrf')",
    "frr.nd_reconfigure('veth-b', 'fd53:d91e:400:7f17::/64', {'dns_server': '{fd00::53, fd00::54}'})",
    "frr.nd_reconfigure('veth-b', 'fd53:d91e:401::/64', {'dhcpv6_stateless': 'true'})",
    "frr.vrf_reconfigure({'vni': 6, 'vrf_name': 'vrf-6'}, 'del-vrf')",
    "frr.vrf_reconfigure({'vni': 6, 'vrf_name': 'vrf-6'}, 'del-vrf')",
    "frr.vrf_reconfigure(dict(vni=6, vrf_name='vrf-6', local_ip='10.9.0.1', route_targets=['64999:6']), 'add-vrf')",
];

fn the_agents_templates_have_the_same_effect(suite: Suite) {
    let Some(venv) = Venv::get() else { return };
    both(suite, |ours, theirs| {
        for (call, text) in CALLS.iter().zip(venv.files(&CALLS)) {
            let (our, their) = (ours.ours_file(&text), theirs.theirs_file(&text));
            assert_eq!(
                (our.status.success(), ours.running_config()),
                (their.status.success(), theirs.running_config()),
                "{call}: {text}ours {}\ntheirs {}",
                describe(&our),
                describe(&their)
            );
        }
        let config = ours.running_config();
        for line in [
            "vni 5",
            "import vrf bgp-vrf",
            "rd 10.9.0.1:5",
            "redistribute kernel",
            "route-target import 64999:6",
            "ipv6 nd rdnss fd00::54",
            "ipv6 nd prefix fd53:d91e:401::/64",
        ] {
            assert!(config.contains(line), "{line}: {config}");
        }
        assert!(!config.contains("64999:61"), "{config}");
    });
}

#[test]
fn the_agents_templates_have_the_same_effect_8_4() {
    the_agents_templates_have_the_same_effect(Suite::Bookworm);
}

#[test]
fn the_agents_templates_have_the_same_effect_10_3() {
    the_agents_templates_have_the_same_effect(Suite::Trixie);
}

/// The same output and the same success for commands. Values that change with time are left out.
fn commands_have_the_same_output(suite: Suite) {
    let Some(root) = FrrRoot::get(suite) else { return };
    let lab = Lab::new(&root, "commands");
    for lines in [
        &["show ip bgp summary json"][..],
        &["show bgp vrf none summary json"],
        &["show ip bgp neighbors 9.9.9.9 json"],
        &["show bgp vrf none ipv4 unicast"],
        &["show zebra", "show ip bgp summary json"],
        &["show running-config bgpd nonsense"],
        &["show nonsense"],
        &["show"],
        &[""],
        &["enable"],
        &["do show ip bgp vrf none summary json"],
        &["configure terminal", "nonsense", "router bgp 65000"],
        &["configure terminal", "router bgp 64999", "neighbor 10.9.0.9 activate"],
        &["configure terminal", "router bgp 65000"],
        &["configure terminal", "no interface veth-a"],
        &["configure terminal", "no router bgp 1 vrf none"],
        &["configure terminal", "no vrf none"],
        &[
            "conf t",
            "router bgp 64999",
            "neighbor 10.9.0.2 timers 3 10",
            "end",
            "show ip bgp vrf none json",
        ],
        &["show ip bgp summary json", "show nonsense", "show zebra"],
    ] {
        let arguments: Vec<&str> = lines.iter().flat_map(|line| ["-c", line]).collect();
        let theirs = || lab.root.vtysh(&lab.node.sockets(), lines);
        let seen = |output: &Output| {
            let text = without_clocks(&String::from_utf8_lossy(&output.stdout));
            (output.status.code(), text)
        };
        // FRR's state changes meanwhile. If its own vtysh prints the same before and after, this one must print it too.
        let still = (0..20).find_map(|_| {
            let (before, our, after) = (theirs(), lab.ours(&arguments), theirs());
            (seen(&before) == seen(&after)).then_some((our, after))
        });
        let (our, their) = still.unwrap_or_else(|| panic!("{lines:?}: FRR's own output never was the same twice"));
        assert_eq!(seen(&our), seen(&their), "{lines:?}: {}", describe(&our));
    }
    // The field that the agent uses.
    let summary: serde_json::Value =
        serde_json::from_slice(&lab.ours(&["-c", "show ip bgp summary json"]).stdout).unwrap();
    assert_eq!(summary["ipv4Unicast"]["routerId"], "10.9.0.1");
    // Every daemon answers; the text is printed once.
    let version = String::from_utf8(lab.ours(&["-c", "show version"]).stdout).unwrap();
    assert_eq!(
        version.matches(&format!("FRRouting {}", suite.frr_version())).count(),
        1,
        "{version}"
    );
    // Commands that write files are rejected, and no file is written.
    for line in ["write memory", "copy running-config startup-config"] {
        assert_eq!(lab.ours(&["-c", line]).status.code(), Some(1));
    }
    assert_eq!(fs::read_to_string(lab._config.path().join("frr.conf")).unwrap(), BEFORE);
}

fn without_clocks(text: &str) -> String {
    let clock = |line: &&str| {
        let names = [
            "Memory",
            "Uptime",
            // FRR computes these from the elapsed time, with rounding.
            "started at time",
            "sweep happened at",
            "Epoch",
            "Msec",
            "msgRcvd",
            "msgSent",
            "connections",
            "tableVersion",
            "state\"",
        ];
        !names.iter().any(|name| line.contains(name)) && !line.contains("memory") && !line.contains("up ")
    };
    text.lines().filter(clock).collect::<Vec<_>>().join("\n")
}

#[test]
fn commands_have_the_same_output_8_4() {
    commands_have_the_same_output(Suite::Bookworm);
}

#[test]
fn commands_have_the_same_output_10_3() {
    commands_have_the_same_output(Suite::Trixie);
}

/// A mistake in a file is reported, the status is not 0, and the other lines are executed, like with FRR's vtysh.
fn mistakes_are_reported_and_skipped(suite: Suite) {
    both(suite, |ours, theirs| {
        for text in [
            "router bgp 64999\n nonsense here\n bgp router-id 10.9.0.7\n",
            "router bgp 64999\n bgp router-id 1.1.1\n neighbor 10.9.0.3 remote-as 5\n",
            "router bgp 64999\n neighbor 10.9.0.9 activate\n bgp router-id 10.9.0.8\nend\n",
            "router bgp 64999\n neigh\n",
            "router bgp 65111\n bgp router-id 10.9.0.9\n",
            "no router bgp 64999 vrf none\n",
            "no vrf none\nno interface none\n",
            "! a comment\n# another\n\nrouter bgp 64999\n address-family ipv4 unicast\n  network 10.7.0.0/24\nip route 10.7.0.0/24 Null0\n",
            "end\nrouter bgp 64999\n bgp router-id 10.9.0.6\n",
        ] {
            let (our, their) = (ours.ours_file(text), theirs.theirs_file(text));
            assert_eq!(
                our.status.success(),
                their.status.success(),
                "{text}{}\n{}",
                describe(&our),
                describe(&their)
            );
            assert_eq!(
                ours.running_config(),
                theirs.running_config(),
                "{text}{}\n{}",
                describe(&our),
                describe(&their)
            );
            assert_eq!(our.status.success(), our.stderr.is_empty(), "{text}{}", describe(&our));
        }
        let unknown = ours.ours_file("router bgp 64999\n nonsense here\n");
        assert_eq!(unknown.status.code(), Some(2));
        assert_eq!(
            String::from_utf8_lossy(&unknown.stderr),
            "line 2: % Unknown command: nonsense here\n"
        );
        // FRR's vtysh returns 0 here, although its transaction was rejected at the end.
        assert!(
            ours.ours_file("interface veth-a\n description a\nexit\n")
                .status
                .success()
        );
        let active = ours.ours_file("no interface veth-a\n");
        assert_eq!(active.status.code(), Some(13), "{}", describe(&active));
        let message = String::from_utf8_lossy(&active.stderr).into_owned();
        assert!(message.contains("only inactive interfaces can be deleted"), "{message}");
    });
}

#[test]
fn mistakes_in_files_are_reported_8_4() {
    mistakes_are_reported_and_skipped(Suite::Bookworm);
}

#[test]
fn mistakes_in_files_are_reported_10_3() {
    mistakes_are_reported_and_skipped(Suite::Trixie);
}

/// mgmtd permits one configuring client at a time. The second one waits and succeeds, and needs little memory meanwhile.
#[test]
fn vtysh_waits_for_another_configuring_client() {
    let Some(root) = FrrRoot::get(Suite::Trixie) else {
        return;
    };
    let lab = Lab::new(&root, "lock");
    let sockets = lab.node.sockets();
    let mut other = obgp_runtime::vty::Connection::open(&sockets, "mgmtd", Duration::from_secs(5)).unwrap();
    other.execute("enable").unwrap();
    assert_eq!(other.execute("configure terminal file-lock").unwrap().status, 0);
    let begin = Instant::now();
    let text = format!("{}vrf red\n vni 7\nexit-vrf\n", LEAK);
    let mut command = Command::new(lab.vtysh.directory.path().join("vtysh"));
    command
        .arg("--vty_socket")
        .arg(&sockets)
        .arg("-f")
        .arg(lab.vtysh.file(&text));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let resident: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("resident at most {resident} KiB");
    assert!(resident < 10 * 1024, "{resident} KiB");
    assert_eq!(other.execute("end").unwrap().status, 0);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", describe(&output));
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert!(lab.running_config().contains("vni 7"));
}

/// A missing daemon is an error only for lines that need it.
#[test]
fn a_missing_daemon_is_an_error() {
    let Some(root) = FrrRoot::get(Suite::Bookworm) else {
        return;
    };
    let lab = Lab::new(&root, "missing");
    fs::remove_file(lab.node.sockets().join("bgpd.vty")).unwrap();
    let leaked = lab.ours_file(LEAK);
    assert_eq!(leaked.status.code(), Some(13), "{}", describe(&leaked));
    assert!(String::from_utf8_lossy(&leaked.stderr).starts_with("line 2: % Unknown command: router bgp 64999\n"));
    assert!(lab.ours(&["-c", "show zebra"]).status.success());
    assert_eq!(lab.ours(&["-c", "show ip bgp summary json"]).status.code(), Some(1));
}

#[test]
fn without_frr_vtysh_fails_with_a_message() {
    let vtysh = Vtysh::new();
    let nowhere = vtysh.directory.path().join("none");
    let output = vtysh.run(&nowhere, &["-c", "show version"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("failed to connect to any daemons"),
        "{}",
        describe(&output)
    );
    for arguments in [&[][..], &["-c", "a", "-f", "b"], &["-d", "bgpd"]] {
        let output = vtysh.run(&nowhere, arguments);
        assert_eq!(output.status.code(), Some(2), "{}", describe(&output));
    }
    let file = vtysh.directory.path().join("missing");
    let output = vtysh.run(&nowhere, &["-f", file.to_str().unwrap()]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("cannot read "),
        "{}",
        describe(&output)
    );
}
