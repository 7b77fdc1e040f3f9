//! `agent` with real FRR and the real kernel.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::agent::executable;
use support::frr::{FrrRoot, Namespace, Suite, succeed};
use support::pod::{ENV, Pod, STANDARD, Server, runtime, terminate, text, wait_for};

/// A Python program in place of the agent: it records its arguments and its environment, and ends on SIGTERM.
fn fake_agent(pod: &Pod) -> PathBuf {
    let script = "import json, os, signal, sys, time\n\
                  signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n\
                  out = {'args': sys.argv[1:], 'pid': os.getpid(), 'parent': os.getppid(),\n       \
                  'state': os.environ.get('OVN_BGP_AGENT_STATE_FILE'),\n       \
                  'mask': len(signal.pthread_sigmask(signal.SIG_BLOCK, [])), 'fds': sorted(os.listdir('/proc/self/fd')),\n       \
                  'env': {k: v for k, v in os.environ.items() if k.startswith('OS_')}}\n\
                  path = os.environ['OBGP_TEST_OUT']\n\
                  open(path + '.new', 'w').write(json.dumps(out))\nos.rename(path + '.new', path)\ntime.sleep(100)\n";
    executable(
        &pod.path("ovn-bgp-agent"),
        &format!("#!/usr/bin/env -S python3 -S\n{script}"),
    )
}

/// A server with FRR, a pod on it and a fake agent for it.
struct Lab {
    // Fields are dropped in this order.
    program: PathBuf,
    pod: Pod,
    server: Server,
    _leaf: Namespace,
}

impl Lab {
    fn new(suite: Suite) -> Option<Self> {
        let root = FrrRoot::get(suite)?;
        let leaf = Namespace::new("leaf");
        let server = Server::new(&root, &leaf);
        let pod = Pod::new(server.node.sockets());
        let program = fake_agent(&pod);
        Some(Self {
            program,
            pod,
            server,
            _leaf: leaf,
        })
    }

    fn start(&self) -> Child {
        let command = self.server.space.command(runtime());
        let mut command = self.pod.agent(command, &self.program, "30");
        command.stderr(Stdio::piped()).spawn().unwrap()
    }

    /// What the fake agent records when it is started directly.
    fn direct(&self) -> Value {
        let out = self.pod.path("direct");
        let mut command = self.server.space.command(&self.program);
        let command = command.env("OBGP_TEST_OUT", &out).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let direct = wait_for("the program starts", || fs::read_to_string(&out).ok());
        assert_eq!(terminate(&mut child).code(), Some(7));
        serde_json::from_str(&direct).unwrap()
    }

    /// What the fake agent recorded.
    fn out(&self) -> Value {
        let out = wait_for("the agent starts", || fs::read_to_string(self.pod.path("out")).ok());
        serde_json::from_str(&out).unwrap()
    }

    fn health(&self, check: &str) -> Output {
        let command = self.server.space.command(runtime());
        self.pod.with_paths(command, &["health", check]).output().unwrap()
    }

    fn assert_live(&self, live: bool, reason: &str) {
        let output = self.health("live");
        let message = text(&output);
        assert!(output.status.success() == live && message.contains(reason), "{message}");
    }

    fn rt_tables(&self) -> String {
        fs::read_to_string(self.pod.path("rt_tables")).unwrap()
    }
}

/// Arguments, environment, signals, exit code and file descriptors are those of an agent that is started directly.
fn starts_the_agent(suite: Suite) {
    let Some(lab) = Lab::new(suite) else { return };
    let (pod, space) = (&lab.pod, &lab.server.space);
    let direct = lab.direct();
    fs::write(pod.mark(), "").unwrap();
    // Routes of an earlier agent are in the kernel, and rt_tables is new.
    space.ip("route add default dev br-ex scope link table 77");
    space.ip("route add 10.7.0.0/24 dev br-ex table 100");
    let mut child = lab.start();
    wait_for("the stale mark is removed", || {
        (!pod.mark().exists() && pod.shared().join("agent.pid").exists()).then_some(())
    });
    lab.assert_live(true, "waits for frr-init");
    let startup = lab.health("startup");
    assert_eq!(startup.status.code(), Some(1));
    assert!(text(&startup).starts_with("not startup: process"), "{}", text(&startup));
    assert!(!pod.path("out").exists());
    pod.env_file();

    let out = lab.out();
    assert_started(&lab, &child, &out);
    assert_eq!(out["mask"], direct["mask"]);
    assert_eq!(out["fds"], direct["fds"], "no file is inherited");
    assert_eq!(lab.rt_tables(), format!("{STANDARD}77 br-ex\n"));

    lab.assert_live(true, "is the agent");
    assert_eq!(
        text(&lab.health("ready")),
        "not ready: the agent is not connected to ovsdb_connection and ovn_sb_connection\n"
    );
    assert!(!pod.mark().exists());
    assert_eq!(terminate(&mut child).code(), Some(7));
    lab.assert_live(false, "is gone");
    starts_again(&lab);
}

