//! A conversation with all daemons, in which each is followed into contexts on its own.
//!
//! No daemon says in which context it is, and one that was refused a context answers the lines inside it from where it stayed:
//! zebra, which has no `router bgp`, leaves configuration mode at the `exit` that was meant for bgpd. So a line goes to those
//! daemons only that entered every open context. Where all of these do not know it, those that stayed one level above are asked,
//! as FRR's vtysh walks up. Back on the top level, each daemon is brought there absolutely (`end`, `configure terminal`), so
//! that a daemon which walked up unseen is in step again.

use std::path::Path;
use std::time::Duration;

use super::VtyshError;
use super::context::{Kind, Step, step};
use crate::vty::{Connection, Reply, VtyError, daemons};

/// The outcome of a line.
#[derive(Debug, Default)]
pub struct Answer {
    /// As in a [`Reply`]: at most 1 where it was accepted.
    pub status: u8,
    replies: Vec<(String, Reply)>,
}

impl Answer {
    fn plain(status: u8) -> Self {
        Self {
            status,
            replies: Vec::new(),
        }
    }

    fn refused_by_client(text: &str) -> Self {
        let reply = Reply {
            text: text.to_string(),
            status: Reply::REFUSED,
        };
        Self {
            status: Reply::REFUSED,
            replies: vec![("vtysh".to_string(), reply)],
        }
    }

    /// A daemon that refuses weighs more than one that accepts, and that more than those that do not know the line.
    fn of(replies: Vec<(String, Reply)>) -> Self {
        let statuses = || replies.iter().map(|(_, reply)| reply);
        let refused = statuses().find(|reply| !reply.is_accepted() && !reply.is_unknown());
        let accepted = || {
            statuses()
                .filter(|reply| reply.is_accepted())
                .max_by_key(|reply| reply.status)
        };
        let unknown = || statuses().max_by_key(|reply| reply.status);
        let decisive = refused.or_else(accepted).or_else(unknown);
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

    /// (daemon, status, text) of those that refused the line.
    pub fn refusals(&self) -> impl Iterator<Item = (&str, u8, &str)> {
        let refused = self
            .replies
            .iter()
            .filter(|(_, reply)| !reply.is_accepted() && !reply.is_unknown());
        refused.map(|(daemon, reply)| (daemon.as_str(), reply.status, reply.text.as_str()))
    }
}

#[derive(Debug)]
struct Daemon {
    connection: Connection,
    /// How many of the open contexts it entered; `None` when it is not in configuration mode.
    depth: Option<usize>,
}

#[derive(Debug)]
pub struct Session {
    daemons: Vec<Daemon>,
    configuring: bool,
    open: Vec<Kind>,
}

impl Session {
    /// Connects to all daemons that listen. One that is there and cannot be spoken to is an error: half of a configuration
    /// is worse than none.
    pub fn open(sockets: &Path, patience: Duration) -> Result<Self, VtyshError> {
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
            match Connection::open(sockets, &name, patience) {
                Ok(mut connection) => {
                    connection.ask("enable")?;
                    session.daemons.push(Daemon {
                        connection,
                        depth: None,
                    });
                }
                Err(error) if error.is_absence() => {}
                Err(error) => return Err(error.into()),
            }
        }
        match session.daemons.is_empty() {
            true => Err(VtyshError::Nobody(sockets.to_path_buf())),
            false => Ok(session),
        }
    }

    /// One line, which may lead into configuration mode and its contexts, or out of them.
    pub fn execute(&mut self, line: &str) -> Answer {
        let line = line.trim();
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.is_empty() || line.starts_with(['!', '#']) {
            return Answer::plain(0);
        }
        if is_of_vtysh(&words) {
            return Answer::refused_by_client(
                "% write and copy are for FRR's own vtysh: each daemon would write a file of its own\n",
            );
        }
        if !self.configuring {
            return match *words.as_slice() {
                ["configure" | "conf" | "config"] | ["configure" | "conf" | "config", "terminal" | "term" | "t"] => {
                    self.configure()
                }
                // Sent on, they would end the connections.
                ["exit" | "quit" | "end"] => Answer::plain(0),
                _ => self.tell(|_| true, line),
            };
        }
        match words.as_slice() {
            ["end"] => self.end(),
            words => match step(words, &self.open) {
                Step::Open { parent, kind } => self.enter(parent, kind, line),
                Step::Close if self.open.is_empty() => self.end(),
                Step::Close => self.leave_to(self.open.len() - 1),
                Step::Stay => self.command(line),
                Step::Abbreviated => Answer::refused_by_client("% write the words that open a context in full\n"),
            },
        }
    }

