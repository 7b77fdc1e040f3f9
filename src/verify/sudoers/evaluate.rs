//! Evaluates statements into grants: expands aliases and multiplies lists.

use std::collections::BTreeMap;

use super::parse::{AliasKind, Statement, is_alias};
use super::{Command, Grant, Location, MAX_PROBLEMS, Member, Policy, Problem, Setting};

/// Maximum number of single grants, because aliases of aliases multiply.
const MAX_GRANTS: usize = 4096;
const MAX_DEPTH: usize = 32;

pub fn evaluate(statements: &[(Location, Statement)]) -> Policy {
    let mut policy = Policy::default();
    let aliases = Aliases::collect(statements, &mut policy.problems);
    for (at, statement) in statements {
        let result = match statement {
            Statement::Defaults { scope, settings } => {
                policy.settings.extend(settings.iter().map(|(name, value)| Setting {
                    scope: scope.clone(),
                    name: name.clone(),
                    value: value.clone(),
                    at: at.clone(),
                }));
                Ok(())
            }
            Statement::Specification { users, grants } => (|| {
                let users = aliases.members(AliasKind::User, users)?;
                for grant in grants {
                    let hosts = aliases.members(AliasKind::Host, &grant.hosts)?;
                    for granted in &grant.commands {
                        let (as_users, as_groups) = match &granted.runas {
                            None => (vec![root()], Vec::new()),
                            Some((users, groups)) => (
                                aliases.members(AliasKind::Runas, users)?,
                                aliases.members(AliasKind::Runas, groups)?,
                            ),
                        };
                        for command in aliases.commands(&granted.command)? {
                            for (user, host) in users.iter().flat_map(|u| hosts.iter().map(move |h| (u, h))) {
                                if policy.grants.len() == MAX_GRANTS {
                                    return Err(format!("more than {MAX_GRANTS} grants"));
                                }
                                policy.grants.push(Grant {
                                    user: user.clone(),
                                    host: host.clone(),
                                    users: as_users.clone(),
                                    groups: as_groups.clone(),
                                    tags: granted.tags.iter().cloned().collect(),
                                    options: granted.options.iter().map(|(n, v)| format!("{n}={v}")).collect(),
                                    command: command.clone(),
                                    at: at.clone(),
                                });
                            }
                        }
                    }
                }
                Ok(())
            })(),
            Statement::Include { .. } | Statement::Aliases { .. } | Statement::CommandAliases(_) => Ok(()),
        };
        if let Err(what) = result {
            policy.problems.push(Problem { at: at.clone(), what });
            // With this many problems the policy is rejected anyway; do not evaluate a hostile policy to its end.
            if policy.problems.len() >= MAX_PROBLEMS || policy.grants.len() == MAX_GRANTS {
                break;
            }
        }
    }
    policy
}

/// sudo's default for `runas_default`; a change in Defaults is reported by the rule about Defaults.
fn root() -> Member {
    Member {
        negated: false,
        name: "root".to_string(),
    }
}

#[derive(Default)]
struct Aliases<'a> {
    members: BTreeMap<(AliasKind, &'a str), &'a [Member]>,
    commands: BTreeMap<&'a str, &'a [Command]>,
}

impl<'a> Aliases<'a> {
    fn collect(statements: &'a [(Location, Statement)], problems: &mut Vec<Problem>) -> Self {
        let mut aliases = Self::default();
        for (at, statement) in statements {
            let mut again = |name: &str, known: bool| {
                if known {
                    problems.push(Problem {
                        at: at.clone(),
                        what: format!("alias {name} is defined again"),
                    });
                }
            };
            match statement {
                Statement::Aliases { kind, definitions } => {
                    for (name, list) in definitions {
                        again(name, aliases.members.insert((*kind, name), list).is_some());
                    }
                }
                Statement::CommandAliases(definitions) => {
                    for (name, list) in definitions {
                        again(name, aliases.commands.insert(name, list).is_some());
                    }
                }
                _ => {}
            }
        }
        aliases
    }

    fn members(&self, kind: AliasKind, list: &[Member]) -> Result<Vec<Member>, String> {
        let mut all = Vec::new();
        for member in list {
            self.expand_member(kind, member, 0, &mut all)?;
        }
        Ok(all)
    }

    fn expand_member(
        &self,
        kind: AliasKind,
        member: &Member,
        depth: usize,
        all: &mut Vec<Member>,
    ) -> Result<(), String> {
        limits(depth, all.len())?;
        if !is_alias(&member.name) {
            all.push(member.clone());
            return Ok(());
        }
        let list = self
            .members
            .get(&(kind, member.name.as_str()))
            .ok_or_else(|| format!("alias {} is not defined", member.name))?;
        for inner in list.iter() {
            let turned = Member {
                negated: inner.negated ^ member.negated,
                name: inner.name.clone(),
            };
            self.expand_member(kind, &turned, depth + 1, all)?;
        }
        Ok(())
    }

    fn commands(&self, command: &Command) -> Result<Vec<Command>, String> {
        let mut all = Vec::new();
        self.expand_command(command, 0, &mut all)?;
        Ok(all)
    }

    fn expand_command(&self, command: &Command, depth: usize, all: &mut Vec<Command>) -> Result<(), String> {
        limits(depth, all.len())?;
        if !is_alias(&command.path) {
            all.push(command.clone());
            return Ok(());
        }
        let list = self
            .commands
            .get(command.path.as_str())
            .ok_or_else(|| format!("alias {} is not defined", command.path))?;
        for inner in list.iter() {
            let turned = Command {
                negated: inner.negated ^ command.negated,
                digests: [command.digests.as_slice(), &inner.digests].concat(),
                ..inner.clone()
            };
            self.expand_command(&turned, depth + 1, all)?;
        }
        Ok(())
    }
}

fn limits(depth: usize, count: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err("aliases form a circle".to_string());
    }
    if count > MAX_GRANTS {
        return Err(format!("aliases of more than {MAX_GRANTS} members"));
    }
    Ok(())
}
