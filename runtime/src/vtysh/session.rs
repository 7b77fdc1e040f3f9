//! A session with all daemons, which tracks the context of each daemon.
//!
//! A daemon does not report its context, and a daemon that rejected a context executes the lines inside it in its own context:
//! zebra, which has no `router bgp`, leaves configuration mode at the `exit` for bgpd. So a line is sent only to the daemons that
//! entered every open context. If none of them knows the line, it is sent to the daemons one level up, as FRR's vtysh does.
//! On the return to the top level every daemon is reset (`end`, `configure terminal`), in case a daemon left a context by itself.

use std::path::Path;
use std::time::Duration;

use super::VtyshError;
use super::context::{Kind, Step, step};
use crate::vty::{Connection, Reply, VtyError, daemons};

/// The replies to one line.
#[derive(Debug, Default)]
pub struct Answer {
    /// As in a [`Reply`]: at most 1 if the line was accepted.
    pub status: u8,
    replies: Vec<(String, Reply)>,
}

impl Answer {
    fn without_replies(status: u8) -> Self {
        Self {
            status,
            replies: Vec::new(),
        }
    }

    fn rejected_by_client(text: &str) -> Self {
        let reply = Reply {
            text: text.to_string(),
            status: Reply::REJECTED,
        };
        Self {
            status: Reply::REJECTED,
            replies: vec![("vtysh".to_string(), reply)],
        }
    }

    /// A rejection takes precedence over an acceptance, and an acceptance over an unknown command.
    fn from_replies(replies: Vec<(String, Reply)>) -> Self {
        let statuses = || replies.iter().map(|(_, reply)| reply);
        let rejected = statuses().find(|reply| !reply.is_accepted() && !reply.is_unknown());
        let accepted = || {
            statuses()
                .filter(|reply| reply.is_accepted())
                .max_by_key(|reply| reply.status)
        };
        let unknown = || statuses().max_by_key(|reply| reply.status);
        let decisive = rejected.or_else(accepted).or_else(unknown);
        Self {
            status: decisive.map_or(Reply::UNKNOWN, |reply| reply.status),
            replies,
        }
    }

    pub fn is_accepted(&self) -> bool {
        self.status <= 1
    }

    fn is_unknown(&self) -> bool {
        matches!(self.status, Reply::UNKNOWN | Reply::AMBIGUOUS | Reply::INCOMPLETE)
    }

    pub fn accepted_texts(&self) -> impl Iterator<Item = &str> {
        let accepted = self.replies.iter().filter(|(_, reply)| reply.is_accepted());
        accepted
            .map(|(_, reply)| reply.text.as_str())
            .filter(|text| !text.is_empty())
    }

    /// (daemon, status, text) of each rejection.
    pub fn rejections(&self) -> impl Iterator<Item = (&str, u8, &str)> {
        let rejected = self
            .replies
            .iter()
            .filter(|(_, reply)| !reply.is_accepted() && !reply.is_unknown());
        rejected.map(|(daemon, reply)| (daemon.as_str(), reply.status, reply.text.as_str()))
    }
}

#[derive(Debug)]
struct Daemon {
    connection: Connection,
    /// The number of open contexts that it entered. `None` outside configuration mode.
    depth: Option<usize>,
}

#[derive(Debug)]
pub struct Session {
    daemons: Vec<Daemon>,
    configuring: bool,
    open: Vec<Kind>,
}

