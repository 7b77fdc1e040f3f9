//! `health` with real FRR, the real kernel, and the agent from PyPI on a real OVSDB server.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

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

/// The agent from PyPI, an OVSDB server and FRR with a leaf switch: health follows the start and the end of each.
#[test]
fn health_sees_the_real_agent_ovsdb_and_bgp() {
    let (Some(root), Some(venv)) = (FrrRoot::get(Suite::Trixie), Venv::get()) else {
        return;
    };
    let leaf = Namespace::new("leaf");
    let server = Server::new(&root, &leaf);
    leaf.ip("address add 10.0.192.1/24 dev eth1");
    let mut ovsdb = Ovsdb::start(&server.space);
    let pod = Pod::new(server.node.sockets());
    pod.env_file();
    let conf = format!(
        // The only method without requirements that the kernel of the test machine may lack.
        "[DEFAULT]\ndriver = nb_ovn_bgp_driver\nexposing_method = vrf\novsdb_connection = unix:{}\n[ovn]\n\
         ovn_nb_connection = tcp:127.0.0.1:{}\n",
        ovsdb.socket().display(),
        Ovsdb::PORT
    );
    fs::write(pod.path("agent.conf"), conf).unwrap();
    let program = venv.agent(pod.directory.path());
    let log = fs::File::create(pod.path("log")).unwrap();
    let mut child = pod
        .agent(server.space.command(runtime()), &program, "30")
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let health = |check: &str| {
        pod.with_paths(server.space.command(runtime()), &["health", check, "--json"])
            .output()
            .unwrap()
    };
    let json = |output: &Output| serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
    let becomes = |check: &str, ok: bool, reason: &str| {
        let mut last = String::new();
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let output = health(check);
            let report = json(&output);
            assert_eq!(output.status.success(), report["ok"] == true);
            // The mark equals the result of the last readiness check.
            assert!(
                check != "ready" || pod.mark().exists() == output.status.success(),
                "{report}"
            );
            if report["ok"] == ok && report["reason"].as_str().unwrap().contains(reason) {
                return report;
            }
            if Instant::now() > deadline {
                panic!("{check} does not become {ok} for {reason:?} but {report}\n{last}");
            }
            last = fs::read_to_string(pod.path("log")).unwrap_or_default();
            std::thread::sleep(Duration::from_millis(200));
        }
    };

    let report = becomes("startup", true, "its OVSDB connections are up");
    let agent = report["pid"].as_u64().unwrap();
    becomes("live", true, "has not written");
    assert_eq!(
        report["ovsdb"][1],
        serde_json::json!({"option": "ovn_nb_connection", "connected": true})
    );
    // The start leads to a first reconciliation.
    wait_for("the agent works", || {
        fs::read_to_string(pod.path("log"))
            .unwrap()
            .contains("Running reconciliation loop")
            .then_some(())
    });
    let report = becomes("ready", false, "no BGP session is established: 10.0.192.1 is ");
    assert_eq!(report["bgp"][0]["role"], "leaf");

    let config = frr_config(
        "router bgp 65001\n bgp router-id 10.0.192.1\n no bgp ebgp-requires-policy\n neighbor 10.0.192.111 remote-as 4200049263\nexit\n",
    );
    let leaf_node = Node::start(&root, &leaf, config.path());
    becomes(
        "ready",
        false,
        "the agent has not begun its first sync: it has not written",
    );
    // The agent from PyPI does not write the state. The tests of the image cover the patch that does.
    let state = |age: f64, error: Option<&str>| {
        let time = monotonic() - age;
        let one = serde_json::json!({"began": time - 1.0, "ended": time, "succeeded": time - 2.0, "error": error});
        let state = serde_json::json!({"pid": agent, "time": time, "reconciliations": {"sync": one, "frr_sync": one}});
        fs::write(pod.shared().join("state.json"), state.to_string()).unwrap();
    };
    state(1.0, None);
    becomes(
        "ready",
        true,
        "the BGP session with 10.0.192.1 is established, its last sync succeeded 3 s ago",
    );
    state(1.0, Some("KeyError: 'br-ex'"));
    becomes("ready", false, "the last sync failed: KeyError: 'br-ex'");
    state(100.0, None);
    becomes("ready", false, "s ago, more than the limit of 60 s");
    becomes("live", true, "its last sign of life is 100 s old");
    state(301.0, None);
    becomes(
        "live",
        false,
        "the agent hangs: its last sign of life is 301 s old (limit: 300 s)",
    );
    state(1.0, None);
    fs::write(pod.shared().join("drained"), "").unwrap();
    becomes("ready", false, "the node is drained");
    fs::remove_file(pod.shared().join("drained")).unwrap();
    becomes("ready", true, "");
    let begin = Instant::now();
    assert!(health("ready").status.success());
    println!("health ready takes {:?}", begin.elapsed());

    drop(leaf_node);
    becomes("ready", false, "no BGP session is established");
    // The leaf switch does not have the AS in the node's frr.conf, or the node not the AS that the leaf switch expects.
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
        let config = frr_config(&format!(
            "router bgp {leaf_asn}\n bgp router-id 10.0.192.1\n neighbor 10.0.192.111 remote-as {server_asn}\nexit\n"
        ));
        let _node = Node::start(&root, &leaf, config.path());
        becomes("ready", false, reason);
    }
    assert!(health("startup").status.success());
    ovsdb.stop();
    let report = becomes("startup", false, "the agent is not connected to ovsdb_connection");
    assert!(health("live").status.success(), "{report}");
    ovsdb.restart(&server.space);
    becomes("startup", true, "");
    let begin = Instant::now();
    terminate(&mut child);
    println!("the agent ends after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    becomes("live", false, "is gone");
}
