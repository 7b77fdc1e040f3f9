//! A built image, run on the engine: what cannot be known from its layers. Read-only root, no network, the image's own user.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::config::Identity;
use crate::engine::{ContainerOutput, ContainerSpec, Engine, EngineError};
use crate::oci::Platform;
use crate::progress::Progress;

/// Emulated Python takes its time.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Every driver that can be configured, and every module whose functions run as root.
const IMPORTS: &str = "\
import importlib, importlib.metadata as md, pkgutil, ovn_bgp_agent.drivers.openstack, ovn_bgp_agent.privileged as p
drivers = [e for e in md.entry_points(group='ovn_bgp_agent.drivers')]
assert drivers, 'no ovn_bgp_agent.drivers entry points'
for e in drivers: e.load()
names = [m.name for m in pkgutil.iter_modules(p.__path__)]
assert {'vtysh', 'ovs_vsctl', 'linux_net'} <= set(names), names
for n in names: importlib.import_module('ovn_bgp_agent.privileged.' + n)
print('drivers:', *sorted(e.name for e in drivers)); print('privileged:', *sorted(names))
";

struct Check {
    id: &'static str,
    command: &'static [&'static str],
    ends: End,
    /// What the output must hold.
    expected: &'static [&'static str],
}

/// How a command has to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// With exit code 0; what is expected stands on stdout.
    Well,
    /// Not with 0; what is expected stands on stderr.
    Refused,
}

const fn well(id: &'static str, command: &'static [&'static str], expected: &'static [&'static str]) -> Check {
    Check {
        id,
        command,
        ends: End::Well,
        expected,
    }
}

const fn refused(id: &'static str, command: &'static [&'static str], expected: &'static [&'static str]) -> Check {
    Check {
        id,
        command,
        ends: End::Refused,
        expected,
    }
}

const RUNTIME: &str = "/usr/local/bin/obgp-runtime";

const CHECKS: &[Check] = &[
    well("agent-help", &["ovn-bgp-agent", "--help"], &["--config-file"]),
    well("imports", &["python3", "-c", IMPORTS], &["drivers:", "privileged:"]),
    well("ovs-vsctl", &["ovs-vsctl", "--version"], &["ovs-vsctl (Open vSwitch)"]),
    // The chart calls each of these.
    well(
        "runtime-frr-init",
        &[RUNTIME, "frr-init", "--help"],
        &["obgp-runtime frr-init"],
    ),
    well(
        "runtime-frr-config",
        &[RUNTIME, "frr-config", "--help"],
        &["obgp-runtime frr-config"],
    ),
    well("runtime-agent", &[RUNTIME, "agent", "--help"], &["obgp-runtime agent"]),
    well(
        "runtime-health",
        &[RUNTIME, "health", "--help"],
        &["obgp-runtime health"],
    ),
    well(
        "runtime-privsep",
        &[RUNTIME, "privsep", "--help"],
        &["obgp-runtime privsep"],
    ),
    well(
        "runtime-image-repo-sync",
        &[RUNTIME, "image-repo-sync", "--help"],
        &["obgp-runtime image-repo-sync"],
    ),
    // No daemon is there. FRR's own client ends with 0 in more cases than one likes, which the agent takes for success.
    refused(
        "vtysh-without-frr",
        &["/usr/bin/vtysh", "--vty_socket", "/run/frr", "-c", "show version"],
        &["vtysh:", "/run/frr"],
    ),
    // The distribution's would set it, or be denied: ours answers first.
    well(
        "sysctl",
        &["sysctl", "net.ipv4.ip_forward"],
        &["net.ipv4.ip_forward = "],
    ),
    refused(
        "sysctl-foreign-key",
        &["sysctl", "-w", "net.ipv4.tcp_syncookies=1"],
        &["the agent does not need it"],
    ),
    well(
        "sudo-list",
        &["sudo", "-n", "-l"],
        &["(root) NOPASSWD: /usr/local/bin/obgp-runtime privsep *"],
    ),
    refused(
        "sudo-foreign-context",
        FOREIGN_CONTEXT,
        &["obgp-runtime privsep: refused:"],
    ),
];

/// sudo allows it, `obgp-runtime privsep` does not.
const FOREIGN_CONTEXT: &[&str] = &[
    "sudo",
    "-n",
    "obgp-runtime",
    "privsep",
    "--privsep_context",
    "os.system",
    "--privsep_sock_path",
    "/tmp/tmpabcdefgh/privsep.sock",
];

/// What one command did.
#[derive(Clone, Debug, Serialize)]
pub struct SmokeResult {
    pub id: &'static str,
    pub passed: bool,
    pub seconds: f64,
    /// The output's last lines, stdout then stderr.
    pub output: String,
}

/// Runs every check, each in a container of its own; a failed one does not keep the next from running.
pub async fn smoke(
    engine: &Engine,
    image: &str,
    platform: Platform,
    identity: &Identity,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Vec<SmokeResult>, EngineError> {
    let runner = Runner {
        engine,
        image,
        platform,
        cancel,
    };
    let mut results = Vec::new();
    for check in CHECKS {
        progress.step(&format!("smoke test: {}", check.id));
        let started = Instant::now();
        let user = format!("{}:{}", identity.uid, identity.gid);
        let mut ran = runner.run(&user, check.command).await?;
        let mut remark = "";
        if ran.stderr.contains(NO_SETUID) {
            // QEMU's registration decides whether a setuid program of the image is one under emulation; Debian's says
            // no. What sudo does for that user can still be asked for, by root.
            ran = runner.run("0:0", &as_root(check.command, &identity.name)).await?;
            remark = "(asked as root: this machine's emulation does not honour setuid)\n";
        }
        let (ended, stream) = match check.ends {
            End::Well => (ran.exit_code == 0, &ran.stdout),
            End::Refused => (ran.exit_code != 0, &ran.stderr),
        };
        let passed = ended && check.expected.iter().all(|text| stream.contains(text));
        let mut output = remark.to_string() + &last_lines(&format!("{}{}", ran.stdout, ran.stderr), 12);
        if ran.exit_code != 0 {
            output += &format!("\n(exit code {})", ran.exit_code);
        }
        results.push(SmokeResult {
            id: check.id,
            passed,
            seconds: started.elapsed().as_secs_f64(),
            output,
        });
    }
    Ok(results)
}

/// What sudo says when it was started without root's rights though it is setuid.
const NO_SETUID: &str = "effective uid is not 0";

/// What root runs to see what sudo does for `user`.
fn as_root<'a>(command: &[&'a str], user: &'a str) -> Vec<&'a str> {
    match command {
        ["sudo", "-n", "-l"] => vec!["sudo", "-n", "-l", "-U", user],
        ["sudo", "-n", allowed @ ..] => allowed.to_vec(),
        other => other.to_vec(),
    }
}

struct Runner<'a> {
    engine: &'a Engine,
    image: &'a str,
    platform: Platform,
    cancel: &'a CancellationToken,
}

impl Runner<'_> {
    async fn run(&self, user: &str, command: &[&str]) -> Result<ContainerOutput, EngineError> {
        let spec = ContainerSpec {
            image: self.image.to_string(),
            platform: self.platform,
            user: Some(user.to_string()),
            read_only_rootfs: true,
            tmpfs: vec!["/tmp".into(), "/run".into()],
            entrypoint: Some(vec![command[0].to_string()]),
            command: command[1..].iter().map(|s| s.to_string()).collect(),
            env: Vec::new(),
            timeout: TIME_LIMIT,
        };
        self.engine.run(&spec, self.cancel).await
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
