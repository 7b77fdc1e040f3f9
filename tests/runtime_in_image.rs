//! obgp-runtime in the image that `scripts/quickstart` built, as a pod has it: read-only root, the image's user, no capability, no
//! network but the one the test makes. On every platform, so under emulation too.

#[path = "../runtime/tests/support/namespace.rs"]
#[allow(dead_code)] // Half of it is for other tests.
mod namespace;
mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use namespace::{Namespace, succeed};
use support::quickstart;

const RUNTIME: &str = "/usr/local/bin/obgp-runtime";
const USER: u32 = 42494;

/// A running container with br-ex, and a leaf switch at the other end of the cable.
struct Pod {
    container: String,
    server: Namespace,
    _leaf: Namespace,
    directory: tempfile::TempDir,
}

impl Pod {
    fn start(image: &str, platform: &str, capabilities: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("docker");
        command.args(["run", "--detach", "--rm", "--platform", platform]);
        command.args(["--network", "none", "--read-only", "--cap-drop", "ALL"]);
        command.args(capabilities.iter().flat_map(|name| ["--cap-add", name]));
        command.args(["--security-opt", "no-new-privileges"]);
        command.args(["--user", &USER.to_string(), "--tmpfs", "/tmp"]);
        command.args(["--volume", "/proc/sys/net:/run/obgp/sysctl"]);
        for (name, inside) in [
            ("shared", "/run/ovn-bgp-agent"),
            ("frr", "/etc/frr"),
            ("mapping", "/etc/ovn-bgp-agent/asn-mapping"),
        ] {
            let path = directory.path().join(name);
            std::fs::create_dir(&path).unwrap();
            // As an emptyDir is.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
            command.arg("--volume").arg(format!("{}:{inside}", path.display()));
        }
        std::fs::write(
            directory.path().join("mapping/mapping.json"),
            r#"{"10.0.192.0/24": "65001"}"#,
        )
        .unwrap();
        let configuration = directory.path().join("ovn-bgp-agent.conf");
        std::fs::write(&configuration, "[DEFAULT]\n").unwrap();
        command.arg("--volume").arg(format!(
            "{}:/etc/ovn-bgp-agent/ovn-bgp-agent.conf:ro",
            configuration.display()
        ));
        command.args(["--entrypoint", "sleep", image, "infinity"]);
        let container = succeed(&mut command).trim().to_string();
        let inspect = ["inspect", "--format", "{{.State.Pid}}", &container];
        let process = succeed(Command::new("docker").args(inspect)).trim().parse().unwrap();
        let (server, leaf) = (Namespace::of(process, "pod"), Namespace::new("leaf"));
        server.link("up0", &leaf, "down0");
        server.bridge("br-ex", "up0", "10.0.192.111/24");
        leaf.ip("address add 10.0.192.1/24 dev down0");
        Self {
            container,
            server,
            _leaf: leaf,
            directory,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn runtime(&self, arguments: &[&str]) -> Output {
        let exec = ["exec", "--env", "NODE_NAME=worker1", &self.container, RUNTIME];
        Command::new("docker").args(exec).args(arguments).output().unwrap()
    }

    /// `frr-init`, which must succeed.
    fn init(&self, arguments: &[&str]) -> String {
        let output = self.runtime(&[&["frr-init"], arguments].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{stdout}{stderr}");
        // Some kernels have no VRFs, which is a note and its help.
        let lines: Vec<&str> = stderr.lines().collect();
        let only_vrf = matches!(lines[..], [note, help] if note.contains("module vrf") && help.starts_with("help: "));
        assert!(lines.is_empty() || only_vrf, "{stderr}{stdout}");
        stdout
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["kill", &self.container]).output();
    }
}

/// Every image of the report with its platform; nothing, with the reason printed, where the test cannot run.
fn images() -> Vec<(String, String)> {
    if let Some(why) = namespace::namespaces_missing() {
        assert!(std::env::var_os("CI").is_none(), "{why}");
        eprintln!("SKIPPED: {why}");
        return Vec::new();
    }
    let Some(report) = quickstart::report() else {
        return Vec::new();
    };
    let platforms = report["images"][0]["platforms"].as_array().unwrap().iter();
    platforms
        .map(|built| ["engine_image", "platform"].map(|key| built[key].as_str().unwrap().to_string()))
        .map(|[image, platform]| (image, platform))
        .collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn frr_init_does_its_job_with_a_default_route() {
    for (image, platform) in images() {
        let pod = Pod::start(&image, &platform, &[]);
        pod.server.ip("route add default via 10.0.192.1 dev br-ex");
        let report = pod.init(&[]);
        let expected = "\
=== BGP Configuration ===
Node:           worker1
Interface:      br-ex (10.0.192.111/24)
Subnet:         10.0.192.0/24

Local (Server):
  IPv4:         10.0.192.111
  ASN:          4200049263 (auto-generated)
  Router ID:    10.0.192.111

Peer (Leaf Switch):
  IPv4:         10.0.192.1
  ASN:          65001 (from ConfigMap)
  Discovery:    route
  Reachable:    yes

==================================
";
        assert_eq!(report, expected, "{platform}");
        let environment = pod.path("shared/bgp-config.env");
        assert_eq!(std::fs::metadata(&environment).unwrap().uid(), USER, "{platform}");
        let environment = read(&environment);
        for line in [
            "BGP_AS='4200049263'",
            "BGP_PEER_IP='10.0.192.1'",
            "BGP_PEER_AS='65001'",
            "BGP_PEER_DISCOVERY='route'",
        ] {
            assert!(
                environment.lines().any(|other| other == line),
                "{platform}: {line}:\n{environment}"
            );
        }
        let frr_conf = read(&pod.path("frr/frr.conf"));
        for line in [
            "router bgp 4200049263",
            " neighbor 10.0.192.1 remote-as 65001",
            " neighbor 10.0.192.1 timers 3 10",
        ] {
            assert!(
                frr_conf.lines().any(|other| other == line),
                "{platform}: {line}:\n{frr_conf}"
            );
        }
        assert!(read(&pod.path("frr/daemons")).contains("bgpd=yes"), "{platform}");
        assert!(read(&pod.path("frr/vtysh.conf")).contains("service integrated-vtysh-config"));
    }
}

/// Without a route the kernel's ARP has to find the leaf switch: a datagram is enough for that, and no capability. The chart's
/// capabilities are those of the container, of which its user has none.
#[test]
fn frr_init_finds_a_neighbour_without_a_route() {
    for (image, platform) in images() {
        for capabilities in [&[] as &[&str], &["NET_ADMIN", "NET_RAW"]] {
            let pod = Pod::start(&image, &platform, capabilities);
            let report: serde_json::Value = serde_json::from_str(&pod.init(&["--json"])).unwrap();
            let peer = &report["peers"][0];
            assert_eq!(
                (&peer["address"], &peer["discovery"], &peer["reachable"]),
                (&"10.0.192.1".into(), &"detection:first".into(), &true.into()),
                "{platform}, {capabilities:?}: {report}"
            );
        }
    }
}

/// What cannot be done is said, and nothing is left that looks like a result.
#[test]
fn frr_init_that_fails_leaves_no_environment() {
    for (image, platform) in images() {
        let pod = Pod::start(&image, &platform, &[]);
        std::fs::write(pod.path("mapping/mapping.json"), r#"{"10.9.0.0/24": 65009}"#).unwrap();
        let output = pod.runtime(&["frr-init", "--peer-ip", "first"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{platform}: {stderr}");
        assert!(stderr.contains("No Leaf ASN mapping found"), "{platform}: {stderr}");
        assert!(!pod.path("shared/bgp-config.env").exists(), "{platform}");

        let unknown = pod.runtime(&["frr-init", "--interface", "br-nowhere"]);
        let stderr = String::from_utf8_lossy(&unknown.stderr);
        assert!(
            stderr.contains("br-nowhere") && stderr.contains("br-ex"),
            "{platform}: {stderr}"
        );
    }
}

/// The commands `docker run` of the image's README.rst, with this image, no network, and temporary directories for the
/// node's.
struct Documented {
    directory: tempfile::TempDir,
}

impl Documented {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let of_node = |path: &str| directory.path().join(path);
        for path in [
            "etc/ovn-bgp-agent",
            "etc/frr",
            "run/ovn-bgp-agent",
            "run/openvswitch",
            "run/frr",
        ] {
            std::fs::create_dir_all(of_node(path)).unwrap();
            std::fs::set_permissions(of_node(path), std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        let conf = "[DEFAULT]\novsdb_connection = unix:/run/openvswitch/db.sock\n";
        std::fs::write(of_node("etc/ovn-bgp-agent/ovn-bgp-agent.conf"), conf).unwrap();
        std::fs::write(of_node("sudoers"), "Defaults env_reset\n").unwrap();
        std::fs::set_permissions(of_node("sudoers"), std::fs::Permissions::from_mode(0o440)).unwrap();
        Self { directory }
    }

    /// A volume with a sudoers file that grants nothing.
    fn no_grant(&self) -> String {
        format!("{}:/etc/sudoers:ro", self.directory.path().join("sudoers").display())
    }

    /// The words of the documented command that starts `subcommand` of obgp-runtime.
    fn words(&self, subcommand: &str) -> Vec<String> {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/images/ovn-bgp-agent/README.rst");
        let readme = std::fs::read_to_string(readme).unwrap().replace("\\\n", " ");
        let line = readme
            .lines()
            .filter_map(|line| line.trim().strip_prefix("$ docker run "))
            .find(|line| line.contains("obgp-runtime") && line.contains(&format!(" {subcommand}")))
            .unwrap_or_else(|| panic!("README.rst has no command for {subcommand}"));
        line.split_whitespace().map(str::to_string).collect()
    }

    /// Runs that command without the capability or volume `without`, and with the further options `change`. Returns what it
    /// printed to stderr.
    fn run(&self, subcommand: &str, image: &str, platform: &str, without: &str, change: &[&str]) -> String {
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--platform", platform]);
        let words = self.words(subcommand);
        let mut words = words.iter().map(String::as_str).peekable();
        while let Some(word) = words.next() {
            let value = words.peek().copied().unwrap_or_default();
            match word {
                "--detach" | "--rm" => {}
                "--name" => drop(words.next()),
                "--network" => {
                    words.next();
                    command.args(["--network", "none"]);
                }
                "--cap-add" | "--volume" if !without.is_empty() && value.contains(without) => drop(words.next()),
                "--volume" if !value.starts_with("/proc/") => {
                    words.next();
                    let volume = format!("{}{value}", self.directory.path().display());
                    command.args(["--volume", &volume]);
                }
                "--entrypoint" => drop(command.args(change).arg(word)),
                _ if word.contains("/ovn-bgp-agent:7.0.0") => drop(command.arg(image)),
                _ => drop(command.arg(word)),
            }
        }
        if subcommand == "agent" {
            command.args(["--timeout", "1"]);
        }
        String::from_utf8_lossy(&command.output().unwrap().stderr).into_owned()
    }
}

#[test]
fn the_documented_frr_init_looks_for_its_interface() {
    let documented = Documented::new();
    for (image, platform) in images() {
        let printed = documented.run("frr-init", &image, &platform, "", &[]);
        assert!(printed.contains("eth0"), "{platform}: {printed}");
    }
}

/// The documented container, one thing wrong at a time: with the engine's mounts, and the real sudo.
#[test]
fn agent_names_what_keeps_it_from_working() {
    let documented = Documented::new();
    let no_grant = documented.no_grant();
    for (image, platform) in images() {
        let agent = |without: &str, change: &[&str]| documented.run("agent", &image, &platform, without, change);
        let sound = agent("", &[]);
        if !sound.contains("effective uid is not 0") {
            assert!(
                sound.contains("frr-init has not finished") && !sound.contains("cannot work here"),
                "{platform}: {sound}"
            );
        }
        for (without, change, cause) in [
            (
                "/run/obgp/sysctl",
                &[] as &[&str],
                "/proc/sys/net is read-only; /run/obgp/sysctl is not there",
            ),
            ("NET_ADMIN", &[], "does not have the capability NET_ADMIN"),
            ("", &["--security-opt", "no-new-privileges"], "no_new_privs is set"),
            ("", &["--volume", &no_grant], "sudoers has no grant for it (uid 42494)"),
            (
                "",
                &["--user", "4711"],
                "you do not exist in the passwd database (uid 4711)",
            ),
            (
                "",
                &["--tmpfs", "/usr/local/sbin"],
                "/usr/local/sbin/sysctl, which is to be obgp-runtime",
            ),
        ] {
            let printed = agent(without, change);
            // This machine's emulation may not honour setuid.
            if !printed.contains("effective uid is not 0") {
                assert!(
                    printed.contains("the agent cannot work here: ") && printed.contains(cause),
                    "{platform}: {change:?}: {printed}"
                );
            }
        }
    }
}
