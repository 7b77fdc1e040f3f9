//! A separate system for a test: an overlay over this machine's root with sudo, the agent's Python packages, its user and the
//! image's sudoers rule, in mount and network namespaces of the test's thread.

use std::fs::{self, Permissions};
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

/// Not the uid in the image, so that no test passes because of a hard-coded number.
pub const AGENT: u32 = 42777;
/// An unrelated user.
pub const OTHER: u32 = 42888;

pub const CONFIG: &str = "/etc/ovn-bgp-agent/ovn-bgp-agent.conf";
pub const NODE_CONFIG: &str = "/run/ovn-bgp-agent/node.conf";
pub const CONTEXT: &str = "ovn_bgp_agent.privileged.vtysh_cmd";
pub const SOCKET: &str = "/tmp/tmpabc_1234/privsep.sock";

const SUDOERS: &str = "\
Defaults env_reset
Defaults secure_path=\"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"
Defaults !use_pty, !syslog, !fqdn, !lecture
ovn-bgp-agent ALL = (root) NOPASSWD: /usr/local/bin/obgp-runtime privsep *
";

pub struct World {
    outside: OwnedFd,
    base: PathBuf,
    /// Keeps the directory until it is unmounted.
    _directory: tempfile::TempDir,
}

/// `None`, with the reason printed, if the machine does not permit it. In CI that is a failure.
pub fn world() -> Option<World> {
    let reason = if !rustix::process::geteuid().is_root() {
        "this test creates mounts and users: run it as root"
    } else {
        match World::enter() {
            Ok(world) => return Some(world),
            Err(error) => &error.to_string(),
        }
    };
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    eprintln!("SKIPPED: {reason}");
    None
}

impl World {
    fn enter() -> Result<Self, Box<dyn std::error::Error>> {
        let layer = layer()?;
        let directory = tempfile::Builder::new().prefix("obgp-privsep-").tempdir()?;
        // SAFETY: no memory is unshared. The thread gets its own working directory and root.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET)? };
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let outside = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let base = directory.path().to_path_buf();
        let none = MountFlags::empty();
        rustix::mount::mount("tmpfs", &base, "tmpfs", none, Some(c"mode=755"))?;
        let [upper, work, root] = ["upper", "work", "root"].map(|name| base.join(name));
        for made in [&upper, &work, &root] {
            fs::create_dir(made)?;
        }
        let options = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
        let options = std::ffi::CString::new(options)?;
        rustix::mount::mount("overlay", &root, "overlay", none, Some(options.as_c_str()))?;
        rustix::mount::mount("proc", root.join("proc"), "proc", none, None)?;
        rustix::mount::mount_bind_recursive("/dev", root.join("dev"))?;
        rustix::mount::mount("tmpfs", root.join("tmp"), "tmpfs", none, Some(c"mode=1777"))?;
        rustix::mount::mount("tmpfs", root.join("run"), "tmpfs", none, Some(c"mode=755"))?;
        run(Command::new("cp")
            .args(["-a", "--no-target-directory"])
            .arg(layer.join("files"))
            .arg(&root))?;
        // Outside the root: overlays reject layers that contain each other.
        let packages = root.join(fs::read_to_string(layer.join("packages-at"))?);
        fs::create_dir_all(&packages)?;
        rustix::mount::mount_bind(layer.join("packages"), packages)?;
        // Hides the machine's own Python packages, whose versions may differ.
        let own = root.join("usr/lib/python3/dist-packages");
        rustix::mount::mount("tmpfs", own, "tmpfs", none, Some(c"mode=755"))?;
        let binary = root.join("usr/local/bin/obgp-runtime");
        fs::copy(env!("CARGO_BIN_EXE_obgp-runtime"), binary)?;
        rustix::process::chroot(&root)?;
        std::env::set_current_dir("/")?;
        let world = Self {
            outside,
            base,
            _directory: directory,
        };
        world.furnish()?;
        Ok(world)
    }