    pub fn configure(&mut self) -> Answer {
        self.configuring = true;
        let answer = self.tell(|_| true, "configure terminal");
        self.note_depths(&answer, |accepted, _| accepted.then_some(0));
        answer
    }

    /// Leaves configuration mode.
    pub fn end(&mut self) -> Answer {
        let answer = self.tell(|daemon| daemon.depth.is_some(), "end");
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
            false => Answer::plain(0),
        };
        if answer.is_accepted() {
            answer = self.tell(|daemon| daemon.depth == Some(parent), line);
            self.note_depths(&answer, |accepted, depth| match accepted {
                true => Some(parent + 1),
                false => depth,
            });
        }
        // Also when nobody entered it: the lines inside are not meant for the level above.
        self.open.push(kind);
        answer
    }

    /// Brings everybody to the first `level` contexts.
    fn leave_to(&mut self, level: usize) -> Answer {
        let mut answer = Answer::plain(0);
        if level == 0 {
            let inside = |daemon: &Daemon| daemon.depth.is_some_and(|depth| depth > 0);
            let ended = self.tell(inside, "end");
            let again = self.tell(inside, "configure terminal");
            self.note_depths(&again, |accepted, _| accepted.then_some(0));
            answer = if ended.replies.is_empty() || ended.is_accepted() {
                again
            } else {
                ended
            };
        }
        while level > 0 && self.open.len() > level {
            let innermost = self.open.len();
            answer = self.tell(|daemon| daemon.depth == Some(innermost), "exit");
            self.note_depths(&answer, |accepted, depth| match accepted {
                true => Some(innermost - 1),
                false => depth,
            });
            self.open.pop();
        }
        self.open.truncate(level);
        if answer.replies.is_empty() {
            Answer::plain(0)
        } else {
            answer
        }
    }

    /// A line that stays: for those in the innermost context, else for those that stayed above it.
    fn command(&mut self, line: &str) -> Answer {
        let innermost = self.open.len();
        if !self.daemons.iter().any(|daemon| daemon.depth == Some(innermost)) {
            return Answer::refused_by_client("% not sent: the context it is in was refused\n");
        }
        let mut best = Answer::plain(0);
        for level in (0..=innermost).rev() {
            let answer = self.tell(|daemon| daemon.depth == Some(level), line);
            if !answer.is_unknown() {
                let left = if level < innermost {
                    self.leave_to(level)
                } else {
                    Answer::plain(0)
                };
                return if left.is_accepted() { answer } else { left };
            }
            // What those inside say about it counts.
            if answer.status > best.status {
                best = answer;
            }
        }
        best
    }

    /// Sends a line to some daemons. One that goes away or hangs counts as refusing, and is not spoken to again.
    fn tell(&mut self, to: impl Fn(&Daemon) -> bool, line: &str) -> Answer {
        let mut replies = Vec::new();
        self.daemons.retain_mut(|daemon| {
            if !to(daemon) {
                return true;
            }
            let name = daemon.connection.daemon().to_string();
            match daemon.connection.ask(line) {
                Ok(reply) => {
                    replies.push((name, reply));
                    true
                }
                Err(error) => {
                    let unsent = matches!(error, VtyError::Line { .. });
                    let text = format!("{error}\n");
                    let status = Reply::REFUSED;
                    replies.push((name, Reply { text, status }));
                    unsent
                }
            }
        });
        Answer::of(replies)
    }

    fn note_depths(&mut self, answer: &Answer, depth: impl Fn(bool, Option<usize>) -> Option<usize>) {
        for daemon in &mut self.daemons {
            let name = daemon.connection.daemon();
            if let Some((_, reply)) = answer.replies.iter().find(|(answered, _)| answered == name) {
                daemon.depth = depth(reply.is_accepted(), daemon.depth);
            }
        }
    }
}

/// Commands that FRR's vtysh carries out itself; to a daemon they mean something else.
fn is_of_vtysh(words: &[&str]) -> bool {
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
