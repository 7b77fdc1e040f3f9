//! Refused configuration: files, links and directories that other users than root can change.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::process::Command;

use super::refused::{EVIL, PROOF, as_sudo, evil, refused, refused_by, with};
use super::world::{
    AGENT, CONFIG, NODE_CONFIG, SOCKET, directory, listen, privsep, run_to_end, stderr, valid, world, write,
};

/// The arguments of a call with `--config-dir`.
fn conf_d(path: &str) -> Vec<String> {
    let mut arguments = with(1, path);
    arguments[0] = "--config-dir".to_string();
    arguments
}

#[test]
fn a_file_that_the_agent_may_write_is_not_read() {
    let Some(_world) = world() else { return };
    let listener = listen(SOCKET, AGENT);
    evil(NODE_CONFIG, AGENT);
    let output = run_to_end(&mut privsep(valid()));
    assert!(output.status.success(), "{}", stderr(&output));
    listener.accept().unwrap();
    assert!(!Path::new(PROOF).exists());
}

#[test]
fn files_that_other_users_can_change_are_refused() {
    let Some(_world) = world() else { return };
    let listener = listen(SOCKET, AGENT);
    evil("/etc/ovn-bgp-agent/a.conf", AGENT);
    refused(
        &with(1, "/etc/ovn-bgp-agent/a.conf"),
        &listener,
        "belongs to uid 42777, not to root",
    );
    refused(
        &conf_d("/etc/ovn-bgp-agent"),
        &listener,
        "/etc/ovn-bgp-agent/a.conf: \"a.conf\" belongs to uid 42777",
    );
    fs::remove_file("/etc/ovn-bgp-agent/a.conf").unwrap();

    write("/etc/ovn-bgp-agent/b.conf", "", 0, 0o666);
    refused(
        &with(1, "/etc/ovn-bgp-agent/b.conf"),
        &listener,
        "\"b.conf\" has mode 0666",
    );
    write("/etc/ovn-bgp-agent/b.conf", "", 0, 0o664);
    chown("/etc/ovn-bgp-agent/b.conf", None, Some(AGENT)).unwrap();
    refused(
        &with(1, "/etc/ovn-bgp-agent/b.conf"),
        &listener,
        "\"b.conf\" has mode 0664",
    );
    fs::remove_file("/etc/ovn-bgp-agent/b.conf").unwrap();

    // A hard link to the user's file belongs to the user.
    evil("/etc/ovn-bgp-agent/.e", AGENT);
    fs::hard_link("/etc/ovn-bgp-agent/.e", "/etc/ovn-bgp-agent/e.conf").unwrap();
    refused(&with(1, "/etc/ovn-bgp-agent/e.conf"), &listener, "belongs to uid 42777");
    fs::remove_file("/etc/ovn-bgp-agent/e.conf").unwrap();
}

#[test]
fn links_of_the_user_and_links_to_other_directories_are_refused() {
    let Some(_world) = world() else { return };
    let listener = listen(SOCKET, AGENT);
    evil(EVIL, AGENT);
    symlink(EVIL, "/etc/ovn-bgp-agent/c.conf").unwrap();
    refused(
        &with(1, "/etc/ovn-bgp-agent/c.conf"),
        &listener,
        "is a link to \"/tmp/evil.conf\"",
    );
    fs::remove_file("/etc/ovn-bgp-agent/c.conf").unwrap();
    symlink("../../tmp/evil.conf", "/etc/ovn-bgp-agent/c.conf").unwrap();
    refused(
        &with(1, "/etc/ovn-bgp-agent/c.conf"),
        &listener,
        "which is not below the directory of the link",
    );
    fs::remove_file("/etc/ovn-bgp-agent/c.conf").unwrap();
    symlink("ovn-bgp-agent.conf", "/etc/ovn-bgp-agent/c.conf").unwrap();
    rustix::fs::chownat(
        rustix::fs::CWD,
        "/etc/ovn-bgp-agent/c.conf",
        Some(rustix::fs::Uid::from_raw(AGENT)),
        None,
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
    refused(
        &with(1, "/etc/ovn-bgp-agent/c.conf"),
        &listener,
        "\"c.conf\" belongs to uid 42777",
    );
    fs::remove_file("/etc/ovn-bgp-agent/c.conf").unwrap();
    symlink("d.conf", "/etc/ovn-bgp-agent/d.conf").unwrap();
    refused(&with(1, "/etc/ovn-bgp-agent/d.conf"), &listener, "more than 8 links");
    fs::remove_file("/etc/ovn-bgp-agent/d.conf").unwrap();
}

#[test]
fn missing_files_and_wrong_kinds_are_refused() {
    let Some(_world) = world() else { return };
    let listener = listen(SOCKET, AGENT);
    refused(
        &with(1, "/etc/ovn-bgp-agent/nothing.conf"),
        &listener,
        "cannot open \"nothing.conf\"",
    );
    refused(
        &with(1, "/etc/ovn-bgp-agent/ovn-bgp-agent.conf/x"),
        &listener,
        "is not a directory",
    );
    directory("/etc/ovn-bgp-agent/conf.d", 0, 0o755);
    refused(&with(1, "/etc/ovn-bgp-agent/conf.d"), &listener, "is not a file");
    refused(&conf_d(CONFIG), &listener, "is not a directory");
    let made = Command::new("mkfifo")
        .arg("/etc/ovn-bgp-agent/f.conf")
        .status()
        .unwrap();
    assert!(made.success());
    refused(
        &with(1, "/etc/ovn-bgp-agent/f.conf"),
        &listener,
        "is not a file or directory",
    );
    fs::remove_file("/etc/ovn-bgp-agent/f.conf").unwrap();
}

#[test]
fn directories_that_other_users_can_change_are_refused() {
    let Some(_world) = world() else { return };
    let listener = listen(SOCKET, AGENT);
    directory("/etc/ovn-bgp-agent/conf.d", AGENT, 0o755);
    refused(
        &conf_d("/etc/ovn-bgp-agent/conf.d"),
        &listener,
        "\"conf.d\" belongs to uid 42777",
    );
    directory("/etc/ovn-bgp-agent/conf.d", 0, 0o1777);
    refused(
        &conf_d("/etc/ovn-bgp-agent/conf.d"),
        &listener,
        "\"conf.d\" has mode 1777",
    );
    directory("/etc/ovn-bgp-agent", AGENT, 0o755);
    refused(&valid(), &listener, "\"ovn-bgp-agent\" belongs to uid 42777");
    directory("/etc/ovn-bgp-agent", 0, 0o775);
    refused(&valid(), &listener, "\"ovn-bgp-agent\" has mode 0775");
    directory("/etc/ovn-bgp-agent", 0, 0o755);
    directory("/etc", 0, 0o757);
    let sudo_less = as_sudo(AGENT, &valid());
    refused_by(sudo_less, &listener, "\"etc\" has mode 0757");
}
