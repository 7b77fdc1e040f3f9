//! Parses a logical line into a statement, with the grammar of sudoers(5).

mod lexer;

use self::lexer::{Parser, SPECIAL};
use super::{Arguments, Command, Member, Value};

#[derive(Clone, Debug)]
pub enum Statement {
    Include {
        path: String,
        directory: bool,
    },
    Defaults {
        scope: String,
        settings: Vec<(String, Value)>,
    },
    /// `User_Alias` and the other alias types, with the definitions on one line.
    Aliases {
        kind: AliasKind,
        definitions: Vec<(String, Vec<Member>)>,
    },
    CommandAliases(Vec<(String, Vec<Command>)>),
    Specification {
        users: Vec<Member>,
        grants: Vec<HostGrant>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AliasKind {
    User,
    Runas,
    Host,
}

/// `hosts = (runas) TAG: command, command`.
#[derive(Clone, Debug)]
pub struct HostGrant {
    pub hosts: Vec<Member>,
    pub commands: Vec<CommandGrant>,
}

#[derive(Clone, Debug)]
pub struct CommandGrant {
    /// `None` if no runas specification precedes this command in the list.
    pub runas: Option<(Vec<Member>, Vec<Member>)>,
    pub tags: Vec<String>,
    pub options: Vec<(String, String)>,
    pub command: Command,
}

const TAGS: [&str; 16] = [
    "EXEC",
    "NOEXEC",
    "FOLLOW",
    "NOFOLLOW",
    "INTERCEPT",
    "NOINTERCEPT",
    "LOG_INPUT",
    "NOLOG_INPUT",
    "LOG_OUTPUT",
    "NOLOG_OUTPUT",
    "MAIL",
    "NOMAIL",
    "PASSWD",
    "NOPASSWD",
    "SETENV",
    "NOSETENV",
];

const OPTIONS: [&str; 10] = [
    "APPARMOR_PROFILE",
    "CHROOT",
    "CWD",
    "LIMITPRIVS",
    "NOTAFTER",
    "NOTBEFORE",
    "PRIVS",
    "ROLE",
    "TIMEOUT",
    "TYPE",
];

const DIGESTS: [&str; 4] = ["sha224:", "sha256:", "sha384:", "sha512:"];

type Result<T> = std::result::Result<T, String>;

pub fn statement(line: &str) -> Result<Statement> {
    let mut p = Parser { rest: line };
    for (word, directory) in [("include", false), ("includedir", true)] {
        for mark in ["@", "#"] {
            let directive = line.strip_prefix(mark).and_then(|l| l.strip_prefix(word));
            if let Some(rest) = directive.filter(|r| r.starts_with([' ', '\t'])) {
                p.rest = rest;
                let path = p.path_word()?;
                p.end()?;
                return Ok(Statement::Include { path, directory });
            }
        }
    }
    if let Some(rest) = line.strip_prefix("Defaults")
        && rest.starts_with([' ', '\t', '@', ':', '!', '>'])
    {
        p.rest = rest;
        return p.defaults();
    }
    let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let kind = match word {
        "User_Alias" => AliasKind::User,
        "Runas_Alias" => AliasKind::Runas,
        "Host_Alias" => AliasKind::Host,
        "Cmnd_Alias" | "Cmd_Alias" => {
            p.rest = rest;
            return p
                .definitions(|p| p.separated(Parser::command))
                .map(Statement::CommandAliases);
        }
        _ => return p.specification(),
    };
    p.rest = rest;
    let definitions = p.definitions(Parser::members)?;
    Ok(Statement::Aliases { kind, definitions })
}

/// Whether the grammar treats a name as an alias.
pub fn is_alias(name: &str) -> bool {
    name != "ALL"
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && name
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

impl Parser<'_> {
    /// `NAME = list : NAME = list`.
    fn definitions<T>(&mut self, list: impl Fn(&mut Self) -> Result<Vec<T>>) -> Result<Vec<(String, Vec<T>)>> {
        let mut all = Vec::new();
        loop {
            let name = self.word(&SPECIAL)?;
            if !is_alias(&name) {
                return Err(format!("{name:?} is not an alias name"));
            }
            self.expect("=")?;
            all.push((name, list(self)?));
            if !self.eat(":") {
                break;
            }
        }
        self.end()?;
        Ok(all)
    }

    fn defaults(&mut self) -> Result<Statement> {
        let mut scope = String::new();
        if let Some(mark) = ['@', ':', '!', '>'].into_iter().find(|m| self.rest.starts_with(*m)) {
            self.rest = &self.rest[1..];
            // Commands have no arguments here; those require an alias.
            let bound = match mark {
                '!' => self.separated(|p| p.pattern(true))?,
                _ => self.members()?.iter().map(Member::to_string).collect(),
            };
            scope = format!("{mark}{}", bound.join(","));
        }
        let settings = self.separated(Self::setting)?;
        self.end()?;
        Ok(Statement::Defaults { scope, settings })
    }

    fn setting(&mut self) -> Result<(String, Value)> {
        let off = self.negations();
        self.blank();
        let length = self
            .rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(length);
        if name.is_empty() {
            return Err(format!("a parameter expected before {}", self.here()));
        }
        self.rest = rest;
        let make: fn(String) -> Value = if self.eat("+=") {
            Value::Add
        } else if self.eat("-=") {
            Value::Remove
        } else if self.eat("=") {
            Value::Set
        } else {
            return Ok((name.to_string(), if off { Value::Off } else { Value::On }));
        };
        if off {
            return Err(format!("!{name} with a value"));
        }
        let value = match self.string()? {
            Some(value) => value,
            None => self.word(&[' ', '\t', ',', '#'])?,
        };
        Ok((name.to_string(), make(value)))
    }

    fn specification(&mut self) -> Result<Statement> {
        let users = self.members()?;
        let mut grants = Vec::new();
        loop {
            let hosts = self.members()?;
            self.expect("=")?;
            let commands = self.command_grants()?;
            grants.push(HostGrant { hosts, commands });
            if !self.eat(":") {
                break;
            }
        }
        self.end()?;
        Ok(Statement::Specification { users, grants })
    }

    /// Runas specifications, options and tags also apply to the following commands, until replaced.
    fn command_grants(&mut self) -> Result<Vec<CommandGrant>> {
        let mut all: Vec<CommandGrant> = Vec::new();
        loop {
            let (mut runas, mut tags, mut options) = match all.last() {
                Some(last) => (last.runas.clone(), last.tags.clone(), last.options.clone()),
                None => (None, Vec::new(), Vec::new()),
            };
            if self.eat("(") {
                runas = Some(self.runas()?);
            }
            while let Some(qualifier) = self.qualifier()? {
                match qualifier {
                    Qualifier::Tag(tag) => {
                        let opposite = tag.strip_prefix("NO").map_or(format!("NO{tag}"), str::to_string);
                        tags.retain(|t| *t != tag && *t != opposite);
                        tags.push(tag);
                    }
                    Qualifier::Option(name, value) => {
                        options.retain(|(n, _)| *n != name);
                        options.push((name, value));
                    }
                }
            }
            let command = self.command()?;
            all.push(CommandGrant {
                runas,
                tags,
                options,
                command,
            });
            if !self.eat(",") {
                return Ok(all);
            }
        }
    }

    /// `users : groups)`; either may be empty.
    fn runas(&mut self) -> Result<(Vec<Member>, Vec<Member>)> {
        let (mut users, mut groups) = (Vec::new(), Vec::new());
        self.blank();
        if !self.rest.starts_with([':', ')']) {
            users = self.members()?;
        }
        if self.eat(":") {
            self.blank();
            if !self.rest.starts_with(')') {
                groups = self.members()?;
            }
        }
        self.expect(")")?;
        Ok((users, groups))
    }

    fn qualifier(&mut self) -> Result<Option<Qualifier>> {
        self.blank();
        let length = self
            .rest
            .find(|c: char| !(c.is_ascii_uppercase() || c == '_'))
            .unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(length);
        let after = rest.trim_start_matches([' ', '\t']);
        if TAGS.contains(&name)
            && let Some(rest) = after.strip_prefix(':')
        {
            self.rest = rest;
            return Ok(Some(Qualifier::Tag(name.to_string())));
        }
        if OPTIONS.contains(&name)
            && let Some(rest) = after.strip_prefix('=')
        {
            self.rest = rest;
            let value = match self.string()? {
                Some(value) => value,
                None => self.word(&[' ', '\t', ',', ':', '='])?,
            };
            return Ok(Some(Qualifier::Option(name.to_string(), value)));
        }
        Ok(None)
    }

    fn command(&mut self) -> Result<Command> {
        let mut digests = Vec::new();
        self.blank();
        while DIGESTS.iter().any(|d| self.rest.starts_with(d)) {
            digests.push(self.word(&[' ', '\t', ','])?);
            self.eat(",");
            self.blank();
        }
        let negated = self.negations();
        self.blank();
        if self.rest.starts_with('^') {
            let path = self.regex()?;
            let arguments = self.arguments()?;
            return Ok(Command {
                negated,
                digests,
                path,
                arguments,
            });
        }
        let path = self.pattern(true)?;
        let arguments = match path.as_str() {
            "ALL" => Arguments::Any,
            "list" | "sudoedit" => self.arguments()?,
            alias if is_alias(alias) => Arguments::Any,
            absolute if absolute.starts_with('/') && !absolute.ends_with('/') => self.arguments()?,
            directory if directory.starts_with('/') => Arguments::Any,
            other => return Err(format!("command {other:?} is neither an absolute path nor an alias")),
        };
        Ok(Command {
            negated,
            digests,
            path,
            arguments,
        })
    }

    fn arguments(&mut self) -> Result<Arguments> {
        self.blank();
        if self.rest.is_empty() || self.rest.starts_with([',', ':', '=', '#']) {
            return Ok(Arguments::Any);
        }
        if self.rest.starts_with('^') {
            return self.regex().map(Arguments::Regex);
        }
        if let Some(rest) = self.rest.strip_prefix("\"\"")
            && !rest.starts_with(|c: char| !SPECIAL.contains(&c))
        {
            self.rest = rest;
            return Ok(Arguments::None);
        }
        self.pattern(false).map(Arguments::Pattern)
    }
}

enum Qualifier {
    Tag(String),
    Option(String, String),
}