/// The process is a child of obgp-runtime, recorded, and has the right arguments, variables and options.
fn assert_started(lab: &Lab, child: &Child, out: &Value) {
    let pod = &lab.pod;
    let (config, node_conf) = (pod.path("agent.conf"), pod.shared().join("node.conf"));
    let files = [
        "--config-file",
        config.to_str().unwrap(),
        "--config-file",
        node_conf.to_str().unwrap(),
    ];
    assert_eq!(out["args"], serde_json::json!(files));
    assert_eq!(out["parent"], child.id());
    let recorded = || fs::read_to_string(pod.shared().join("agent.pid")).unwrap();
    wait_for("the agent is recorded", || {
        recorded().starts_with(&format!("{} ", out["pid"])).then_some(())
    });
    assert_eq!(out["state"], pod.shared().join("state.json").to_str().unwrap());
    let helper = format!("sudo obgp-runtime privsep {}", files.join(" "));
    for context in ["", "_OVS_VSCTL", "_VTYSH"] {
        assert_eq!(out["env"][format!("OS_PRIVSEP{context}__HELPER_COMMAND")], helper);
    }
    let conf = fs::read_to_string(&node_conf).unwrap();
    assert!(
        conf.contains("[DEFAULT]\nbgp_AS = 4200049263\nbgp_router_id = 10.0.192.111\n"),
        "{conf}"
    );
}

/// A second start: a table without a name in the kernel, and the env file of the first start. Then the agent is stopped.
fn starts_again(lab: &Lab) {
    lab.server.space.ip("route del default dev br-ex scope link table 77");
    fs::write(lab.pod.path("rt_tables"), STANDARD).unwrap();
    fs::remove_file(lab.pod.path("out")).unwrap();
    let mut child = lab.start();
    let agent = lab.out()["pid"].to_string();
    assert_eq!(lab.rt_tables(), format!("{STANDARD}101 br-ex\n"));
    succeed(Command::new("kill").args(["-STOP", &agent]));
    let live = wait_for("health detects the stop", || {
        Some(lab.health("live")).filter(|live| !live.status.success())
    });
    let stopped = format!("not live: process {agent}, the agent, is stopped; kill -CONT {agent} resumes it\n");
    assert_eq!(text(&live), stopped);
    assert_eq!(text(&lab.health("startup")), stopped.replace("not live", "not startup"));
    succeed(Command::new("kill").args(["-KILL", &agent]));
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
}

#[test]
fn the_agent_is_started_and_stopped_8_4() {
    starts_the_agent(Suite::Bookworm);
}

#[test]
fn the_agent_is_started_and_stopped_10_3() {
    starts_the_agent(Suite::Trixie);
}

/// The agent's process group is killed. The runtime is PID 1, which reaps orphans.
#[test]
fn an_agent_that_does_not_end_is_killed() {
    let Some(root) = FrrRoot::get(Suite::Bookworm) else {
        return;
    };
    let leaf = Namespace::new("leaf");
    let server = Server::new(&root, &leaf);
    let pod = Pod::new(server.node.sockets());
    pod.env_file();
    let script = "import os, signal, subprocess, sys, time\n\
                  signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.signal(signal.SIGHUP, lambda *_: print('HUP', flush=True))\n\
                  os.system('sleep 0.1 &')\nhelper = subprocess.Popen(['sleep', '1000'])\n\
                  open(os.environ['OBGP_TEST_OUT'], 'w').write(f'{os.getpid()} {helper.pid}')\n\
                  while True: time.sleep(1)\n";
    let program = executable(
        &pod.path("ovn-bgp-agent"),
        &format!("#!/usr/bin/env -S python3 -S\n{script}"),
    );
    let log = fs::File::create(pod.path("log")).unwrap();
    let mut unshare = server.space.command("unshare");
    unshare.args(["--pid", "--fork", "--mount-proc", runtime()]);
    let mut child = pod
        .agent(unshare, &program, "30")
        .args(["--stop-timeout", "2"])
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let log = || fs::read_to_string(pod.path("log")).unwrap();
    wait_for("the agent starts", || pod.path("out").exists().then_some(()));
    // The children of unshare, of PID 1, and of the agent.
    let children = |pid: &str| -> Vec<String> {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        text.split_whitespace().map(str::to_string).collect()
    };
    let init = children(&child.id().to_string()).remove(0);
    wait_for("the orphan is reaped", || (children(&init).len() == 1).then_some(()));
    let agent = children(&init).remove(0);
    let helper = children(&agent).remove(0);
    wait_for("SIGHUP is forwarded", || {
        succeed(Command::new("kill").args(["-HUP", &init]));
        log().contains("HUP").then_some(())
    });
    let begin = Instant::now();
    succeed(Command::new("kill").arg(&init));
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9), "{}", log());
    let took = begin.elapsed();
    assert!(
        (Duration::from_secs(2)..Duration::from_secs(4)).contains(&took),
        "{took:?}"
    );
    assert!(
        log().contains("the agent did not end within 2 s of the signal: killing it"),
        "{}",
        log()
    );
    assert!(!Path::new("/proc").join(helper).exists());
}

