//! `mapping.json` and the subnet of a server -> the ASN of its leaf switch.
//!
//! The file has one object. Keys are networks (`"10.0.192.0/24"`), values are ASNs as strings or numbers. The longest prefix that
//! covers the whole subnet wins, so a site can have a default and exceptions. A network that occurs twice or covers only a part
//! of the subnet is ambiguous and therefore an error.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::asn::Asn;
use crate::files::{self, FileError};

/// The name of the file in a directory (a mounted ConfigMap).
pub const FILE_NAME: &str = "mapping.json";

#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{file}:{place}: {reason}", file = file.display())]
    Invalid {
        file: PathBuf,
        place: Place,
        reason: String,
    },
    #[error(
        "No Leaf ASN mapping found\n  Subnet: {subnet}\n  File:   {file} ({has})\n  Add:    \"{subnet}\": \"<ASN of the leaf switch>\"",
        file = file.display()
    )]
    NotFound { subnet: IpNet, file: PathBuf, has: String },
}

/// A position in the text. Both numbers start at 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}:{}", self.line, self.column)
    }
}

#[derive(Debug)]
pub struct Mapping {
    file: PathBuf,
    /// `None` if the file does not exist.
    entries: Option<Vec<Entry>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    net: IpNet,
    asn: Asn,
    place: Place,
}

impl Mapping {
    /// Reads a file, or `mapping.json` in a directory.
    pub fn load(path: &Path) -> Result<Self, MappingError> {
        let file = if path.is_dir() {
            path.join(FILE_NAME)
        } else {
            path.into()
        };
        match files::read_text(&file) {
            Ok(text) => Self::parse(&file, &text),
            Err(FileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self { file, entries: None })
            }
            Err(error) => Err(error.into()),
        }
    }

    pub fn parse(file: &Path, text: &str) -> Result<Self, MappingError> {
        let invalid = |place, reason| MappingError::Invalid {
            file: file.into(),
            place,
            reason,
        };
        let pairs: Pairs = serde_json::from_str(text).map_err(|error| {
            let place = Place {
                line: error.line(),
                column: error.column(),
            };
            // The place is already part of this error.
            let message = error.to_string();
            let reason = message
                .rsplit_once(" at line ")
                .map_or(message.as_str(), |(reason, _)| reason);
            invalid(
                place,
                format!("{reason}; the expected form is {{\"10.0.192.0/24\": \"65001\", …}}"),
            )
        })?;
        let mut entries: Vec<Entry> = Vec::new();
        for (key, value) in pairs.0 {
            let place = place_of(text, key);
            let net = network(key).map_err(|reason| invalid(place, reason))?;
            if let Some(other) = entries.iter().find(|other| other.net == net) {
                return Err(invalid(
                    place,
                    format!("{net} is a duplicate of the entry at {}; remove one", other.place),
                ));
            }
            let asn = number(value).map_err(|reason| invalid(place_of(text, value), format!("{net}: {reason}")))?;
            entries.push(Entry { net, asn, place });
        }
        Ok(Self {
            file: file.into(),
            entries: Some(entries),
        })
    }

    /// The ASN of the leaf switch of a subnet.
    pub fn leaf_asn(&self, subnet: IpNet) -> Result<Asn, MappingError> {
        let subnet = subnet.trunc();
        let entries = self.entries.as_deref().unwrap_or_default();
        if let Some(part) = entries
            .iter()
            .find(|entry| subnet != entry.net && subnet.contains(&entry.net))
        {
            return Err(MappingError::Invalid {
                file: self.file.clone(),
                place: part.place,
                reason: format!(
                    "{} covers only a part of {subnet}, the node's subnet, but a subnet has one leaf ASN; \
                     write {subnet}, or correct the subnet on the node",
                    part.net
                ),
            });
        }
        let covering = entries.iter().filter(|entry| entry.net.contains(&subnet));
        match covering.max_by_key(|entry| entry.net.prefix_len()) {
            Some(entry) => Ok(entry.asn),
            None => Err(MappingError::NotFound {
                subnet,
                file: self.file.clone(),
                has: match &self.entries {
                    None => "does not exist".into(),
                    Some(entries) => match entries.len() {
                        0 => "no entries".into(),
                        1 => "1 entry, none for this subnet".into(),
                        count => format!("{count} entries, none for this subnet"),
                    },
                },
            }),
        }
    }

    /// A warning about servers that get the same ASN, which has only the last three octets of their addresses.
    pub fn collision(&self) -> Option<String> {
        let nets: Vec<Ipv4Net> = self
            .entries
            .iter()
            .flatten()
            .filter_map(|entry| match entry.net {
                IpNet::V4(net) => Some(net),
                IpNet::V6(_) => None,
            })
            .collect();
        let file = self.file.display();
        const RULE: &str = "a server's ASN does not include the first octet";
        const REMEDY: &str = "set --asn on the servers of one of them";
        if let Some(wide) = nets.iter().find(|net| net.prefix_len() < 8) {
            return Some(format!(
                "{file}: {wide} spans several /8 whose addresses get the same ASNs: {RULE}; {REMEDY}"
            ));
        }
        let slash_8 = |net: &Ipv4Net| net.network().octets()[0];
        let mut different = None;
        for (index, one) in nets.iter().enumerate() {
            for other in nets[index + 1..].iter().filter(|other| slash_8(other) != slash_8(one)) {
                different.get_or_insert((one, other));
                let longer = if one.prefix_len() > other.prefix_len() {
                    one
                } else {
                    other
                };
                if low_bits(one).contains(&low_bits(other)) || low_bits(other).contains(&low_bits(one)) {
                    let [_, b, c, d] = longer.hosts().next().unwrap_or(longer.network()).octets();
                    let example = |net| Ipv4Addr::new(slash_8(net), b, c, d);
                    return Some(format!(
                        "{file}: {one} and {other} are in different /8 and collide: {RULE}, so {} and {} both get {}; {REMEDY}",
                        example(one),
                        example(other),
                        Asn::of_server(example(one))
                    ));
                }
            }
        }
        different.map(|(one, other)| {
            format!(
                "{file}: {one} and {other} are in different /8: {RULE}, so addresses with the same last three octets get the same \
                 ASN. These two networks have no such addresses, but others may"
            )
        })
    }
}