    fn furnish(&self) -> std::io::Result<()> {
        for (file, line) in [
            (
                "/etc/passwd",
                "ovn-bgp-agent:x:42777:42777::/var/lib/ovn-bgp-agent:/bin/sh\nother:x:42888:42888::/:/bin/sh\n",
            ),
            ("/etc/group", "ovn-bgp-agent:x:42777:\nother:x:42888:\n"),
            ("/etc/shadow", "ovn-bgp-agent:!:20000::::::\nother:!:20000::::::\n"),
        ] {
            fs::write(file, fs::read_to_string(file)? + line)?;
        }
        write("/etc/sudoers", SUDOERS, 0, 0o440);
        fs::create_dir_all("/etc/ovn-bgp-agent")?;
        write(CONFIG, "[DEFAULT]\ndebug = true\n", 0, 0o644);
        fs::create_dir("/run/ovn-bgp-agent")?;
        chown("/run/ovn-bgp-agent", Some(AGENT), Some(AGENT))?;
        write(NODE_CONFIG, "[DEFAULT]\nbgp_AS = 4200049263\n", AGENT, 0o644);
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let back = rustix::process::fchdir(&self.outside)
            .and_then(|()| rustix::process::chroot("."))
            .and_then(|()| rustix::mount::unmount(&self.base, UnmountFlags::DETACH));
        if let Err(error) = back {
            eprintln!("cannot remove {}: {error}", self.base.display());
        }
    }
}

/// The packages, unpacked once for all tests and later runs.
fn layer() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let layer = target.join("privsep-layer");
    let lock = fs::File::create(target.join("privsep-layer.lock"))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    if layer.exists() {
        return Ok(layer);
    }
    let making = target.join("privsep-layer.making");
    let _ = fs::remove_dir_all(&making);
    fs::create_dir_all(making.join("download"))?;
    run(Command::new("apt-get")
        .args(["-qq", "download", "sudo"])
        .current_dir(making.join("download")))?;
    let package = fs::read_dir(making.join("download"))?
        .next()
        .ok_or("no package was downloaded")??;
    run(Command::new("dpkg")
        .arg("-x")
        .arg(package.path())
        .arg(making.join("sudo")))?;

    let version = "import sys; print('%d.%d' % sys.version_info[:2], end='')";
    let version = run(Command::new("/usr/bin/python3").args(["-c", version]))?;
    let unpacked = making.join("layer");
    let packages = unpacked.join("packages");
    run(Command::new("/usr/bin/python3")
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--root-user-action=ignore",
        ])
        .args(["oslo.privsep==3.12.0", "ovn-bgp-agent==7.0.0", "--target"])
        .arg(&packages))?;
    fs::write(
        unpacked.join("packages-at"),
        format!("usr/local/lib/python{version}/dist-packages"),
    )?;
    // Only these files: the package's /lib would hide the machine's, which is a link.
    let files = unpacked.join("files");
    for path in ["usr/bin/sudo", "usr/libexec/sudo", "etc/sudo.conf", "etc/pam.d/sudo"] {
        let into = files.join(path);
        fs::create_dir_all(into.parent().ok_or("no parent")?)?;
        fs::rename(making.join("sudo").join(path), into)?;
    }
    let scripts = files.join("usr/local/bin");
    fs::create_dir_all(&scripts)?;
    fs::rename(packages.join("bin/privsep-helper"), scripts.join("privsep-helper"))?;
    fs::rename(unpacked, &layer)?;
    fs::remove_dir_all(&making)?;
    Ok(layer)
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

pub fn write(path: impl AsRef<Path>, content: &str, owner: u32, mode: u32) {
    fs::write(&path, content).unwrap();
    chown(&path, Some(owner), Some(owner)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
}

pub fn directory(path: impl AsRef<Path>, owner: u32, mode: u32) {
    fs::create_dir_all(&path).unwrap();
    chown(&path, Some(owner), Some(owner)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
}

/// A listening socket like oslo.privsep's, with its directory.
pub fn listen(path: &str, owner: u32) -> UnixListener {
    directory(Path::new(path).parent().unwrap(), owner, 0o700);
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path).unwrap();
    chown(path, Some(owner), Some(owner)).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// A program that runs as a user without supplementary groups.
pub fn user(uid: u32, program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .uid(uid)
        .gid(uid)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir("/");
    command
}

/// The agent's command, through sudo.
pub fn privsep<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = user(AGENT, "sudo");
    command.args(["-n", "obgp-runtime", "privsep"]).args(arguments);
    command
}

/// The arguments of a valid call.
pub fn valid() -> Vec<String> {
    [
        "--config-file",
        CONFIG,
        "--config-file",
        NODE_CONFIG,
        "--privsep_context",
        CONTEXT,
        "--privsep_sock_path",
        SOCKET,
    ]
    .map(str::to_string)
    .to_vec()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command until it ends. Its stderr is a file, because the helper continues to run and would keep a pipe open.
pub fn run_to_end(command: &mut Command) -> Output {
    let mut said = tempfile::tempfile().unwrap();
    let status = command.stderr(said.try_clone().unwrap()).status().unwrap();
    said.rewind().unwrap();
    let mut stderr = Vec::new();
    said.read_to_end(&mut stderr).unwrap();
    Output {
        status,
        stdout: Vec::new(),
        stderr,
    }
}
