//! Parses sudoers(5) into grants: who may run what, as whom, on which host, with which tags.
//!
//! The policy is read like sudo reads it: includes are followed, aliases are expanded, Defaults are split. Unsupported
//! input is a [`Problem`] and never skipped, because an unknown line might be a grant.

mod evaluate;
mod lines;
mod parse;

use std::collections::BTreeSet;
use std::fmt;

use crate::layout::tree::{NodeKind, Tree};
use crate::verify::contract::SudoersTerms;

pub const SUDOERS: &str = "etc/sudoers";

/// sudo's own limit on nested includes.
const MAX_INCLUDES: usize = 128;
/// Limits the bytes read in total, because a file can be included many times.
const MAX_BYTES: usize = 4 << 20;
const MAX_PROBLEMS: usize = 100;

/// The content of a set of sudoers files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub grants: Vec<Grant>,
    pub settings: Vec<Setting>,
    pub problems: Vec<Problem>,
    /// Resolved paths of the files read, in order.
    pub files: Vec<String>,
}

/// A position in a sudoers file: `/etc/sudoers:12`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    pub file: String,
    pub line: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub at: Location,
    pub what: String,
}

/// One user, one host, one command; without aliases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub user: Member,
    pub host: Member,
    /// The target users; sudo's default, root, is explicit.
    pub users: Vec<Member>,
    /// The target groups.
    pub groups: Vec<Member>,
    /// `NOPASSWD`, `SETENV`…
    pub tags: BTreeSet<String>,
    /// `CWD=/`, `TIMEOUT=5`…
    pub options: BTreeSet<String>,
    pub command: Command,
    pub at: Location,
}

impl Grant {
    /// Whether both grant the same, at any position.
    pub fn same(&self, other: &Grant) -> bool {
        let at = other.at.clone();
        Grant { at, ..self.clone() } == *other
    }
}

/// An element of a user, runas or host list. `ALL`, or a name with its prefix: `root`, `#0`, `%sudo`, `%#27`, `+netgroup`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    pub negated: bool,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub negated: bool,
    /// `sha256:…`: the command must match one of these digests.
    pub digests: Vec<String>,
    /// `ALL`, `list`, `sudoedit`, an absolute path (a pattern, or a directory ending in `/`), or a regular expression.
    pub path: String,
    pub arguments: Arguments,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arguments {
    /// No arguments are written, so all are allowed.
    Any,
    /// `""`: no arguments are allowed.
    None,
    /// Compared as one string by fnmatch(3), where `*` matches spaces and slashes too.
    Pattern(String),
    /// `^…$`, for sudo from 1.9.10 on.
    Regex(String),
}

/// A `Defaults` parameter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    /// The scope: empty, or `@host`, `:user`, `!command`, `>runas`.
    pub scope: String,
    pub name: String,
    pub value: Value,
    pub at: Location,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    On,
    Off,
    Set(String),
    Add(String),
    Remove(String),
}

impl Policy {
    /// The policy of an image: `/etc/sudoers` and its includes.
    pub fn read(tree: &Tree) -> Self {
        let mut reader = Reader {
            tree: Some(tree),
            ..Reader::default()
        };
        let root = Location {
            file: format!("/{SUDOERS}"),
            line: 1,
        };
        reader.include(&format!("/{SUDOERS}"), &root, 0);
        reader.finish()
    }

    /// The policy of one text without includes.
    pub fn parse(name: &str, text: &str) -> Self {
        let mut reader = Reader::default();
        reader.text(name, text, 0);
        reader.finish()
    }
}

/// The contract's statement: the required grants and Defaults.
pub(crate) struct Allowed {
    pub grants: Vec<Grant>,
    pub settings: Vec<Setting>,
}

/// Parses the contract's grants and Defaults.
pub(crate) fn parse_contract(terms: &SudoersTerms) -> Result<Allowed, String> {
    let settings: String = terms.defaults.iter().map(|d| format!("Defaults {d}\n")).collect();
    let policy = Policy::parse("contract", &format!("{settings}{}\n", terms.grants));
    match policy.problems.first() {
        Some(problem) => Err(format!("{problem}")),
        None => Ok(Allowed {
            grants: policy.grants,
            settings: policy.settings,
        }),
    }
}

#[derive(Default)]
struct Reader<'a> {
    tree: Option<&'a Tree>,
    statements: Vec<(Location, parse::Statement)>,
    problems: Vec<Problem>,
    files: Vec<String>,
    bytes: usize,
}

