//! Names the process that holds the lock of a directory, from the kernel's lists (proc_locks(5), proc_pid_stat(5)).

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{major, minor};

/// Ticks per second in the kernel's interface, on every architecture that Linux has today.
const USER_HZ: u64 = 100;

/// Longest part of a command line in the text.
const COMMAND: usize = 120;

/// `process 1234 (obgp-build --distro all), which started 312 s ago`; without the lists, `another process`.
pub fn describe(directory: &File) -> String {
    let another = || "another process".to_string();
    let Some(pid) = pid(directory) else {
        return another();
    };
    // The process may have ended and left the lock to a child.
    let Ok(command) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
        return another();
    };
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let command: String = command
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(COMMAND)
        .collect();
    match age(pid) {
        Some(seconds) => format!("process {pid} ({command}), which started {seconds} s ago"),
        None => format!("process {pid} ({command})"),
    }
}

fn pid(directory: &File) -> Option<u32> {
    let metadata = directory.metadata().ok()?;
    let device = metadata.dev();
    let place = format!("{:02x}:{:02x}:{}", major(device), minor(device), metadata.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    // `1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF`; a waiting process has `->` in the second column.
    let mut holders = locks.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        match columns.as_slice() {
            [_, "FLOCK", _, _, pid, at, ..] if *at == place => pid.parse().ok(),
            _ => None,
        }
    });
    holders.next()
}

/// Seconds since the process started.
fn age(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain spaces. The start is the 22nd column, in ticks since boot.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Some((uptime as u64).saturating_sub(ticks / USER_HZ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::open(dir.path()).unwrap();
        assert_eq!(describe(&file), "another process");
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let text = describe(&file);
        assert!(text.starts_with(&format!("process {} (", std::process::id())), "{text}");
        assert!(text.ends_with(" s ago"), "{text}");
    }
}
