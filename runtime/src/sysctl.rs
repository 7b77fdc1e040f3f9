//! `sysctl` for the agent: reads the keys of `net.`, and writes those that the agent needs.
//!
//! `/proc/sys` is read-only in an unprivileged container. A key is then written through the node's `/proc/sys/net`, mounted at
//! [`way::MOUNT`]: the kernel gives whoever opens a file there the sysctls of its own network namespace. A key that already has
//! its value is not written.
//!
//! Options, output and the reading of names are those of procps's sysctl(8). Exit status: 0 when every key was read or has its
//! value, otherwise 1 (2 for a wrong command line).

mod key;
pub mod way;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use key::{Key, KeyError};
use way::Access;

const USAGE: &str = "Usage: sysctl [-n] [-e] KEY... | sysctl -w [-n] [-q] KEY=VALUE...\n\n\
    -w  every argument is KEY=VALUE and is written\n\
    -n  print values without their keys\n\
    -q  print nothing about values that were written\n\
    -e  ignore keys that do not exist\n\n\
    Writable: net.ipv4.ip_forward, net.ipv4.conf.DEVICE.{forwarding,proxy_arp,rp_filter},\n\
    net.ipv6.conf.DEVICE.{forwarding,proxy_ndp}; values 0, 1 and 2.\n\
    /usr/sbin/sysctl is the distribution's.\n";

#[derive(Debug, Default)]
struct Args {
    write: bool,
    /// Values without their keys.
    values: bool,
    quiet: bool,
    /// A key that does not exist is not an error.
    ignore: bool,
    settings: Vec<String>,
}

impl Args {
    /// By hand: clap's types for one more command line cost some kilobytes, of which the contract has few left. Else the
    /// argument that is not understood.
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
    #[error("setting key {0:?}: {1:?} is not a value that the agent sets\nhelp: use 0, 1 or 2")]
    Value(Key, String),
    #[error(
        "setting key {0:?}: the agent does not need it\nhelp: /usr/sbin/sysctl writes other keys where /proc/sys is writable"
    )]
    NotWritable(Key),
    #[error("cannot stat {}: No such file or directory", .0.display())]
    Absent(std::path::PathBuf),
    #[error("permission denied on key {key:?}: {access}\nhelp: {}", access.help())]
    Denied { key: Key, access: Access },
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
    // As procps: a key that fails does not keep the next from being written.
    for setting in &args.settings {
        match one(&args, setting) {
            Err(SysctlError::Absent(_)) if args.ignore => {}
            Err(error) => {
                eprintln!("sysctl: {error}");
                code = ExitCode::FAILURE;
            }
            Ok(Some(line)) => {
                // The value is written, whether or not anybody reads about it.
                let _ = writeln!(io::stdout(), "{line}");
            }
            Ok(None) => {}
        }
    }
    code
}

/// The line to print.
fn one(args: &Args, setting: &str) -> Result<Option<String>, SysctlError> {
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
    way::read(key.below_net()).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => SysctlError::Absent(key.path()),
        _ => SysctlError::Io {
            doing: "reading",
            key: key.clone(),
            source,
        },
    })
}

fn write(key: &Key, value: &str) -> Result<(), SysctlError> {
    if !key.is_agents() {
        return Err(SysctlError::NotWritable(key.clone()));
    }
    if !matches!(value, "0" | "1" | "2") {
        return Err(SysctlError::Value(key.clone(), value.to_string()));
    }
    if read(key)? == value {
        return Ok(());
    }
    match way::write(key.below_net(), value) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(access)) => Err(SysctlError::Denied {
            key: key.clone(),
            access,
        }),
        Err(source) => Err(SysctlError::Io {
            doing: "setting",
            key: key.clone(),
            source,
        }),
    }
}
