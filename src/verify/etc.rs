//! Parses passwd(5), group(5), shadow(5) and gshadow(5) strictly: input that libc would skip or guess is an error.

use std::str::FromStr;

use crate::layout::tree::Tree;

/// Maximum number of entries, far more than an image needs.
const MAX_ENTRIES: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswdEntry {
    pub name: String,
    pub password: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub shell: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupEntry {
    pub name: String,
    pub password: String,
    pub gid: u32,
    pub members: Vec<String>,
}

/// The relevant fields of shadow and gshadow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowEntry {
    pub name: String,
    pub password: String,
    /// gshadow: the group's administrators.
    pub administrators: Vec<String>,
    /// gshadow: the group's members.
    pub members: Vec<String>,
}

impl ShadowEntry {
    /// Whether no password matches: crypt(3) never produces such a hash.
    pub fn locked(&self) -> bool {
        self.password.starts_with(['!', '*'])
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EtcError {
    #[error("missing, or too large to be kept")]
    Absent,
    #[error("not UTF-8")]
    Encoding,
    #[error("line {line}: {what}")]
    Syntax { line: usize, what: String },
}

/// The four files of an image.
#[derive(Clone, Debug)]
pub struct Accounts {
    pub passwd: Result<Vec<PasswdEntry>, EtcError>,
    pub group: Result<Vec<GroupEntry>, EtcError>,
    pub shadow: Result<Vec<ShadowEntry>, EtcError>,
    pub gshadow: Result<Vec<ShadowEntry>, EtcError>,
}

impl Accounts {
    pub fn read(tree: &Tree) -> Self {
        fn file<T>(tree: &Tree, path: &str, parse: fn(&str) -> Result<Vec<T>, EtcError>) -> Result<Vec<T>, EtcError> {
            let bytes = tree.content(path).ok_or(EtcError::Absent)?;
            parse(std::str::from_utf8(bytes).map_err(|_| EtcError::Encoding)?)
        }
        Self {
            passwd: file(tree, "etc/passwd", parse_passwd),
            group: file(tree, "etc/group", parse_group),
            shadow: file(tree, "etc/shadow", parse_shadow),
            gshadow: file(tree, "etc/gshadow", parse_gshadow),
        }
    }

    pub fn users(&self) -> &[PasswdEntry] {
        self.passwd.as_deref().unwrap_or_default()
    }

    pub fn groups(&self) -> &[GroupEntry] {
        self.group.as_deref().unwrap_or_default()
    }

    pub fn uid(&self, name: &str) -> Option<u32> {
        self.users().iter().find(|u| u.name == name).map(|u| u.uid)
    }

    pub fn gid(&self, name: &str) -> Option<u32> {
        self.groups().iter().find(|g| g.name == name).map(|g| g.gid)
    }
}

pub fn parse_passwd(text: &str) -> Result<Vec<PasswdEntry>, EtcError> {
    entries(text, |[name, password, uid, gid, _gecos, home, shell]| {
        if !home.starts_with('/') {
            return Err(format!("home {home:?} is not absolute"));
        }
        Ok(PasswdEntry {
            name: account_name(name)?,
            password: password.to_string(),
            uid: number(uid)?,
            gid: number(gid)?,
            home: home.to_string(),
            shell: shell.to_string(),
        })
    })
}

pub fn parse_group(text: &str) -> Result<Vec<GroupEntry>, EtcError> {
    entries(text, |[name, password, gid, members]| {
        Ok(GroupEntry {
            name: account_name(name)?,
            password: password.to_string(),
            gid: number(gid)?,
            members: names(members)?,
        })
    })
}

pub fn parse_shadow(text: &str) -> Result<Vec<ShadowEntry>, EtcError> {
    entries(text, |[name, password, days @ ..]: [&str; 9]| {
        for field in days {
            if !field.is_empty() {
                i64::from_str(field).map_err(|_| format!("{field:?} is not a number of days"))?;
            }
        }
        Ok(ShadowEntry {
            name: account_name(name)?,
            password: password.to_string(),
            administrators: Vec::new(),
            members: Vec::new(),
        })
    })
}

pub fn parse_gshadow(text: &str) -> Result<Vec<ShadowEntry>, EtcError> {
    entries(text, |[name, password, administrators, members]| {
        Ok(ShadowEntry {
            name: account_name(name)?,
            password: password.to_string(),
            administrators: names(administrators)?,
            members: names(members)?,
        })
    })
}

fn entries<const N: usize, T>(text: &str, entry: impl Fn([&str; N]) -> Result<T, String>) -> Result<Vec<T>, EtcError> {
    let mut all = Vec::new();
    // Not lines(), which removes a carriage return; libc would read it as part of the shell.
    let lines = text
        .strip_suffix('\n')
        .unwrap_or(text)
        .split('\n')
        .filter(|_| !text.is_empty());
    for (at, line) in lines.enumerate() {
        let syntax = |what| EtcError::Syntax { line: at + 1, what };
        if all.len() == MAX_ENTRIES {
            return Err(syntax(format!("more than {MAX_ENTRIES} entries")));
        }
        if line.chars().any(char::is_control) {
            return Err(syntax("a control character".to_string()));
        }
        let fields: Vec<&str> = line.split(':').collect();
        let count = fields.len();
        let fields = <[&str; N]>::try_from(fields).map_err(|_| syntax(format!("{count} fields instead of {N}")))?;
        all.push(entry(fields).map_err(syntax)?);
    }
    Ok(all)
}

/// Stricter than `useradd`: no compatibility entries (`+`), no names that ls or a script misreads.
fn account_name(name: &str) -> Result<String, String> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let rest = |c: char| c.is_ascii_alphanumeric() || "_-.$".contains(c);
    if name.starts_with(first) && name.chars().all(rest) && name.len() <= 64 {
        Ok(name.to_string())
    } else {
        Err(format!("{name:?} is not an account name"))
    }
}

fn names(list: &str) -> Result<Vec<String>, String> {
    list.split(',').filter(|_| !list.is_empty()).map(account_name).collect()
}

fn number(text: &str) -> Result<u32, String> {
    // from_str accepts "+1", and libc's strtoul much more.
    match u32::from_str(text) {
        Ok(n) if n.to_string() == text && n != u32::MAX => Ok(n),
        _ => Err(format!("{text:?} is not an ID")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_debian_writes() {
        let users = parse_passwd("root:x:0:0:root:/root:/bin/bash\n_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n");
        assert_eq!(users.unwrap()[1].gid, 65534);
        let groups = parse_group("sudo:x:27:\nopenvswitch:x:42424:ovn-bgp-agent,root\n").unwrap();
        assert_eq!(groups[0].members.len(), 0);
        assert_eq!(groups[1].members, ["ovn-bgp-agent", "root"]);
        assert!(parse_shadow("root:*:20000:0:99999:7:::\n").unwrap()[0].locked());
        assert_eq!(parse_gshadow("sudo:*::a,b\n").unwrap()[0].members, ["a", "b"]);
    }

    #[test]
    fn refuses_what_can_be_read_two_ways() {
        for line in [
            "a:x:1:1::/",
            "a:x:01:1::/:/bin/sh",
            "a:x:+1:1::/:/bin/sh",
            "a:x:-1:1::/:/bin/sh",
            "a:x:4294967295:1::/:/bin/sh",
            "a:x:4294967296:1::/:/bin/sh",
            "+:x:1:1::/:/bin/sh",
            ":x:1:1::/:/bin/sh",
            "a b:x:1:1::/:/bin/sh",
            "a:x:1:1::home:/bin/sh",
            "a:x:1:1::/:/bin/sh\r",
            "",
        ] {
            assert!(parse_passwd(&format!("{line}\n")).is_err(), "{line:?}");
        }
        assert!(parse_group("a:x:1:b,,c\n").is_err());
        assert!(parse_shadow("a:!:today:::::\n").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-z0-9:,!*+\\n\\r é-]{0,200}") {
            let _ = (parse_passwd(&text), parse_group(&text), parse_shadow(&text), parse_gshadow(&text));
        }

        #[test]
        fn a_written_entry_is_read_back(name in "[a-z_][a-z0-9_-]{0,31}", uid in 0..u32::MAX, gid in 0..u32::MAX) {
            let line = format!("{name}:x:{uid}:{gid}:,,,:/home/{name}:/bin/false\n");
            let read = parse_passwd(&line).unwrap();
            prop_assert_eq!((&read[0].name, read[0].uid, read[0].gid), (&name, uid, gid));
        }
    }
}