#[test]
fn the_error_at_the_deadline_names_what_is_missing() {
    let pod = Pod::new(PathBuf::from("/nonexistent"));
    let program = fake_agent(&pod);
    let run = |timeout| pod.agent(Command::new(runtime()), &program, timeout).output().unwrap();
    let output = run("1");
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output);
    assert!(message.contains("waiting (0 s of 1 s): there is no"), "{message}");
    assert!(
        message.contains("obgp-runtime: frr-init has not finished after 1 s: there is no"),
        "{message}"
    );

    pod.env_file();
    let message = text(&run("1"));
    assert!(
        message.contains("FRR does not answer after 1 s: zebra cannot be reached at /nonexistent/zebra.vty"),
        "{message}"
    );

    fs::write(pod.shared().join("bgp-config.env"), ENV.replace("'br-ex'", "$(id)")).unwrap();
    let message = text(&run("1"));
    assert!(
        message.contains("bgp-config.env line 3: the value of INTERFACE is not in single quotes"),
        "{message}"
    );

    fs::write(
        pod.path("agent.conf"),
        "[DEFAULT]\novsdb_connection = tcp://127.0.0.1:6640\n",
    )
    .unwrap();
    let message = text(&run("86400"));
    assert!(message.contains("write tcp:HOST:PORT, without slashes"), "{message}");
    assert!(!pod.path("out").exists());
}

#[test]
fn a_waiting_process_can_be_terminated() {
    let pod = Pod::new(PathBuf::from("/nonexistent"));
    let program = fake_agent(&pod);
    // As PID 1, which ignores signals without a handler.
    let as_init = Command::new("unshare").args(["--pid", "--fork", "true"]).output();
    let as_init = as_init.is_ok_and(|output| output.status.success());
    for init in [false, true] {
        if init && !support::available((!as_init).then(|| "PID namespaces need root".to_string())) {
            continue;
        }
        let mut command = Command::new(runtime());
        if init {
            command = Command::new("unshare");
            command.args(["--pid", "--fork", "--mount-proc", runtime()]);
        }
        let mut child = pod
            .agent(command, &program, "60")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let _ = fs::remove_file(pod.shared().join("agent.pid"));
        wait_for("the process waits", || {
            pod.shared().join("agent.pid").exists().then_some(())
        });
        let begin = Instant::now();
        if init {
            // The child of unshare.
            let children = format!("/proc/{0}/task/{0}/children", child.id());
            let init = fs::read_to_string(children).unwrap();
            succeed(Command::new("kill").arg(init.trim()));
            assert_eq!(child.wait().unwrap().code(), Some(143));
        } else {
            assert_eq!(terminate(&mut child).code(), Some(143));
        }
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}

/// FRR 10 cannot be configured without its mgmtd.
#[test]
fn the_agent_waits_for_mgmtd_if_frr_has_it() {
    let Some(root) = FrrRoot::get(Suite::Trixie) else {
        return;
    };
    let leaf = Namespace::new("leaf");
    let server = Server::new(&root, &leaf);
    let pod = Pod::new(server.node.sockets());
    pod.env_file();
    fs::remove_file(server.node.sockets().join("mgmtd.vty")).unwrap();
    let output = pod
        .agent(server.space.command(runtime()), &fake_agent(&pod), "1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("FRR does not answer after 1 s: mgmtd cannot be reached"),
        "{}",
        text(&output)
    );
}

/// A DNS server (RFC 1035) that knows the names in a file: lines of `NAME ADDRESS`. It reads the file for each
/// question.
const DNS: &str = r#"
import ipaddress, socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
while True:
    question, client = server.recvfrom(512)
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1:at + 1 + question[at]].decode())
        at += 1 + question[at]
    kind, end = int.from_bytes(question[at + 1:at + 3], "big"), at + 5
    known = [ipaddress.ip_address(line.split()[1]) for line in open(sys.argv[1]) if line.split()[0] == ".".join(labels)]
    wanted = [one for one in known if kind == {4: 1, 6: 28}[one.version]]
    code = b"\x85\x80" if known else b"\x85\x83"
    head = question[:2] + code + b"\0\1" + len(wanted).to_bytes(2, "big") + b"\0\0\0\0"
    records = [b"\xc0\x0c" + question[at + 1:end] + b"\0\0\0\x1e" + len(one.packed).to_bytes(2, "big") + one.packed for one in wanted]
    server.sendto(head + question[12:end] + b"".join(records), client)
