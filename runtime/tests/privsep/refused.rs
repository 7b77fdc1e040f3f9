//! Refused calls. Each is a valid call with one change. The tests also prove that the changes matter: the valid call is accepted,
//! and the hostile configuration makes root execute its code.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use super::world::{
    AGENT, CONFIG, CONTEXT, OTHER, SOCKET, directory, listen, privsep, run_to_end, stderr, user, valid, world, write,
};

/// Exists if root executed code of the agent's user.
pub const PROOF: &str = "/root/it-worked";
const NOT_EXPECTED: &str = "is not expected here";
const NOT_PLAIN: &str = "is not a plain path below";
pub const EVIL: &str = "/tmp/evil.conf";

/// A configuration that executes code as the user who loads it.
pub fn evil(path: &str, owner: u32) {
    write(path, "[DEFAULT]\nlog_config_append = /tmp/evil.ini\n", owner, 0o644);
    write(
        "/tmp/evil.ini",
        &format!(
            "[loggers]\nkeys=root\n[handlers]\nkeys=x\n[formatters]\nkeys=\n[logger_root]\nhandlers=x\n\
             [handler_x]\nclass=StreamHandler\nargs=(open('{PROOF}', 'w'),)\n"
        ),
        owner,
        0o644,
    );
}

/// The call is refused with one line that contains `reason`, without a connection and without an effect.
pub fn refused_by(mut command: Command, listener: &UnixListener, reason: &str) {
    let output = run_to_end(&mut command);
    let message = stderr(&output);
    assert!(!output.status.success(), "accepted: {command:?}");
    assert!(
        message.contains(reason),
        "{reason:?} is not in {message:?} of {command:?}"
    );
    assert!(message.starts_with("obgp-runtime privsep: refused: "), "{message:?}");
    assert_eq!(message.lines().count(), 1, "{message:?}");
    assert!(listener.accept().is_err(), "connected: {command:?}");
    assert!(!Path::new(PROOF).exists(), "{command:?}");
}

pub fn refused(arguments: &[String], listener: &UnixListener, reason: &str) {
    refused_by(privsep(arguments), listener, reason);
}

pub fn with(position: usize, value: &str) -> Vec<String> {
    let mut arguments = valid();
    arguments[position] = value.to_string();
    arguments
}

#[test]
fn the_valid_call_is_accepted_and_the_hostile_file_is_effective() {
    let Some(_world) = world() else { return };
    let listener = listen(SOCKET, AGENT);
    let output = run_to_end(&mut privsep(valid()));
    assert!(output.status.success(), "{}", stderr(&output));
    listener.accept().unwrap();

    evil(EVIL, AGENT);
    Command::new("/usr/local/bin/privsep-helper")
        .args([
            "--config-file",
            EVIL,
            "--privsep_context",
            CONTEXT,
            "--privsep_sock_path",
            SOCKET,
        ])
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(Path::new(PROOF).exists(), "this configuration has no effect");
}

