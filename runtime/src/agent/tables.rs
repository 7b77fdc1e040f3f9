//! Ensures that rt_tables has a routing table for the provider bridge.
//!
//! The agent looks up the bridge's name in rt_tables and, without an entry, picks a random number. In a container the file may
//! be new at every start, so every start would leave the routes and rules of another table behind. Therefore the table that
//! already holds the agent's default route of the bridge is used again. A new number is free in the file and in the kernel.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteScope;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::agent_options::{AgentOptions, OptionsError};
use crate::files::{self, FileError};
use crate::netlink::Socket;
use crate::netlink::route::{self, Route, RouteFilter};
use crate::rt_tables::{self, Entry};

/// The template for a new file. The agent uses the same.
const SHIPPED: &str = "/usr/share/iproute2/rt_tables";

#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error("cannot list the kernel's routing tables: {0}")]
    Kernel(#[source] io::Error),
    #[error("{source}{}", help(source))]
    File {
        #[from]
        source: FileError,
    },
    #[error("{} gives {interface} table {id}, which is the table of the agent's VRF (bgp_vrf_table_id)\nhelp: give {interface} another number", path.display())]
    IsVrf { path: PathBuf, interface: String, id: u32 },
    #[error("{} has no free number from 1 to 252 for {interface}", path.display())]
    Full { path: PathBuf, interface: String },
}

fn help(error: &FileError) -> &'static str {
    match error {
        FileError::Io { source, .. } if source.kind() == ErrorKind::ReadOnlyFilesystem => {
            "\nhelp: mount a writable directory there: the agent adds bridges to the file"
        }
        _ => "",
    }
}

/// What was done. Displayed as a log line.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Found {
        interface: String,
        id: u32,
    },
    /// The table in the kernel is used again.
    Restored {
        interface: String,
        id: u32,
    },
    Added {
        interface: String,
        id: u32,
    },
    /// The file belongs to root. The agent's root helper adds the bridge.
    LeftToAgent {
        interface: String,
        why: String,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { interface, id } => write!(f, "{interface} has routing table {id}"),
            Self::Restored { interface, id } => {
                write!(f, "{interface} keeps routing table {id}, which it has in the kernel")
            }
            Self::Added { interface, id } => write!(f, "{interface} now has routing table {id}"),
            Self::LeftToAgent { interface, why } => {
                write!(f, "the agent will add a routing table for {interface} itself: {why}")
            }
        }
    }
}

/// Adds the bridge to the file unless it has an entry.
pub fn ensure(path: &Path, interface: &str, options: &AgentOptions) -> Result<Outcome, TableError> {
    let vrf = options.vrf_table()?;
    let kernel = KernelTables::read(interface).map_err(TableError::Kernel)?;
    let outcome = ensure_in(path, interface, vrf, &kernel);
    let interface = interface.to_string();
    match outcome {
        Err(TableError::File { source: error })
            if matches!(&error, FileError::Io { source, .. }
                if source.kind() == ErrorKind::PermissionDenied || !options.has_bridge_tables()) =>
        {
            let why = error.to_string();
            Ok(Outcome::LeftToAgent { interface, why })
        }
        outcome => outcome,
    }
}

