//! Network namespaces with links and addresses. A namespace is deleted with its links when its value is dropped.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Why this machine cannot create network namespaces.
pub fn namespaces_missing() -> Option<String> {
    // The owner of /proc/self is the effective user.
    let root = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").ok()?) == 0;
    if !root {
        return Some("network namespaces need root".into());
    }
    let packages = [("ip", "iproute2"), ("unshare", "util-linux"), ("setpriv", "util-linux")];
    if let Some(lack) = packages.into_iter().find_map(tool_missing) {
        return Some(lack);
    }
    let probe = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "true"])
        .output();
    match probe {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "cannot create network namespaces: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Some(format!("cannot run unshare: {error}")),
    }
}

pub fn tool_missing((tool, package): (&str, &str)) -> Option<String> {
    let there = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
    let there = there.is_ok_and(|output| output.status.success());
    (!there).then(|| format!("this needs {tool} (Debian package {package})"))
}

/// A new network namespace with the loopback interface up.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub fn new(role: &str) -> Self {
        let name = unused_name(role);
        succeed(Command::new("ip").args(["netns", "add", &name]));
        let space = Self { name };
        space.ip("link set lo up");
        space
    }

    /// The namespace of a running process, under a name. It exists longer than the name.
    pub fn of(process: u32, role: &str) -> Self {
        let name = unused_name(role);
        succeed(Command::new("ip").args(["netns", "attach", &name, &process.to_string()]));
        Self { name }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip ARGUMENTS` in the namespace, which must succeed.
    pub fn ip(&self, arguments: &str) -> String {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]).args(arguments.split_whitespace());
        succeed(&mut command)
    }

    /// A command in the namespace. It is killed when the test ends.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "ip", "netns", "exec", &self.name]);
        command.arg(program.as_ref()).stdin(Stdio::null());
        command
    }

    /// A veth pair between two namespaces, both ends up.
    pub fn link(&self, here: &str, other: &Self, there: &str) {
        self.ip(&format!(
            "link add {here} type veth peer name {there} netns {}",
            other.name
        ));
        self.ip(&format!("link set {here} up"));
        other.ip(&format!("link set {there} up"));
    }

    /// A bridge with a port and an address, like br-ex.
    pub fn bridge(&self, name: &str, port: &str, address: &str) {
        // Without a forward delay the port forwards at once.
        self.ip(&format!("link add {name} type bridge forward_delay 0"));
        self.ip(&format!("link set {port} master {name}"));
        self.ip(&format!("link set {name} up"));
        if !address.is_empty() {
            self.ip(&format!("address add {address} dev {name}"));
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

fn unused_name(role: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("obgp-{}-{count}-{role}", std::process::id())
}

/// Runs a command that must succeed and returns its output.
pub fn succeed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
