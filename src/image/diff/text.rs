//! Differences as a person reads them.

use std::fmt::{self, Display};

use super::{Change, Changes, Difference, FileFacts};

/// How many lines of each kind of difference are shown; JSON has all.
const SHOWN: usize = 40;

/// For people: a heading with counts for each kind that differs, then at most [`SHOWN`] lines.
impl Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(platform) = self.platform {
            writeln!(f, "{platform}")?;
        }
        if self.is_empty() {
            return writeln!(f, "no difference");
        }
        section(
            f,
            "packages",
            &self.packages,
            |v| v.clone(),
            |c| format!("{} -> {}", c.from, c.to),
        )?;
        section(
            f,
            "Python distributions",
            &self.python,
            |v| v.clone(),
            |c| format!("{} -> {}", c.from, c.to),
        )?;
        section(
            f,
            "patches",
            &self.patches,
            |v| v.clone(),
            |c| format!("{} -> {}", c.from, c.to),
        )?;
        section(
            f,
            "configuration",
            &self.config,
            |v| v.clone(),
            |c| format!("{} -> {}", c.from, c.to),
        )?;
        section(f, "files", &self.files, FileFacts::to_string, |c| c.from.against(&c.to))
    }
}

fn section<T>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    changes: &Changes<T>,
    one: impl Fn(&T) -> String,
    both: impl Fn(&Change<T>) -> String,
) -> fmt::Result {
    if changes.is_empty() {
        return Ok(());
    }
    let (added, removed, changed) = (changes.added.len(), changes.removed.len(), changes.changed.len());
    writeln!(f, "{title}: {added} added, {removed} removed, {changed} changed")?;
    let lines = (changes.removed.iter().map(|(k, v)| ('-', k, one(v))))
        .chain(changes.added.iter().map(|(k, v)| ('+', k, one(v))))
        .chain(changes.changed.iter().map(|(k, c)| ('~', k, both(c))));
    for (mark, key, text) in lines.take(SHOWN) {
        writeln!(f, "  {mark} {key}  {text}")?;
    }
    let all = added + removed + changed;
    if all > SHOWN {
        writeln!(f, "  and {} more (--json has all)", all - SHOWN)?;
    }
    Ok(())
}

impl Display for FileFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}:{}", self.kind, self.mode, self.uid, self.gid)?;
        if let Some(size) = self.size {
            write!(f, " {size} bytes")?;
        }
        if let Some(target) = &self.target {
            write!(f, " {target}")?;
        }
        Ok(())
    }
}

impl FileFacts {
    /// Only what is not the same: `mode 0755 -> 4755, size 10 -> 12`.
    fn against(&self, to: &FileFacts) -> String {
        let mut parts = Vec::new();
        let mut part = |what: &str, from: &dyn Display, to: &dyn Display| {
            let (from, to) = (from.to_string(), to.to_string());
            if from != to {
                parts.push(format!("{what} {from} -> {to}"));
            }
        };
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_string());
        part("kind", &self.kind, &to.kind);
        part("mode", &self.mode, &to.mode);
        part(
            "owner",
            &format_args!("{}:{}", self.uid, self.gid),
            &format_args!("{}:{}", to.uid, to.gid),
        );
        part("size", &self.size.unwrap_or_default(), &to.size.unwrap_or_default());
        part("target", &or_none(&self.target), &or_none(&to.target));
        if self.xattrs != to.xattrs {
            parts.push("extended attributes".to_string());
        }
        if self.sha256 != to.sha256 {
            parts.push("content".to_string());
        }
        parts.join(", ")
    }
}
