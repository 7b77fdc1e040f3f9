//! Replies in chunks, and misbehaving daemons on a real socket.

use std::os::unix::net::UnixListener;
use std::thread;

use proptest::prelude::*;

use super::*;

fn all_at_once(bytes: &[u8]) -> Result<Option<Reply>, Malformed> {
    ReplyBuffer::default().push(bytes)
}

#[test]
fn a_reply_is_text_three_nuls_and_a_status() {
    let done = all_at_once(b"text\n\0\0\0\0").unwrap().unwrap();
    assert_eq!((done.text.as_str(), done.status), ("text\n", 0));
    assert!(done.is_accepted() && !done.is_unknown());
    let unknown = all_at_once(b"\0\0\0\x02").unwrap().unwrap();
    assert_eq!((unknown.text.as_str(), unknown.status), ("", 2));
    assert!(unknown.is_unknown());
    assert_eq!(all_at_once(b"text\0\0\0"), Ok(None));
    assert_eq!(all_at_once(b"te\0xt\0\0\0\0"), Err(Malformed::Nul));
    assert_eq!(all_at_once(b"text\0\0\0\0more"), Err(Malformed::Trailing));
    let locked = all_at_once(b"% command failed, could not lock candidate DS\n\0\0\0\xff")
        .unwrap()
        .unwrap();
    assert!(locked.is_locked());
}

#[test]
fn the_length_of_a_text_is_limited() {
    let mut buffer = ReplyBuffer::default();
    assert_eq!(buffer.push(&vec![b'x'; LIMIT]), Ok(None));
    assert_eq!(buffer.push(b"x"), Err(Malformed::TooLong));
    let mut buffer = ReplyBuffer::default();
    let mut whole = vec![b'x'; LIMIT + 1];
    whole.extend_from_slice(b"\0\0\0\0");
    assert_eq!(buffer.push(&whole), Err(Malformed::TooLong));
}

proptest! {
    #[test]
    fn a_reply_may_arrive_in_any_chunks(text in "[^\0]{0,200}", status: u8, cuts in prop::collection::vec(1usize..40, 0..20)) {
        let mut bytes = text.clone().into_bytes();
        bytes.extend_from_slice(&[0, 0, 0, status]);
        let mut buffer = ReplyBuffer::default();
        let mut rest = bytes.as_slice();
        for cut in cuts {
            if cut >= rest.len() {
                break;
            }
            let (piece, left) = rest.split_at(cut);
            prop_assert_eq!(buffer.push(piece), Ok(None));
            rest = left;
        }
        prop_assert_eq!(buffer.push(rest), Ok(Some(Reply { text, status })));
    }

    #[test]
    fn any_bytes_are_parsed_without_a_panic(pieces in prop::collection::vec(prop::collection::vec(0u8..4, 0..12), 0..12)) {
        let mut buffer = ReplyBuffer::default();
        for piece in pieces {
            match buffer.push(&piece) {
                Ok(None) => {}
                Ok(Some(reply)) => {
                    prop_assert!(!reply.text.contains('\0'));
                    break;
                }
                Err(_) => break,
            }
        }
    }
}

/// Serves one connection with `serve`.
fn daemon(serve: impl FnOnce(UnixStream) + Send + 'static) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("zebra.vty")).unwrap();
    thread::spawn(move || serve(listener.accept().unwrap().0));
    directory
}

fn show_version(directory: &tempfile::TempDir) -> Result<Reply, VtyError> {
    Connection::open(directory.path(), "zebra", Duration::from_millis(300))?.execute("show version")
}

fn read_request(stream: &mut UnixStream) -> Vec<u8> {
    let mut request = vec![0; 64];
    let read = stream.read(&mut request).unwrap();
    request.truncate(read);
    request
}

#[test]
fn a_line_is_sent_with_a_nul_and_its_reply_is_read_in_chunks() {
    let directory = daemon(|mut stream| {
        assert_eq!(read_request(&mut stream), b"show version\0");
        for piece in [&b"FRR"[..], b"outing\n\0", b"\0\0", b"\0"] {
            stream.write_all(piece).unwrap();
            thread::sleep(Duration::from_millis(10));
        }
    });
    assert_eq!(show_version(&directory).unwrap().text, "FRRouting\n");
}

