//! `sysctl` for the agent: reads the keys below `net.` and writes those that the agent needs.
//!
//! `/proc/sys` is read-only in an unprivileged container. A key is then written through the node's `/proc/sys/net`, mounted at
//! [`access::MOUNT`]: the kernel gives each process that opens a file there the sysctls of the process's own network namespace. A
//! key that already has the value is not written.
//!
//! Options, output and the syntax of names are those of procps's sysctl(8). Exit status: 0 if every key was read or has its
//! value, otherwise 1 (2 for a wrong command line).

pub mod access;
mod key;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use access::NotWritable;
use key::{Key, KeyError};

const USAGE: &str = "Usage: sysctl [-n] [-e] KEY... | sysctl -w [-n] [-q] KEY=VALUE...\n\n\
    -w  every argument is KEY=VALUE and is written\n\
    -n  print values without their keys\n\
    -q  do not print written values\n\
    -e  ignore keys that do not exist\n\n\
    Writable: net.ipv4.ip_forward, net.ipv4.conf.DEVICE.{forwarding,proxy_arp,rp_filter},\n\
    net.ipv6.conf.DEVICE.{forwarding,proxy_ndp}; values 0, 1 and 2.\n\
    /usr/sbin/sysctl is the distribution's sysctl.\n";

#[derive(Debug, Default)]
struct Args {
    write: bool,
    /// Print values without their keys.
    values: bool,
    quiet: bool,
    /// Ignore keys that do not exist.
    ignore: bool,
    settings: Vec<String>,
}

impl Args {
    /// The error is the unknown argument. Without clap, whose types for another command line would add some kilobytes to the program,
    /// which has a size limit.
    fn parse(arguments: &[OsString]) -> Result<Self, String> {
        let mut args = Self::default();
        for argument in arguments {
            let text = argument
                .to_str()
                .ok_or_else(|| argument.to_string_lossy().into_owned())?;
            match text.strip_prefix('-') {
                None => args.settings.push(text.to_string()),
                Some("-write") => args.write = true,
                Some("-values") => args.values = true,
                Some("-quiet") => args.quiet = true,
                Some("-ignore") => args.ignore = true,
                Some("") => return Err(text.to_string()),
                Some(letters) => {
                    for letter in letters.chars() {
                        match letter {
                            'w' => args.write = true,
                            'n' => args.values = true,
                            'q' => args.quiet = true,
                            'e' => args.ignore = true,
                            _ => return Err(text.to_string()),
                        }
                    }
                }
            }
        }
        Ok(args)
    }
}

#[derive(Debug, thiserror::Error)]
enum SysctlError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("{0:?} must be KEY=VALUE")]
    NoValue(String),
    #[error("setting key {0:?}: the value {1:?} is not allowed\nhelp: use 0, 1 or 2")]
    Value(Key, String),
    #[error(
        "setting key {0:?}: the agent does not need it\nhelp: use /usr/sbin/sysctl, which writes any key if /proc/sys is writable"
    )]
    NotAllowed(Key),
    #[error("cannot stat {}: No such file or directory", .0.display())]
    Absent(std::path::PathBuf),
    #[error("permission denied on key {key:?}: {reason}\nhelp: {}", reason.help())]
    Denied { key: Key, reason: NotWritable },
    #[error("{doing} key {key:?}: {source}")]
    Io {
        doing: &'static str,
        key: Key,
        source: io::Error,
    },
}

pub fn main(arguments: &[OsString]) -> ExitCode {
    let args = match Args::parse(arguments.get(1..).unwrap_or_default()) {
        Ok(args) if !args.settings.is_empty() => args,
        Err(help) if help == "-h" || help == "--help" => {
            let _ = io::stdout().write_all(USAGE.as_bytes());
            return ExitCode::SUCCESS;
        }
        wrong => {
            let what = wrong.map_or_else(
                |argument| format!("unknown argument {argument:?}"),
                |_| "a key is missing".into(),
            );
            eprintln!("sysctl: {what}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut code = ExitCode::SUCCESS;
    // Like procps, continue after a key that fails.
    for setting in &args.settings {
        match process(&args, setting) {
            Err(SysctlError::Absent(_)) if args.ignore => {}
            Err(error) => {
                eprintln!("sysctl: {error}");
                code = ExitCode::FAILURE;
            }
            Ok(Some(line)) => {
                // A closed stdout must not turn a successful write into a failure.
                let _ = writeln!(io::stdout(), "{line}");
            }
            Ok(None) => {}
        }
    }
    code
}

/// Reads or writes one key. Returns the line to print.
fn process(args: &Args, setting: &str) -> Result<Option<String>, SysctlError> {
    let line = |key: &Key, value: &dyn fmt::Display| match args.values {
        true => value.to_string(),
        false => format!("{key} = {value}"),
    };
    match setting.split_once('=') {
        None if args.write => Err(SysctlError::NoValue(setting.to_string())),
        None => {
            let key = Key::parse(setting)?;
            let value = read(&key)?;
            Ok(Some(line(&key, &value)))
        }
        Some((name, value)) => {
            let (key, value) = (Key::parse(name.trim_end())?, value.trim_start());
            write(&key, value)?;
            Ok((!args.quiet).then(|| line(&key, &value)))
        }
    }
}

fn read(key: &Key) -> Result<String, SysctlError> {
    access::read(key.below_net()).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => SysctlError::Absent(key.path()),
        _ => SysctlError::Io {
            doing: "reading",
            key: key.clone(),
            source,
        },
    })
}

fn write(key: &Key, value: &str) -> Result<(), SysctlError> {
    if !key.is_needed_by_agent() {
        return Err(SysctlError::NotAllowed(key.clone()));
    }
    if !matches!(value, "0" | "1" | "2") {
        return Err(SysctlError::Value(key.clone(), value.to_string()));
    }
    if read(key)? == value {
        return Ok(());
    }
    match access::write(key.below_net(), value) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(reason)) => Err(SysctlError::Denied {
            key: key.clone(),
            reason,
        }),
        Err(source) => Err(SysctlError::Io {
            doing: "setting",
            key: key.clone(),
            source,
        }),
    }
}