impl Session {
    /// Connects to all daemons that listen. A daemon that listens and does not respond is an error: a partial configuration is worse
    /// than none.
    pub fn open(sockets: &Path, timeout: Duration) -> Result<Self, VtyshError> {
        let mut session = Self {
            daemons: Vec::new(),
            configuring: false,
            open: Vec::new(),
        };
        let names = match daemons(sockets) {
            Ok(names) => names,
            Err(VtyError::Directory { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        for name in names {
            match Connection::open(sockets, &name, timeout) {
                Ok(mut connection) => {
                    connection.execute("enable")?;
                    session.daemons.push(Daemon {
                        connection,
                        depth: None,
                    });
                }
                Err(error) if error.is_not_running() => {}
                Err(error) => return Err(error.into()),
            }
        }
        match session.daemons.is_empty() {
            true => Err(VtyshError::NoDaemons(sockets.to_path_buf())),
            false => Ok(session),
        }
    }

    /// Executes one line, which may enter or leave configuration mode or a context.
    pub fn execute(&mut self, line: &str) -> Answer {
        let line = line.trim();
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.is_empty() || line.starts_with(['!', '#']) {
            return Answer::without_replies(0);
        }
        if is_local_command(&words) {
            return Answer::rejected_by_client(
                "% write and copy are not supported: each daemon would write its own file\n",
            );
        }
        if !self.configuring {
            return match *words.as_slice() {
                ["configure" | "conf" | "config"] | ["configure" | "conf" | "config", "terminal" | "term" | "t"] => {
                    self.configure()
                }
                // The daemons would close the connections.
                ["exit" | "quit" | "end"] => Answer::without_replies(0),
                _ => self.send(|_| true, line),
            };
        }
        match words.as_slice() {
            ["end"] => self.end(),
            words => match step(words, &self.open) {
                Step::Open { parent, kind } => self.enter(parent, kind, line),
                Step::Close if self.open.is_empty() => self.end(),
                Step::Close => self.leave_to(self.open.len() - 1),
                Step::Stay => self.command(line),
                Step::Abbreviated => Answer::rejected_by_client("% do not abbreviate the words that open a context\n"),
            },
        }
    }

    pub fn configure(&mut self) -> Answer {
        self.configuring = true;
        let answer = self.send(|_| true, "configure terminal");
        self.update_depths(&answer, |accepted, _| accepted.then_some(0));
        answer
    }

    /// Leaves configuration mode.
    pub fn end(&mut self) -> Answer {
        let answer = self.send(|daemon| daemon.depth.is_some(), "end");
        self.configuring = false;
        self.open.clear();
        for daemon in &mut self.daemons {
            daemon.depth = None;
        }
        answer
    }

    pub fn leave_all_contexts(&mut self) {
        self.leave_to(0);
    }

    fn enter(&mut self, parent: usize, kind: Kind, line: &str) -> Answer {
        let mut answer = match self.open.len() > parent {
            true => self.leave_to(parent),
            false => Answer::without_replies(0),
        };
        if answer.is_accepted() {
            answer = self.send(|daemon| daemon.depth == Some(parent), line);
            self.update_depths(&answer, |accepted, depth| match accepted {
                true => Some(parent + 1),
                false => depth,
            });
        }
        // Even if no daemon entered it: the lines inside must not reach the level above.
        self.open.push(kind);
        answer
    }

    /// Closes contexts until `level` are open.
    fn leave_to(&mut self, level: usize) -> Answer {
        let mut answer = Answer::without_replies(0);
        if level == 0 {
            let inside = |daemon: &Daemon| daemon.depth.is_some_and(|depth| depth > 0);
            let ended = self.send(inside, "end");
            let again = self.send(inside, "configure terminal");
            self.update_depths(&again, |accepted, _| accepted.then_some(0));
            answer = if ended.replies.is_empty() || ended.is_accepted() {
                again
            } else {
                ended
            };
        }
        while level > 0 && self.open.len() > level {
            let innermost = self.open.len();
            answer = self.send(|daemon| daemon.depth == Some(innermost), "exit");
            self.update_depths(&answer, |accepted, depth| match accepted {
                true => Some(innermost - 1),
                false => depth,
            });
            self.open.pop();
        }
        self.open.truncate(level);
        if answer.replies.is_empty() {
            Answer::without_replies(0)
        } else {
            answer
        }
    }

    /// Sends a command to the daemons in the innermost context; if it is unknown there, to those one level up, and so on.
    fn command(&mut self, line: &str) -> Answer {
        let innermost = self.open.len();
        if !self.daemons.iter().any(|daemon| daemon.depth == Some(innermost)) {
            return Answer::rejected_by_client("% not sent: every daemon rejected the context of this line\n");
        }
        let mut best = Answer::without_replies(0);
        for level in (0..=innermost).rev() {
            let answer = self.send(|daemon| daemon.depth == Some(level), line);
            if !answer.is_unknown() {
                let left = if level < innermost {
                    self.leave_to(level)
                } else {
                    Answer::without_replies(0)
                };
                return if left.is_accepted() { answer } else { left };
            }
            // The innermost daemons' status counts.
            if answer.status > best.status {
                best = answer;
            }
        }
        best
    }

    /// Sends a line to the daemons selected by `to`. A daemon that disconnects or hangs counts as a rejection and gets no further
    /// lines.
    fn send(&mut self, to: impl Fn(&Daemon) -> bool, line: &str) -> Answer {
        let mut replies = Vec::new();
        self.daemons.retain_mut(|daemon| {
            if !to(daemon) {
                return true;
            }
            let name = daemon.connection.daemon().to_string();
            match daemon.connection.execute(line) {
                Ok(reply) => {
                    replies.push((name, reply));
                    true
                }
                Err(error) => {
                    let unsent = matches!(error, VtyError::Line { .. });
                    let text = format!("{error}\n");
                    let status = Reply::REJECTED;
                    replies.push((name, Reply { text, status }));
                    unsent
                }
            }
        });
        Answer::from_replies(replies)
    }

    fn update_depths(&mut self, answer: &Answer, depth: impl Fn(bool, Option<usize>) -> Option<usize>) {
        for daemon in &mut self.daemons {
            let name = daemon.connection.daemon();
            if let Some((_, reply)) = answer.replies.iter().find(|(answered, _)| answered == name) {
                daemon.depth = depth(reply.is_accepted(), daemon.depth);
            }
        }
    }
}

/// Commands that FRR's vtysh executes itself. They have another meaning for a daemon.
fn is_local_command(words: &[&str]) -> bool {
    let words = match words {
        ["do", rest @ ..] => rest,
        words => words,
    };
    let begins = |word: &str, command: &str, least: usize| word.len() >= least && command.starts_with(word);
    words
        .first()
        .is_some_and(|word| begins(word, "write", 2) || begins(word, "copy", 3))
}

#[cfg(test)]
mod tests;
