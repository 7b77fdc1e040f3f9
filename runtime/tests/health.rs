//! `health` with real FRR, the real kernel, and the agent from PyPI on a real OVSDB server.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::agent::{Ovsdb, Venv, executable};
use support::frr::{FrrRoot, Namespace, Node, Suite};
use support::pod::{Pod, Server, frr_config, runtime, terminate, text, wait_for};

fn monotonic() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// An agent that was started directly, with and without a stale record.
#[test]
fn an_agent_that_was_started_directly_is_reported() {
    let pod = Pod::new(PathBuf::from("/nonexistent"));
    let program = executable(
        &pod.path("ovn-bgp-agent"),
        "#!/usr/bin/env -S python3 -S\nimport time; time.sleep(100)\n",
    );
    let mut agent = Command::new(&program).spawn().unwrap();
    let health = |check| {
        let output = pod
            .with_paths(Command::new(runtime()), &["health", check])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        text(&output)
    };
    for check in ["live", "ready"] {
        let message = health(check);
        assert!(
            message.contains("health needs an agent started by obgp-runtime agent: "),
            "{message}"
        );
    }
    fs::write(pod.shared().join("agent.pid"), format!("{} 1\n", agent.id())).unwrap();
    let name = wait_for("the process has the agent's name", || {
        Some(health("live")).filter(|message| !message.contains("another process"))
    });
    let expected = format!(
        "health needs an agent started by obgp-runtime agent, and process {} was not\n",
        agent.id()
    );
    assert_eq!(name, format!("not live: {expected}"));
    agent.kill().unwrap();
    agent.wait().unwrap();
}

/// The agent from PyPI on a node with an OVSDB server and FRR, and a leaf switch.
struct Lab {
    // Fields are dropped in this order.
    agent: Child,
    pod: Pod,
    ovsdb: Ovsdb,
    server: Server,
    leaf: Namespace,
    root: FrrRoot,
}

impl Lab {
    fn start() -> Option<Self> {
        let (root, venv) = (FrrRoot::get(Suite::Trixie)?, Venv::get()?);
        let leaf = Namespace::new("leaf");
        let server = Server::new(&root, &leaf);
        leaf.ip("address add 10.0.192.1/24 dev eth1");
        let ovsdb = Ovsdb::start(&server.space);
        let pod = Pod::new(server.node.sockets());
        pod.env_file();
        let conf = format!(
            // By name: the agent itself cannot connect to a name with an IPv4 address.
            // The only method without requirements that the kernel of the test machine may lack.
            "[DEFAULT]\ndriver = nb_ovn_bgp_driver\nexposing_method = vrf\novsdb_connection = unix:{}\n[ovn]\n\
             ovn_nb_connection = tcp:localhost:{}\n",
            ovsdb.socket().display(),
            Ovsdb::PORT
        );
        fs::write(pod.path("agent.conf"), conf).unwrap();
        let program = venv.agent(pod.directory.path());
        let log = fs::File::create(pod.path("log")).unwrap();
        let mut agent = pod.agent(server.space.command(runtime()), &program, "30");
        let agent = agent.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Some(Self {
            agent,
            pod,
            ovsdb,
            server,
            leaf,
            root,
        })
    }

