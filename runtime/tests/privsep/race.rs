//! A user who swaps the checked socket with another one.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::refused::as_sudo;
use super::world::{AGENT, SOCKET, directory, listen, run_to_end, valid, world, write};

/// The user repeatedly swaps its own socket and directory with links to another user's. The socket is checked and connected like
/// for the helper: the victim never gets a connection.
#[test]
fn a_race_for_the_socket_never_reaches_another_socket() {
    let Some(_world) = world() else { return };
    let victim = listen("/run/victim/privsep.sock", 0);
    directory("/run/victim", 0, 0o755);
    let own = listen(SOCKET, AGENT);
    let directory_of = Path::new(SOCKET).parent().unwrap();
    let arguments: Vec<OsString> = valid().into_iter().map(OsString::from).collect();
    let request = obgp_runtime::privsep::arguments::parse(&arguments).unwrap();
    symlink("/run/victim", "/tmp/link").unwrap();
    symlink("/run/victim/privsep.sock", format!("{SOCKET}.link")).unwrap();

    let over = AtomicBool::new(false);
    let (mut opened, mut connected, mut refused) = (0, 0, 0);
    std::thread::scope(|scope| {
        let swap = |a: String, b: String| {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    let _ = rustix::fs::renameat_with(rustix::fs::CWD, &a, rustix::fs::CWD, &b, flags);
                }
            })
        };
        swap(directory_of.display().to_string(), "/tmp/link".to_string());
        swap(SOCKET.to_string(), format!("{SOCKET}.link"));
        for _ in 0..20_000 {
            match obgp_runtime::privsep::socket::open(&request.socket, AGENT) {
                Err(_) => refused += 1,
                Ok(socket) => {
                    opened += 1;
                    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&socket));
                    if UnixStream::connect(path).is_ok() {
                        connected += 1;
                        let _ = own.accept();
                    }
                }
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(victim.accept().is_err(), "the victim's socket was connected to");
    assert!(
        opened > 0 && connected == opened && refused > 0,
        "no race: {opened} opened, {connected} connected, {refused} refused"
    );
}

/// The same with 1000 processes. A program that only connects replaces Python, to save time.
#[test]
fn a_race_of_a_thousand_calls_never_reaches_another_socket() {
    let Some(_world) = world() else { return };
    let victim = listen("/run/victim/privsep.sock", 0);
    directory("/run/victim", 0, 0o755);
    let own = listen(SOCKET, AGENT);
    fs::remove_file("/usr/bin/python3").unwrap();
    let connect = "use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un($ARGV[-1])) or exit 1";
    write(
        "/usr/bin/python3",
        &format!("#!/bin/sh\nexec perl -e '{connect}' -- \"$@\"\n"),
        0,
        0o755,
    );
    symlink("/run/victim", "/tmp/link").unwrap();
    let over = AtomicBool::new(false);
    let mut accepted = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let directory_of = Path::new(SOCKET).parent().unwrap();
            while !over.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let _ = rustix::fs::renameat_with(rustix::fs::CWD, directory_of, rustix::fs::CWD, "/tmp/link", flags);
                std::thread::yield_now();
            }
        });
        for _ in 0..1000 {
            let output = run_to_end(&mut as_sudo(AGENT, &valid()));
            if output.status.success() {
                accepted += 1;
                own.accept().unwrap();
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(victim.accept().is_err(), "the victim's socket was connected to");
    assert!(accepted > 0 && accepted < 1000, "no race: {accepted} of 1000 accepted");
}
