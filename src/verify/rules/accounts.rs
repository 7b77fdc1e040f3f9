//! Rules about the account files: users, groups, and that every password is locked.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::Rule;
use crate::verify::Context;
use crate::verify::etc::GroupEntry;
use crate::verify::verdict::Evidence;

pub const USERS: Rule = Rule {
    id: "users",
    title: "The agent's user matches the contract; no other user is root or has a login shell",
    check: users,
};

pub const GROUPS: Rule = Rule {
    id: "groups",
    title: "The agent's groups match the contract, and group and gshadow agree",
    check: groups,
};

pub const PASSWORDS: Rule = Rule {
    id: "passwords",
    title: "Every password is locked, and only root can read the shadow files",
    check: passwords,
};

/// Reports differences inside one account file.
struct Comparison<'a, 'e> {
    evidence: &'e mut Evidence,
    context: &'a Context<'a>,
    path: &'static str,
}

impl Comparison<'_, '_> {
    fn finding(&mut self, expected: impl Display, found: impl Display) {
        let layer = self.context.tree.get(self.path).map(|n| n.layer);
        self.evidence
            .finding(format_args!("/{}", self.path), layer, expected, found);
    }

    fn equal<T: PartialEq + Display>(&mut self, what: &str, expected: T, found: T) {
        if expected != found {
            self.finding(format_args!("{what} {expected}"), format_args!("{what} {found}"));
        }
    }

    fn unique<K: Ord + Display>(&mut self, what: &str, keys: impl Iterator<Item = K>) {
        let mut seen = BTreeSet::new();
        for key in keys {
            if seen.contains(&key) {
                self.finding(format_args!("one entry with {what} {key}"), "several");
            }
            seen.insert(key);
        }
    }
}

fn users(context: &Context, evidence: &mut Evidence) {
    let (terms, agent) = (&context.terms.accounts, context.expected.identity);
    let mut at = Comparison {
        evidence,
        context,
        path: "etc/passwd",
    };
    let users = match &context.accounts.passwd {
        Ok(users) => users,
        Err(e) => return at.finding("a passwd file", e),
    };
    at.evidence.checked(users.len(), "users");
    at.unique("name", users.iter().map(|u| u.name.as_str()));
    at.unique("UID", users.iter().map(|u| u.uid));
    match users.iter().find(|u| u.name == agent.name) {
        None => at.finding(format_args!("a user {}", agent.name), "none"),
        Some(user) => {
            at.equal(&format!("{}: UID", agent.name), agent.uid, user.uid);
            at.equal(&format!("{}: GID", agent.name), agent.gid, user.gid);
            at.equal(&format!("{}: home", agent.name), agent.home.as_str(), &user.home);
            at.equal(&format!("{}: shell", agent.name), terms.shell.as_str(), &user.shell);
        }
    }
    for user in users {
        if user.uid == 0 && user.name != "root" {
            at.finding("UID 0 only for root", format_args!("UID 0 for {}", user.name));
        }
        if user.password != "x" {
            at.finding(
                format_args!("{}: password field x (password in /etc/shadow)", user.name),
                if user.password.is_empty() {
                    "an empty password field"
                } else {
                    "another password field"
                },
            );
        }
        if !terms.no_shells.contains(&user.shell) && !terms.shell_users.contains(&user.name) {
            at.finding(
                format_args!("{}: no login shell", user.name),
                format_args!("{:?}", user.shell),
            );
        }
    }
}

fn groups(context: &Context, evidence: &mut Evidence) {
    let agent = context.expected.identity;
    let mut at = Comparison {
        evidence,
        context,
        path: "etc/group",
    };
    let groups = match &context.accounts.group {
        Ok(groups) => groups,
        Err(e) => return at.finding("a group file", e),
    };
    at.evidence.checked(groups.len(), "groups");
    at.unique("name", groups.iter().map(|g| g.name.as_str()));
    at.unique("GID", groups.iter().map(|g| g.gid));

    let own = crate::config::file::Group {
        name: agent.name.clone(),
        gid: agent.gid,
    };
    for wanted in std::iter::once(&own).chain(&agent.groups) {
        match groups.iter().find(|g| g.name == wanted.name) {
            None => at.finding(format_args!("a group {}", wanted.name), "none"),
            Some(group) => at.equal(&format!("group {}: GID", wanted.name), wanted.gid, group.gid),
        }
    }
    members(&mut at, groups);
    at.path = "etc/passwd";
    for user in context.accounts.users() {
        if !groups.iter().any(|g| g.gid == user.gid) {
            at.finding(
                format_args!("{}: a primary group that exists", user.name),
                format_args!("GID {}", user.gid),
            );
        }
    }
    at.path = "etc/gshadow";
    group_shadows(&mut at, groups);
}

