//! The routing table of the provider bridge: found in rt_tables or in the kernel, or a free one is given to it.
//!
//! The agent looks for a table with the bridge's name in rt_tables, and makes one of a random number when there is none. In a
//! container the file may be new at every start, and each start would leave the routes and rules of another table behind. So the
//! table that holds the bridge's default route, as the agent made it, is taken again; a new one is free in the file and in the
//! kernel.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteScope};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::options::{Options, OptionsError};
use crate::netlink::dump;
use crate::netlink::route::{Message, Of, Request};
use crate::rt_tables::{self, Entry};

/// Where the agent, too, takes the file from when there is none.
const SHIPPED: &str = "/usr/share/iproute2/rt_tables";

#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error("the kernel's routing tables cannot be listed: {0}")]
    Kernel(#[source] io::Error),
    #[error("cannot {doing} {}: {source}{}", path.display(), advice(source))]
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is larger than {} bytes", .0.display(), rt_tables::MAX_SIZE)]
    Size(PathBuf),
    #[error("{} gives {interface} table {id}, which is that of the agent's VRF (bgp_vrf_table_id): give it another number", path.display())]
    IsVrf { path: PathBuf, interface: String, id: u32 },
    #[error("{} has no number left from 1 to 252 for {interface}", path.display())]
    Full { path: PathBuf, interface: String },
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::ReadOnlyFilesystem => " (mount a writable directory there: the agent adds bridges to it)",
        _ => "",
    }
}

/// What was done about the table; as text, a line for the log.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Found {
        interface: String,
        id: u32,
    },
    Again {
        interface: String,
        id: u32,
    },
    Added {
        interface: String,
        id: u32,
    },
    /// The file is root's; the agent's root helper adds the bridge.
    Left {
        interface: String,
        why: String,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { interface, id } => write!(f, "{interface} has routing table {id}"),
            Self::Again { interface, id } => write!(f, "{interface} has routing table {id} again, as in the kernel"),
            Self::Added { interface, id } => write!(f, "{interface} now has routing table {id}"),
            Self::Left { interface, why } => write!(f, "the agent itself will give {interface} a routing table: {why}"),
        }
    }
}

/// Sees to it that the bridge has a table in the file.
pub fn ensure(path: &Path, interface: &str, options: &Options) -> Result<Outcome, TableError> {
    let vrf = options.vrf_table()?;
    let kernel = Kernel::read(interface).map_err(TableError::Kernel)?;
    let outcome = ensure_in(path, interface, vrf, &kernel);
    let interface = interface.to_string();
    match outcome {
        Err(TableError::File { source, doing, .. })
            if source.kind() == ErrorKind::PermissionDenied || !options.has_bridge_tables() =>
        {
            let why = format!("cannot {doing} {}: {source}", path.display());
            Ok(Outcome::Left { interface, why })
        }
        outcome => outcome,
    }
}

fn ensure_in(path: &Path, interface: &str, vrf: u32, kernel: &Kernel) -> Result<Outcome, TableError> {
    let failed = |doing| {
        move |source| TableError::File {
            doing,
            path: path.to_path_buf(),
            source,
        }
    };
    // Read before it is opened for writing: where the bridge is in it, it may be read-only.
    let text = match File::open(path) {
        Ok(file) => Some(read(&file, path)?),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(failed("read")(error)),
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
    // Two of these programs at once would choose the same number.
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
    let (id, outcome) = match kernel.of_interface.filter(reusable) {
        Some(id) => (id, Outcome::Again { interface: name, id }),
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
    // One write, so that nobody reads half of a line.
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

fn read(file: &File, path: &Path) -> Result<String, TableError> {
    let mut bytes = Vec::new();
    let read = file.take(rt_tables::MAX_SIZE + 1).read_to_end(&mut bytes);
    read.map_err(|source| TableError::File {
        doing: "read",
        path: path.to_path_buf(),
        source,
    })?;
    match bytes.len() as u64 {
        0..=rt_tables::MAX_SIZE => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        _ => Err(TableError::Size(path.to_path_buf())),
    }
}

/// A free number whose table is empty in the kernel, too: routes alone do not show in rules or VRFs.
fn free(entries: &[Entry], mut taken: BTreeSet<u32>) -> io::Result<Option<u32>> {
    while let Some(id) = rt_tables::free(entries, &taken) {
        if is_empty(id)? {
            return Ok(Some(id));
        }
        taken.insert(id);
    }
    Ok(None)
}

/// What the kernel knows about tables.
#[derive(Debug, Default)]
struct Kernel {
    /// Those that rules and VRFs refer to.
    taken: BTreeSet<u32>,
    /// The one with a default route to everything on the interface's link, which is what the agent makes; if it is the only one.
    of_interface: Option<u32>,
}

impl Kernel {
    fn read(interface: &str) -> io::Result<Self> {
        let mut kernel = Self::default();
        let links = dump(NETLINK_ROUTE, Request::links(), false, |message| match message {
            Message::Link(link) => Some(link),
            _ => None,
        })?;
        kernel.taken.extend(links.iter().filter_map(|link| link.table));
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let tables = dump(NETLINK_ROUTE, Request::rules(family), false, |message| match message {
                Message::Rule(rule) => Some(rule_table(&rule)),
                _ => None,
            });
            kernel.taken.extend(tables?);
        }
        if let Some(link) = links.iter().find(|link| link.name == interface) {
            let tables: BTreeSet<u32> = routes(AddressFamily::Inet, Of::Interface(link.index), |route| {
                let all = route.header.destination_prefix_length == 0 && route.header.scope == RouteScope::Link;
                Some(table(route)).filter(|id| all && rt_tables::RANGE.contains(id))
            })?
            .into_iter()
            .collect();
            kernel.of_interface = tables.first().copied().filter(|_| tables.len() == 1);
        }
        Ok(kernel)
    }
}

fn rule_table(rule: &RuleMessage) -> u32 {
    let attribute = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Table(id) => Some(*id),
        _ => None,
    });
    attribute.unwrap_or(rule.header.table.into())
}

fn is_empty(id: u32) -> io::Result<bool> {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        match routes(family, Of::Table(id), |route| (table(route) == id).then_some(())) {
            // There is no such table yet.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(routes) if routes.is_empty() => {}
            Ok(_) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// What is kept of the routes that have the attribute; the kernel filters, so that a full table is not read.
fn routes<T>(family: AddressFamily, of: Of, mut keep: impl FnMut(&RouteMessage) -> Option<T>) -> io::Result<Vec<T>> {
    let request = Request::routes(family, Some(of));
    dump(NETLINK_ROUTE, request, true, |message| match message {
        Message::Route(route) => keep(&route),
        _ => None,
    })
}

fn table(route: &RouteMessage) -> u32 {
    let attribute = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(id) => Some(*id),
        _ => None,
    });
    attribute.unwrap_or(route.header.table.into())
}

#[cfg(test)]
mod tests;