#[test]
fn a_daemon_that_hangs_disconnects_or_sends_too_much_is_an_error() {
    let silent = daemon(|mut stream| {
        read_request(&mut stream);
        thread::sleep(Duration::from_secs(2));
    });
    assert!(matches!(show_version(&silent), Err(VtyError::Timeout { .. })));

    // Single bytes do not extend the timeout.
    let slow = daemon(|mut stream| {
        while stream.write_all(b".").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    let begin = Instant::now();
    assert!(matches!(show_version(&slow), Err(VtyError::Timeout { .. })));
    assert!(begin.elapsed() < Duration::from_secs(2));

    let closed = daemon(|mut stream| {
        read_request(&mut stream);
    });
    assert!(matches!(show_version(&closed), Err(VtyError::Closed { .. })));

    let flooding = daemon(|mut stream| {
        let _ = stream.write_all(&vec![b'x'; LIMIT + (1 << 16)]);
    });
    assert!(matches!(
        show_version(&flooding),
        Err(VtyError::Malformed { .. }) | Err(VtyError::Timeout { .. })
    ));
}

#[test]
fn a_locked_configuration_is_retried() {
    let directory = daemon(|mut stream| {
        for answer in [&b"could not lock\0\0\0\xff"[..], b"\0\0\0\0"] {
            read_request(&mut stream);
            stream.write_all(answer).unwrap();
        }
    });
    assert_eq!(show_version(&directory).unwrap().status, 0);
}

#[test]
fn a_daemon_that_is_not_running_is_distinguished_from_other_errors() {
    let directory = tempfile::tempdir().unwrap();
    assert!(show_version(&directory).unwrap_err().is_not_running());
    // A socket without a listener.
    drop(UnixListener::bind(directory.path().join("zebra.vty")).unwrap());
    assert!(show_version(&directory).unwrap_err().is_not_running());
    std::fs::remove_file(directory.path().join("zebra.vty")).unwrap();
    std::fs::write(directory.path().join("zebra.vty"), "").unwrap();
    assert!(
        show_version(&directory)
            .unwrap_err()
            .to_string()
            .contains("zebra cannot be reached at")
    );

    // A daemon that does not accept: its queue of two is full, and the connection attempt times out.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zebra.vty");
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&socket, 1).unwrap();
    let open = || Connection::open(directory.path(), "zebra", Duration::from_millis(200));
    let outcomes: Vec<_> = (0..4).map(|_| open()).collect();
    let error = outcomes.into_iter().find_map(Result::err).unwrap();
    assert!(!error.is_not_running(), "{error}");
}

#[test]
fn lines_that_frr_would_truncate_are_not_sent() {
    let directory = daemon(|mut stream| {
        let _ = stream.read(&mut [0; 8]);
    });
    let mut connection = Connection::open(directory.path(), "zebra", Duration::from_millis(300)).unwrap();
    for line in ["x".repeat(MAX_LINE + 1), "a\0b".to_string()] {
        assert!(matches!(connection.execute(&line), Err(VtyError::Line { .. })));
    }
}

#[test]
fn daemons_are_listed_in_the_order_of_vtysh() {
    let directory = tempfile::tempdir().unwrap();
    for name in [
        "staticd.vty",
        "bgpd.vty",
        "zebra.vty",
        "mgmtd.vty",
        "watchfrr.vty",
        "zebra.pid",
        "zserv.api",
        "newd.vty",
    ] {
        std::fs::write(directory.path().join(name), "").unwrap();
    }
    assert_eq!(
        daemons(directory.path()).unwrap(),
        ["mgmtd", "zebra", "bgpd", "staticd", "newd"]
    );
    assert!(matches!(
        daemons(&directory.path().join("none")),
        Err(VtyError::Directory { .. })
    ));
}