#[test]
fn sudo_permits_no_other_command() {
    let Some(_world) = world() else { return };
    for command in [
        vec![
            "-n",
            "privsep-helper",
            "--privsep_context",
            CONTEXT,
            "--privsep_sock_path",
            SOCKET,
        ],
        vec!["-n", "obgp-runtime", "agent"],
        vec!["-n", "obgp-runtime", "--help"],
        vec!["-n", "-u", "other", "obgp-runtime", "privsep", "x"],
        vec!["-n", "id"],
    ] {
        let output = user(AGENT, "sudo").args(&command).output().unwrap();
        assert!(!output.status.success(), "{command:?}");
        assert!(
            stderr(&output).contains("sudo: a password is required"),
            "{command:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn invalid_values_are_refused() {
    let Some(_world) = world() else { return };
    let listener = listen(SOCKET, AGENT);
    evil(EVIL, AGENT);
    for context in [
        "os.system",
        "ovn_bgp_agent.privileged",
        "ovn_bgp_agent.privileged.default\n",
        "evil.context",
        "",
    ] {
        refused(&with(5, context), &listener, "is not one of the agent's three");
    }
    for path in [
        EVIL,
        "evil.conf",
        "/etc/ovn-bgp-agent/../../tmp/evil.conf",
        "/etc/ovn-bgp-agent/./ovn-bgp-agent.conf",
        "//tmp/evil.conf",
        "/etc/ovn-bgp-agent//ovn-bgp-agent.conf",
        "/etc/ovn-bgp-agent/..data/x.conf",
        "/etc/ovn-bgp-agent",
        "/etc/ovn-bgp-agent.conf",
        "/run/ovn-bgp-agent/other.conf",
        "/run/ovn-bgp-agent/../ovn-bgp-agent/node.conf",
        "~/evil.conf",
        "/proc/self/fd/0",
        "/dev/stdin",
        "/etc/ovn-bgp-agent/a b.conf",
        "/etc/ovn-bgp-agent/a\nb.conf",
        "/etc/ovn-bgp-agent/*.conf",
        "",
    ] {
        refused(&with(1, path), &listener, NOT_PLAIN);
    }
    let long = format!("/etc/ovn-bgp-agent/{}", "a".repeat(100_000));
    refused(&with(1, &long), &listener, NOT_PLAIN);
    let mut raw: Vec<OsString> = valid().into_iter().map(OsString::from).collect();
    raw[1] = OsString::from_vec(b"/etc/ovn-bgp-agent/\xff.conf".to_vec());
    refused_by(privsep(raw), &listener, NOT_PLAIN);
}

#[test]
fn unexpected_and_missing_options_are_refused() {
    let Some(_world) = world() else { return };
    let listener = listen(SOCKET, AGENT);
    evil(EVIL, AGENT);
    for option in [
        "--config-fil",
        "--config-file=/tmp/evil.conf",
        "--config_file",
        "-c",
        "--",
        "--log-config-append",
        "--debug",
        "",
    ] {
        refused(&with(0, option), &listener, NOT_EXPECTED);
    }
    let mut extra = valid();
    extra.extend(["--config-file".to_string(), EVIL.to_string()]);
    refused(&extra, &listener, NOT_EXPECTED);
    let mut twice = valid();
    twice.splice(4..4, ["--privsep_context".to_string(), CONTEXT.to_string()]);
    refused(&twice, &listener, NOT_EXPECTED);
    let mut order = valid();
    order.rotate_left(4);
    refused(&order, &listener, NOT_EXPECTED);
    refused(&valid()[..6], &listener, "--privsep_sock_path is missing");
    refused(&valid()[..7], &listener, "--privsep_sock_path has no value");
    refused(&valid()[..1], &listener, "--config-file has no value");
    let many = ["--config-file", CONFIG].repeat(17).into_iter().map(str::to_string);
    let many: Vec<String> = many.chain(valid()).collect();
    refused(&many, &listener, "more than 16");
    // --help works for every user and has no other effect.
    let help = privsep(["--help"]).output().unwrap();
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("Usage:"));
    refused(&["--help".to_string(), "x".to_string()], &listener, NOT_EXPECTED);
}

#[test]
fn sockets_of_other_users_are_refused() {
    let Some(_world) = world() else { return };
    let victim = listen("/run/docker.sock", 0);
    directory("/run", 0, 0o755);
    let form = "is not /tmp/tmpXXXXXXXX/privsep.sock";
    for path in [
        "/run/docker.sock",
        "/tmp/privsep.sock",
        "/tmp/tmpabc_123/privsep.sock",
        "/tmp/tmpabc_12345/privsep.sock",
        "/tmp/tmpABC_1234/privsep.sock",
        "/tmp/tmpabc_1234/other.sock",
        "/tmp/tmpabc_1234/../privsep.sock",
        "/tmp/tmp......../privsep.sock",
        "/var/tmp/tmpabc_1234/privsep.sock",
        "tmp/tmpabc_1234/privsep.sock",
        "/tmp//tmpabc_1234/privsep.sock",
        "/tmp/tmpabc_1234/privsep.sock/",
        "/tmp/tmpabc_1234/privsep.sock\n",
        "",
        "/proc/self/fd/3",
    ] {
        refused(&with(7, path), &victim, form);
    }
    let directory_of = Path::new(SOCKET).parent().unwrap();
    refused(&valid(), &victim, "cannot open tmpabc_1234");
    directory(directory_of, AGENT, 0o700);
    refused(&valid(), &victim, "cannot open privsep.sock");
    write(SOCKET, "", AGENT, 0o644);
    refused(&valid(), &victim, "it is not a socket");
    fs::remove_file(SOCKET).unwrap();
    symlink("/run/docker.sock", SOCKET).unwrap();
    refused(&valid(), &victim, "it is not a socket");
    fs::remove_file(SOCKET).unwrap();
    // A socket of root. The user cannot create one there, and it is refused.
    let roots = UnixListener::bind(SOCKET).unwrap();
    roots.set_nonblocking(true).unwrap();
    refused(&valid(), &roots, "belongs to uid 0, not to the caller, uid 42777");
    drop(roots);

    let own = listen(SOCKET, AGENT);
    for mode in [0o755, 0o701, 0o770, 0o500] {
        fs::set_permissions(directory_of, fs::Permissions::from_mode(mode)).unwrap();
        refused(
            &valid(),
            &own,
            "its directory must have mode 0700 and belong to the caller",
        );
    }
    for owner in [0, OTHER] {
        directory(directory_of, owner, 0o700);
        refused(
            &valid(),
            &own,
            "its directory must have mode 0700 and belong to the caller",
        );
    }
    directory(directory_of, AGENT, 0o700);
    fs::rename(directory_of, "/tmp/elsewhere").unwrap();
    symlink("/tmp/elsewhere", directory_of).unwrap();
    refused(
        &valid(),
        &own,
        "its directory must have mode 0700 and belong to the caller",
    );
    fs::remove_file(directory_of).unwrap();
    fs::rename("/tmp/elsewhere", directory_of).unwrap();
    fs::set_permissions("/tmp", fs::Permissions::from_mode(0o755)).unwrap();
    chown("/tmp", Some(AGENT), None).unwrap();
    refused(&valid(), &own, "/tmp is not a directory that belongs to root");
    chown("/tmp", Some(0), None).unwrap();
    let output = run_to_end(&mut privsep(valid()));
    assert!(output.status.success(), "{}", stderr(&output));
}

/// A direct call as root, with the variable that sudo sets.
pub fn as_sudo(uid: u32, arguments: &[String]) -> Command {
    let mut command = Command::new("/usr/local/bin/obgp-runtime");
    command
        .env_clear()
        .env("SUDO_UID", uid.to_string())
        .arg("privsep")
        .args(arguments);
    command
}

#[test]
fn other_callers_are_refused() {
    let Some(_world) = world() else { return };
    let listener = listen(SOCKET, AGENT);
    let mut itself = user(AGENT, "obgp-runtime");
    itself.env("SUDO_UID", AGENT.to_string()).arg("privsep").args(valid());
    refused_by(itself, &listener, "not run as root");
    refused_by(
        as_sudo(OTHER, &valid()),
        &listener,
        "called by uid 42888, not by the agent's user ovn-bgp-agent",
    );
    refused_by(as_sudo(0, &valid()), &listener, "called by uid 0");
    for wrong in ["", "-1", "+42777", " 42777", "42777\n", "0x0", "4295010073"] {
        let mut command = as_sudo(AGENT, &valid());
        command.env("SUDO_UID", wrong);
        refused_by(command, &listener, "not called by sudo");
    }
    let mut command = as_sudo(AGENT, &valid());
    command.env_remove("SUDO_UID");
    refused_by(command, &listener, "not called by sudo");
    // Another user whom sudoers permits the command. The user's own SUDO_UID is ignored.
    let rule = "other ALL = (root) NOPASSWD: /usr/local/bin/obgp-runtime privsep *\n";
    write(
        "/etc/sudoers",
        &(fs::read_to_string("/etc/sudoers").unwrap() + rule),
        0,
        0o440,
    );
    let mut command = user(OTHER, "sudo");
    command
        .env("SUDO_UID", AGENT.to_string())
        .args(["-n", "obgp-runtime", "privsep"])
        .args(valid());
    refused_by(command, &listener, "called by uid 42888");
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    write("/etc/passwd", &passwd, 0, 0o666);
    refused_by(
        as_sudo(AGENT, &valid()),
        &listener,
        "/etc/passwd: \"passwd\" has mode 0666",
    );
    let without: Vec<&str> = passwd
        .lines()
        .filter(|line| !line.starts_with("ovn-bgp-agent"))
        .collect();
    write("/etc/passwd", &without.join("\n"), 0, 0o644);
    refused_by(as_sudo(AGENT, &valid()), &listener, "has no user ovn-bgp-agent");
}

#[test]
fn a_helper_that_others_can_change_is_refused() {
    let Some(_world) = world() else { return };
    let listener = listen(SOCKET, AGENT);
    fs::set_permissions("/usr/local/bin/privsep-helper", fs::Permissions::from_mode(0o775)).unwrap();
    refused(&valid(), &listener, "\"privsep-helper\" has mode 0775");
    fs::remove_file("/usr/local/bin/privsep-helper").unwrap();
    refused(&valid(), &listener, "cannot open \"privsep-helper\"");
}

/// Variables that change the behaviour of Python, the dynamic loader or oslo.config, set for sudo and, as if sudo had passed them, for
/// the program itself.
#[test]
fn the_environment_has_no_effect() {
    let Some(_world) = world() else { return };
    let listener = listen(SOCKET, AGENT);
    directory("/tmp/evil", AGENT, 0o755);
    let code = format!("open({PROOF:?}, 'w')\n");
    for module in ["sitecustomize.py", "usercustomize.py", "oslo_config.py", "startup.py"] {
        write(format!("/tmp/evil/{module}"), &code, AGENT, 0o644);
    }
    evil(EVIL, AGENT);
    let hostile = [
        ("PYTHONPATH", "/tmp/evil"),
        ("PYTHONHOME", "/tmp/evil"),
        ("PYTHONSTARTUP", "/tmp/evil/startup.py"),
        ("PYTHONUSERBASE", "/tmp/evil"),
        ("PYTHONINSPECT", "1"),
        ("PYTHONWARNINGS", "error::startup.X"),
        ("PYTHONEXECUTABLE", "/tmp/evil/x"),
        ("LD_PRELOAD", "/tmp/evil/x.so"),
        ("LD_LIBRARY_PATH", "/tmp/evil"),
        ("HOME", "/tmp/evil"),
        ("PATH", "/tmp/evil:/usr/bin:/bin"),
        ("TMPDIR", "/tmp/evil"),
        ("IFS", "/"),
        ("OS_DEFAULT__LOG_CONFIG_APPEND", "/tmp/evil.ini"),
        ("OS_PRIVSEP_VTYSH__USER", "nobody"),
        ("SNAP", "/tmp/evil"),
        ("GCONV_PATH", "/tmp/evil"),
        ("BASH_ENV", "/tmp/evil/startup.py"),
        ("XDG_CONFIG_HOME", "/tmp/evil"),
    ];
    let mut control = Command::new("/usr/local/bin/privsep-helper");
    control
        .env("OS_DEFAULT__LOG_CONFIG_APPEND", "/tmp/evil.ini")
        .arg("--privsep_context")
        .arg(CONTEXT);
    control
        .args(["--privsep_sock_path", SOCKET])
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(Path::new(PROOF).exists(), "these variables have no effect");
    fs::remove_file(PROOF).unwrap();
    while listener.accept().is_ok() {}

    for (name, mut command) in [("sudo", privsep(valid())), ("itself", as_sudo(AGENT, &valid()))] {
        command.envs(hostile).current_dir("/tmp/evil");
        let output = run_to_end(&mut command);
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        let (stream, _) = listener.accept().unwrap();
        assert!(!Path::new(PROOF).exists(), "{name}");
        drop(stream);
    }
}