    fn health(&self, check: &str) -> Output {
        let command = self.server.space.command(runtime());
        self.pod
            .with_paths(command, &["health", check, "--json"])
            .output()
            .unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.pod.path("log")).unwrap_or_default()
    }

    /// Repeats the check until it has this result and a reason that contains `reason`.
    fn becomes(&self, check: &str, ok: bool, reason: &str) -> Value {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let output = self.health(check);
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(output.status.success(), report["ok"] == true);
            // The mark equals the result of the last readiness check.
            assert!(
                check != "ready" || self.pod.mark().exists() == output.status.success(),
                "{report}"
            );
            if report["ok"] == ok && report["reason"].as_str().unwrap().contains(reason) {
                return report;
            }
            assert!(
                Instant::now() < deadline,
                "{check} does not become {ok} for {reason:?} but {report}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// FRR on the leaf switch.
    fn leaf(&self, asn: &str, server_asn: &str) -> Node {
        let config = frr_config(&format!(
            "router bgp {asn}\n bgp router-id 10.0.192.1\n no bgp ebgp-requires-policy\n \
             neighbor 10.0.192.111 remote-as {server_asn}\nexit\n"
        ));
        Node::start(&self.root, &self.leaf, config.path())
    }

    /// Writes the state file, with times `age` seconds ago. The agent from PyPI does not write it; the tests of the image cover the
    /// patch that does.
    fn write_state(&self, agent: u64, age: f64, error: Option<&str>) {
        let time = monotonic() - age;
        let one = serde_json::json!({"began": time - 1.0, "ended": time, "succeeded": time - 2.0, "error": error});
        let state = serde_json::json!({"pid": agent, "time": time, "reconciliations": {"sync": one, "frr_sync": one}});
        fs::write(self.pod.shared().join("state.json"), state.to_string()).unwrap();
    }
}

/// Health follows the start and the end of the agent, its OVSDB server and the leaf switch.
#[test]
fn health_sees_the_real_agent_ovsdb_and_bgp() {
    let Some(mut lab) = Lab::start() else { return };
    let report = lab.becomes("startup", true, "its OVSDB connections are up");
    let agent = report["pid"].as_u64().unwrap();
    lab.becomes("live", true, "has not written");
    assert_eq!(
        report["ovsdb"][1],
        serde_json::json!({"option": "ovn_nb_connection", "connected": true})
    );
    // The start leads to a first reconciliation.
    wait_for("the agent works", || {
        lab.log().contains("Running reconciliation loop").then_some(())
    });
    let report = lab.becomes("ready", false, "no BGP session is established: 10.0.192.1 is ");
    assert_eq!(report["bgp"][0]["role"], "leaf");

    let leaf = lab.leaf("65001", "4200049263");
    lab.becomes(
        "ready",
        false,
        "the agent has not begun its first sync: it has not written",
    );
    sees_the_state(&lab, agent);
    drop(leaf);
    sees_wrong_asns(&lab);

    assert!(lab.health("startup").status.success());
    lab.ovsdb.stop();
    let report = lab.becomes("startup", false, "the agent is not connected to ovsdb_connection");
    assert!(lab.health("live").status.success(), "{report}");
    lab.ovsdb.restart(&lab.server.space);
    lab.becomes("startup", true, "");
    let begin = Instant::now();
    terminate(&mut lab.agent);
    println!("the agent ends after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    lab.becomes("live", false, "is gone");
}

/// Errors, age limits and a drain, with an established session.
fn sees_the_state(lab: &Lab, agent: u64) {
    lab.write_state(agent, 1.0, None);
    lab.becomes(
        "ready",
        true,
        "the BGP session with 10.0.192.1 is established, its last sync succeeded 3 s ago",
    );
    lab.write_state(agent, 1.0, Some("KeyError: 'br-ex'"));
    lab.becomes("ready", false, "the last sync failed: KeyError: 'br-ex'");
    lab.write_state(agent, 100.0, None);
    lab.becomes("ready", false, "s ago, more than the limit of 60 s");
    lab.becomes("live", true, "its last sign of life is 100 s old");
    lab.write_state(agent, 301.0, None);
    lab.becomes(
        "live",
        false,
        "the agent hangs: its last sign of life is 301 s old (limit: 300 s)",
    );
    lab.write_state(agent, 1.0, None);
    fs::write(lab.pod.shared().join("drained"), "").unwrap();
    lab.becomes("ready", false, "the node is drained");
    fs::remove_file(lab.pod.shared().join("drained")).unwrap();
    lab.becomes("ready", true, "");
    let begin = Instant::now();
    assert!(lab.health("ready").status.success());
    println!("health ready takes {:?}", begin.elapsed());
}

/// The leaf switch does not have the AS in the node's frr.conf, or the node not the AS that the leaf switch expects.
fn sees_wrong_asns(lab: &Lab) {
    lab.becomes("ready", false, "no BGP session is established");
    for (leaf_asn, server_asn, reason) in [
        (
            "65009",
            "4200049263",
            "(bad peer AS: the peer has AS 65009, configured is AS 65001)",
        ),
        (
            "4200000009",
            "4200049263",
            "(bad peer AS: the peer has AS 4200000009, configured is AS 65001)",
        ),
        (
            "65001",
            "65010",
            "(bad peer AS: the peer does not accept this server's AS 4200049263)",
        ),
    ] {
        let _leaf = lab.leaf(leaf_asn, server_asn);
        lab.becomes("ready", false, reason);
    }
}
