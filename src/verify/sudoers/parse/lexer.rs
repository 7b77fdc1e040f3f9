//! Lexes a line of sudoers(5): names, strings, lists, patterns and regular expressions.

use super::Result;
use crate::verify::sudoers::Member;

/// Characters that end a word, unless escaped.
pub const SPECIAL: [char; 11] = ['!', '=', ':', ',', '(', ')', ' ', '\t', '"', '>', '#'];

/// The rest of a line.
pub struct Parser<'a> {
    pub rest: &'a str,
}

impl Parser<'_> {
    pub fn blank(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    pub fn eat(&mut self, token: &str) -> bool {
        self.blank();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    pub fn expect(&mut self, token: &str) -> Result<()> {
        if self.eat(token) {
            Ok(())
        } else {
            Err(format!("{token:?} expected before {}", self.here()))
        }
    }

    pub fn end(&mut self) -> Result<()> {
        self.blank();
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(format!("{} not understood", self.here()))
        }
    }

    pub fn here(&self) -> String {
        match self.rest.chars().take(20).collect::<String>() {
            s if s.is_empty() => "the end of the line".to_string(),
            s => format!("{s:?}"),
        }
    }

    /// Reads characters up to one of `ends`; a backslash escapes the next character.
    pub fn word(&mut self, ends: &[char]) -> Result<String> {
        self.blank();
        let mut word = String::new();
        let mut chars = self.rest.char_indices();
        let end = loop {
            match chars.next() {
                None => break self.rest.len(),
                Some((_, '\\')) => match chars.next() {
                    Some((_, c)) => word.push(c),
                    None => return Err("a backslash at the end".to_string()),
                },
                Some((at, c)) if ends.contains(&c) => break at,
                Some((_, c)) => word.push(c),
            }
        };
        if word.is_empty() {
            return Err(format!("a word expected before {}", self.here()));
        }
        self.rest = &self.rest[end..];
        Ok(word)
    }

    pub fn string(&mut self) -> Result<Option<String>> {
        if !self.eat("\"") {
            return Ok(None);
        }
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        loop {
            match chars.next() {
                None => return Err("a string without an end".to_string()),
                Some((at, '"')) => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(Some(text));
                }
                // Only the quote needs escaping; any other backslash is literal.
                Some((_, '\\')) => match chars.next() {
                    Some((_, '"')) => text.push('"'),
                    Some((_, c)) => text.extend(['\\', c]),
                    None => return Err("a string without an end".to_string()),
                },
                Some((_, c)) => text.push(c),
            }
        }
    }

    pub fn path_word(&mut self) -> Result<String> {
        match self.string()? {
            Some(path) => Ok(path),
            None => self.word(&[' ', '\t', '"']),
        }
    }

    pub fn negations(&mut self) -> bool {
        let mut negated = false;
        while self.eat("!") {
            negated = !negated;
        }
        negated
    }

    pub fn member(&mut self) -> Result<Member> {
        let negated = self.negations();
        self.blank();
        let name = if let Some(name) = self.string()? {
            name
        } else {
            // `#0`, `%#27` and `%:group` have special characters in their prefix.
            let prefix: String = ["%#", "%:", "#", "%"]
                .iter()
                .find(|p| self.rest.starts_with(**p))
                .map(|p| p.to_string())
                .unwrap_or_default();
            self.rest = &self.rest[prefix.len()..];
            if self.rest.starts_with([' ', '\t']) {
                return Err(format!("a name expected after {prefix:?}"));
            }
            let quoted = if prefix.is_empty() { None } else { self.string()? };
            match quoted {
                Some(name) => prefix + &name,
                None => prefix + &self.word(&SPECIAL)?,
            }
        };
        if name.is_empty() {
            return Err("an empty name".to_string());
        }
        Ok(Member { negated, name })
    }

    pub fn members(&mut self) -> Result<Vec<Member>> {
        self.separated(Self::member)
    }

    pub fn separated<T>(&mut self, element: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut all = vec![element(self)?];
        while self.eat(",") {
            all.push(element(self)?);
        }
        Ok(all)
    }

    /// Reads a path, or arguments with runs of white space replaced by one space. An escaped character that is special
    /// in sudoers is literal; one that is special in fnmatch(3) keeps its backslash.
    pub fn pattern(&mut self, path: bool) -> Result<String> {
        self.blank();
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        let end = loop {
            match chars.next() {
                None => break self.rest.len(),
                Some((_, '\\')) => match chars.next() {
                    Some((_, c @ (',' | ':' | '=' | ' ' | '\t' | '#' | '"'))) => text.push(c),
                    Some((_, c)) => text.extend(['\\', c]),
                    None => return Err("a backslash at the end".to_string()),
                },
                Some((at, ',' | ':' | '#')) => break at,
                Some((at, '=')) if path => break at,
                Some((at, ' ' | '\t')) if path => break at,
                Some((_, ' ' | '\t')) => {
                    if !text.ends_with(' ') {
                        text.push(' ');
                    }
                }
                Some((_, c)) => text.push(c),
            }
        };
        self.rest = &self.rest[end..];
        let text = text.trim_end_matches(' ').to_string();
        if text.is_empty() {
            Err(format!("a command expected before {}", self.here()))
        } else {
            Ok(text)
        }
    }

    /// Reads `^…$`; after the dollar only the text after a command may follow.
    pub fn regex(&mut self) -> Result<String> {
        let mut escaped = false;
        for (at, c) in self.rest.char_indices() {
            if c == '$' && !escaped {
                let rest = &self.rest[at + 1..];
                let after = rest.trim_start_matches([' ', '\t']);
                let separated = rest.starts_with([' ', '\t']) || after.is_empty();
                if separated || after.starts_with([',', ':', '=', '#']) {
                    let regex = self.rest[..=at].to_string();
                    self.rest = rest;
                    return Ok(regex);
                }
            }
            escaped = c == '\\' && !escaped;
        }
        Err("a regular expression without `$` at its end".to_string())
    }
}