fn ensure_in(path: &Path, interface: &str, vrf: u32, kernel: &KernelTables) -> Result<Outcome, TableError> {
    let failed = |doing| {
        move |source| FileError::Io {
            doing,
            path: path.to_path_buf(),
            source,
        }
    };
    // Read before it is opened for writing: a file that has the bridge may be read-only.
    let text = match File::open(path) {
        Ok(file) => Some(read(&file, path)?),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(failed("read")(error).into()),
    };
    let name = interface.to_string();
    if let Some(entry) = text
        .as_deref()
        .and_then(|text| rt_tables::find(&rt_tables::parse(text), interface).cloned())
    {
        return found(entry, path, vrf);
    }
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
        .map_err(failed("add to"))?;
    // Without a lock, two of these programs could choose the same number.
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| failed("lock")(error.into()))?;
    let text = read(&file, path)?;
    let mut addition = String::new();
    if text.is_empty() {
        addition = std::fs::read_to_string(SHIPPED).unwrap_or_else(|_| rt_tables::STANDARD.to_string());
    }
    let entries = rt_tables::parse(&format!("{text}{addition}"));
    if let Some(entry) = rt_tables::find(&entries, interface).cloned() {
        return found(entry, path, vrf);
    }
    let mut taken = kernel.taken.clone();
    taken.insert(vrf);
    let reusable = |id: &u32| {
        rt_tables::RANGE.contains(id)
            && *id != vrf
            && *id != rt_tables::DEFAULT_VRF_TABLE
            && entries.iter().all(|entry| entry.id != *id)
    };
    let (id, outcome) = match kernel.interface_table.filter(reusable) {
        Some(id) => (id, Outcome::Restored { interface: name, id }),
        None => {
            let id = free(&entries, taken).map_err(TableError::Kernel)?;
            let id = id.ok_or_else(|| TableError::Full {
                path: path.to_path_buf(),
                interface: name.clone(),
            })?;
            (id, Outcome::Added { interface: name, id })
        }
    };
    addition = format!(
        "{addition}{}",
        rt_tables::addition(&format!("{text}{addition}"), id, interface)
    );
    // One write, so that no reader sees half a line.
    file.write_all(addition.as_bytes()).map_err(failed("add to"))?;
    Ok(outcome)
}

fn found(entry: Entry, path: &Path, vrf: u32) -> Result<Outcome, TableError> {
    let Entry {
        id, name: interface, ..
    } = entry;
    match id == vrf {
        true => Err(TableError::IsVrf {
            path: path.to_path_buf(),
            interface,
            id,
        }),
        false => Ok(Outcome::Found { interface, id }),
    }
}

fn read(file: &File, path: &Path) -> Result<String, FileError> {
    let content = files::read_limited(file, path, rt_tables::MAX_SIZE)?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// A free number whose table is also empty in the kernel: a table may have routes but no rule and no VRF.
fn free(entries: &[Entry], mut taken: BTreeSet<u32>) -> io::Result<Option<u32>> {
    while let Some(id) = rt_tables::free(entries, &taken) {
        if is_empty(id)? {
            return Ok(Some(id));
        }
        taken.insert(id);
    }
    Ok(None)
}

/// The routing tables that the kernel uses.
#[derive(Debug, Default)]
struct KernelTables {
    /// The tables that rules and VRFs refer to.
    taken: BTreeSet<u32>,
    /// The table with an on-link default route through the interface, as the agent adds it. `None` if there are several.
    interface_table: Option<u32>,
}

impl KernelTables {
    fn read(interface: &str) -> io::Result<Self> {
        let mut kernel = Self::default();
        let mut netlink = Socket::open(NETLINK_ROUTE)?.skip_unparsed();
        let links = netlink.dump(&route::links(), Some)?;
        kernel.taken.extend(links.iter().filter_map(|link| link.table));
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let tables = netlink.dump(&route::rules(family), |rule| Some(rule.table))?;
            kernel.taken.extend(tables);
        }
        if let Some(link) = links.iter().find(|link| link.name == interface) {
            let filter = RouteFilter::Interface(link.index);
            let tables: BTreeSet<u32> = routes(AddressFamily::Inet, filter, |route| {
                let default = route.prefix_length == 0 && route.scope == RouteScope::Link;
                Some(route.table).filter(|id| default && rt_tables::RANGE.contains(id))
            })?
            .into_iter()
            .collect();
            kernel.interface_table = tables.first().copied().filter(|_| tables.len() == 1);
        }
        Ok(kernel)
    }
}

fn is_empty(id: u32) -> io::Result<bool> {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        match routes(family, RouteFilter::Table(id), |route| {
            (route.table == id).then_some(())
        }) {
            // The table does not exist yet.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(routes) if routes.is_empty() => {}
            Ok(_) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Collects what `keep` returns for the routes that match. The kernel filters, so that a full table is not transferred.
fn routes<T>(family: AddressFamily, filter: RouteFilter, keep: impl FnMut(Route) -> Option<T>) -> io::Result<Vec<T>> {
    let mut netlink = Socket::open(NETLINK_ROUTE)?.skip_unparsed().strict()?;
    netlink.dump(&route::routes(family, Some(filter)), keep)
}

#[cfg(test)]
mod tests;