/// The network without its first octet.
fn low_bits(net: &Ipv4Net) -> Ipv4Net {
    let [_, b, c, d] = net.network().octets();
    Ipv4Net::new_assert(Ipv4Addr::new(0, b, c, d), net.prefix_len())
}

/// Unparsed keys and values in the order of the file.
struct Pairs<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Vec<(&'de RawValue, &'de RawValue)>;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object of subnets and ASNs")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Collect).map(Self)
    }
}

/// The start of `part`, which is a slice of `text`.
fn place_of(text: &str, part: &RawValue) -> Place {
    let offset = (part.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

fn network(key: &RawValue) -> Result<IpNet, String> {
    let text: String = serde_json::from_str(key.get()).map_err(|error| error.to_string())?;
    let net: IpNet = match text.parse() {
        Ok(net) => net,
        Err(_) => {
            return Err(match text.parse::<IpAddr>() {
                Ok(address) => {
                    format!("{text:?} has no prefix length; a network is expected, as in \"{address}/24\"")
                }
                Err(_) => format!("{text:?} is not a network as in \"10.0.192.0/24\""),
            });
        }
    };
    if net.addr() != net.network() {
        return Err(format!(
            "{text:?} has bits set after its prefix; the network is \"{}\"",
            net.trunc()
        ));
    }
    Ok(net)
}

fn number(value: &RawValue) -> Result<Asn, String> {
    let text = value.get();
    let unquoted: String = match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str(text).map_err(|error| error.to_string())?,
        Some(b'0'..=b'9' | b'-') => text.into(),
        _ => return Err("the ASN is not a string or a number".into()),
    };
    unquoted
        .parse()
        .map_err(|error: crate::asn::AsnError| error.to_string())
}

#[cfg(test)]
mod tests;