"#;

/// Starts `agent` with a resolv.conf of its own and, unless it is empty, the connection in a variable.
fn start_with_resolver(lab: &Lab, variable: &str) -> Child {
    let pod = &lab.pod;
    let mut command = lab.server.space.command("unshare");
    let script = "mount --bind \"$1\" /etc/resolv.conf; shift; exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh"]);
    command.arg(pod.path("resolv.conf")).arg(runtime());
    let mut command = pod.agent(command, &lab.program, "30");
    if !variable.is_empty() {
        command.env("OS_OVN__OVN_NB_CONNECTION", variable);
    }
    let _ = fs::remove_file(pod.path("out"));
    let log = fs::File::create(pod.path("log")).unwrap();
    command.stderr(log).spawn().unwrap()
}

/// The name is replaced by its two addresses with a route; the other connections are unchanged.
fn assert_resolved(conf: &str) {
    let line = conf.lines().find(|line| line.starts_with("ovn_nb_connection = "));
    let line = line.unwrap_or_else(|| panic!("{conf}"));
    let mut remotes: Vec<&str> = line.split(" = ").nth(1).unwrap().split(',').collect();
    assert_eq!(remotes.split_off(2), ["tcp:[fd00:5::9]:6641", "tcp:10.0.192.9:16641"]);
    // The resolver's order depends on the node's addresses.
    remotes.sort_unstable();
    assert_eq!(remotes, ["ssl:10.0.192.7:6641", "ssl:[fd00:5::7]:6641"]);
    let only_it = conf.contains("\n[ovn]\novn_nb_connection") && !conf.contains("unused") && !conf.contains("unix:");
    assert!(only_it, "{conf}");
}

/// The names of OVSDB servers are resolved at every start, and DNS may start later than the agent.
#[test]
fn names_of_ovsdb_servers_are_resolved_at_every_start() {
    let Some(lab) = Lab::new(Suite::Trixie) else { return };
    let (pod, space) = (&lab.pod, &lab.server.space);
    pod.env_file();
    // A route for IPv6, and none for 198.51.100.0/24.
    space.ip("address add fd00:5::111/64 dev br-ex nodad");
    let conf = "[DEFAULT]\ndriver = nb_ovn_bgp_driver\novsdb_connection = unix:/run/openvswitch/db.sock\n[ovn]\n\
                ovn_nb_connection = ssl:nb.example:6641,tcp:[fd00:5::9]:6641,tcp:10.0.192.9:16641\n\
                ovn_sb_connection = tcp:unused.example:6642\n";
    fs::write(pod.path("agent.conf"), conf).unwrap();
    fs::write(
        pod.path("resolv.conf"),
        "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    )
    .unwrap();
    let log = || fs::read_to_string(pod.path("log")).unwrap();
    let node_conf = || fs::read_to_string(pod.shared().join("node.conf")).unwrap();

    let mut child = start_with_resolver(&lab, "");
    wait_for("the agent waits for DNS", || {
        log()
            .contains(" s of 30 s): ovn_nb_connection: nb.example: ")
            .then_some(())
    });
    assert!(!pod.path("out").exists(), "{}", log());
    fs::write(
        pod.path("names"),
        "nb.example 10.0.192.7\nnb.example fd00:5::7\nnb.example 198.51.100.7\n",
    )
    .unwrap();
    let mut dns = space.command("python3");
    let mut dns = dns.args(["-c", DNS]).arg(pod.path("names")).spawn().unwrap();
    lab.out();
    terminate(&mut child);
    assert_resolved(&node_conf());
    assert!(
        log().contains("obgp-runtime agent: ovn_nb_connection: nb.example is "),
        "{}",
        log()
    );

    // The server has moved.
    fs::write(pod.path("names"), "nb.example 10.0.192.8\n").unwrap();
    let mut child = start_with_resolver(&lab, "");
    lab.out();
    terminate(&mut child);
    assert!(
        node_conf().contains("ovn_nb_connection = ssl:10.0.192.8:6641,tcp:[fd00:5::9]:6641,"),
        "{}",
        node_conf()
    );
    assert!(
        log().contains("ovn_nb_connection: nb.example is 10.0.192.8\n"),
        "{}",
        log()
    );

    // oslo.config would ignore the option in a file.
    let mut child = start_with_resolver(&lab, "tcp:10.0.192.6:6641");
    lab.out();
    terminate(&mut child);
    assert!(!node_conf().contains("ovn_nb_connection"), "{}", node_conf());
    assert!(
        log().contains("ovn_nb_connection comes from OS_OVN__OVN_NB_CONNECTION"),
        "{}",
        log()
    );
    dns.kill().unwrap();
    dns.wait().unwrap();
}