/// The agent is a member of its own groups only, and every member exists.
fn members(at: &mut Comparison, groups: &[GroupEntry]) {
    let (context, agent) = (at.context, at.context.expected.identity);
    let users: BTreeSet<&str> = context.accounts.users().iter().map(|u| u.name.as_str()).collect();
    let has = |name: &str| agent.groups.iter().any(|g| g.name == name);
    for group in groups {
        let member = group.members.contains(&agent.name);
        if member && !has(&group.name) && group.name != agent.name {
            at.finding(
                format_args!("{} not in group {}", agent.name, group.name),
                "it is a member",
            );
        }
        if !member && has(&group.name) {
            at.finding(
                format_args!("{} in group {}", agent.name, group.name),
                "it is not a member",
            );
        }
        for name in &group.members {
            if !users.contains(name.as_str()) {
                at.finding(format_args!("group {}: only members that exist", group.name), name);
            }
        }
        if group.password != "x" {
            at.finding(
                format_args!("group {}: password field x", group.name),
                format_args!("{:?}", group.password),
            );
        }
    }
}

/// gshadow has an entry with the same members for every group, and no administrators.
fn group_shadows(at: &mut Comparison, groups: &[GroupEntry]) {
    match &at.context.accounts.gshadow {
        Err(e) => at.finding("a gshadow file", e),
        Ok(shadows) => {
            for group in groups {
                let Some(shadow) = shadows.iter().find(|s| s.name == group.name) else {
                    at.finding(format_args!("an entry for group {}", group.name), "none");
                    continue;
                };
                at.equal(
                    &format!("group {}: members", group.name),
                    group.members.join(","),
                    shadow.members.join(","),
                );
                if !shadow.administrators.is_empty() {
                    at.finding(
                        format_args!("group {}: no administrators", group.name),
                        shadow.administrators.join(","),
                    );
                }
            }
        }
    }
}

fn passwords(context: &Context, evidence: &mut Evidence) {
    let mut count = 0;
    for (path, entries) in [
        ("etc/shadow", &context.accounts.shadow),
        ("etc/gshadow", &context.accounts.gshadow),
    ] {
        let mut at = Comparison {
            evidence,
            context,
            path,
        };
        let entries = match entries {
            Ok(entries) => entries,
            Err(e) => {
                at.finding("a readable shadow file", e);
                continue;
            }
        };
        count += entries.len();
        at.unique("name", entries.iter().map(|s| s.name.as_str()));
        for entry in entries {
            if !entry.locked() {
                // Do not print the hash.
                let found = if entry.password.is_empty() {
                    "login without a password"
                } else {
                    "a password"
                };
                at.finding(format_args!("{}: locked (! or *)", entry.name), found);
            }
        }
        if path == "etc/shadow" {
            for user in context.accounts.users() {
                if !entries.iter().any(|e| e.name == user.name) {
                    at.finding(format_args!("an entry for {}", user.name), "none");
                }
            }
        }
    }
    evidence.checked(count, "passwords");

    let shadow_gid = context.accounts.gid("shadow");
    for path in ["etc/shadow", "etc/gshadow", "etc/shadow-", "etc/gshadow-"] {
        let Some(node) = context.tree.get(path) else { continue };
        // At most Debian's 0640 root:shadow.
        if node.mode & !0o640 != 0 || node.uid != 0 || (node.gid != 0 && Some(node.gid) != shadow_gid) {
            evidence.file(
                path,
                node.layer,
                "mode 0640 or less, owner root:shadow",
                format_args!("mode {:04o}, owner {}:{}", node.mode, node.uid, node.gid),
            );
        }
    }
}