impl Reader<'_> {
    fn problem(&mut self, at: &Location, what: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem {
                at: at.clone(),
                what: what.into(),
            });
        }
    }

    fn include(&mut self, path: &str, at: &Location, depth: usize) {
        let Some(tree) = self.tree else {
            return self.problem(at, "an include, which is not supported here");
        };
        if depth == MAX_INCLUDES {
            return self.problem(at, "too many levels of includes");
        }
        match tree.resolve(path) {
            Err(e) => self.problem(at, format!("{path}: {e}")),
            Ok((resolved, node)) => match &node.kind {
                NodeKind::File(file) => match file.content.as_deref().map(std::str::from_utf8) {
                    Some(Ok(text)) => {
                        if !self.files.contains(&resolved) {
                            self.files.push(resolved);
                        }
                        self.text(path, text, depth);
                    }
                    Some(Err(_)) => self.problem(at, format!("{path} is not UTF-8")),
                    None => self.problem(at, format!("{path} is outside /etc/sudoers*, or too large: not read")),
                },
                _ => self.problem(at, format!("{path} is not a regular file")),
            },
        }
    }

    fn include_directory(&mut self, path: &str, at: &Location, depth: usize) {
        let Some(tree) = self.tree else {
            return self.problem(at, "an include, which is not supported here");
        };
        let directory = match tree.resolve(path) {
            Ok((resolved, node)) if matches!(node.kind, NodeKind::Directory) => resolved,
            Ok(_) => return self.problem(at, format!("{path} is not a directory")),
            Err(e) => return self.problem(at, format!("{path}: {e}")),
        };
        // sudo skips files left by editors and package managers.
        let names = tree
            .children(&directory)
            .filter(|(n, _)| !n.contains('.') && !n.ends_with('~'));
        for (name, node) in names {
            let path = format!("/{directory}/{name}");
            match node.kind {
                NodeKind::File(_) => self.include(&path, at, depth + 1),
                // Its target can change at run time, even if it is not a file now.
                NodeKind::Symlink(_) => self.problem(at, format!("{path} is a symbolic link")),
                _ => {}
            }
        }
    }

    fn text(&mut self, file: &str, text: &str, depth: usize) {
        self.bytes += text.len();
        for (line, content) in lines::logical(text) {
            let at = Location {
                file: file.to_string(),
                line,
            };
            if self.bytes > MAX_BYTES {
                return self.problem(&at, "too many statements");
            }
            match content.map_err(str::to_string).and_then(|c| parse::statement(&c)) {
                Err(what) => self.problem(&at, what),
                Ok(parse::Statement::Include { path, directory }) => {
                    if path.contains("%h") {
                        self.problem(&at, "an include that depends on the host's name");
                    }
                    if path.contains(':') {
                        self.problem(&at, "an include of a list of paths");
                    }
                    let path = match path.starts_with('/') {
                        true => path,
                        false => format!("{}/{path}", file.rsplit_once('/').map_or("", |(dir, _)| dir)),
                    };
                    match directory {
                        true => self.include_directory(&path, &at, depth),
                        false => self.include(&path, &at, depth + 1),
                    }
                }
                Ok(statement) => self.statements.push((at, statement)),
            }
        }
    }

    fn finish(self) -> Policy {
        let mut policy = evaluate::evaluate(&self.statements);
        policy.problems.splice(0..0, self.problems);
        policy.files = self.files;
        policy
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.negated { "!" } else { "" }, self.name)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for digest in &self.digests {
            write!(f, "{digest} ")?;
        }
        write!(f, "{}{}", if self.negated { "!" } else { "" }, self.path)?;
        match &self.arguments {
            Arguments::Any => Ok(()),
            Arguments::None => write!(f, " \"\""),
            Arguments::Pattern(text) | Arguments::Regex(text) => write!(f, " {text}"),
        }
    }
}

/// Formats the grant as a line of sudoers.
impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |members: &[Member]| members.iter().map(Member::to_string).collect::<Vec<_>>().join(", ");
        write!(f, "{} {} = ({}", self.user, self.host, list(&self.users))?;
        if !self.groups.is_empty() {
            write!(f, " : {}", list(&self.groups))?;
        }
        write!(f, ") ")?;
        for option in &self.options {
            write!(f, "{option} ")?;
        }
        for tag in &self.tags {
            write!(f, "{tag}: ")?;
        }
        write!(f, "{}", self.command)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Defaults{} ", self.scope)?;
        match &self.value {
            Value::On => write!(f, "{}", self.name),
            Value::Off => write!(f, "!{}", self.name),
            Value::Set(v) => write!(f, "{}={v:?}", self.name),
            Value::Add(v) => write!(f, "{}+={v:?}", self.name),
            Value::Remove(v) => write!(f, "{}-={v:?}", self.name),
        }
    }
}

#[cfg(test)]
mod tests;
