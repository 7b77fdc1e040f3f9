//! Joins physical lines into logical lines, and removes comments.

/// Returns `(number of the first line, text)`. `#include` and `#includedir` are not comments; `#1000` is a UID.
pub fn logical(text: &str) -> Vec<(usize, Result<String, &'static str>)> {
    let mut all = Vec::new();
    let mut physical = text.split('\n').enumerate();
    while let Some((number, first)) = physical.next() {
        let mut joined = String::new();
        let mut quoted = false;
        let mut next = Some(first);
        while let Some(line) = next.take() {
            let line = line.strip_suffix('\r').unwrap_or(line);
            if joined.is_empty() && is_directive(line) {
                joined.push_str(line);
                break;
            }
            let (content, continued) = scan(line, &mut quoted);
            joined.push_str(content);
            if continued {
                // sudo treats the break as white space, except in a string, where it is not useful.
                joined.push(' ');
                next = physical.next().map(|(_, line)| line);
            }
        }
        let trimmed = joined.trim_matches([' ', '\t']);
        if quoted {
            all.push((number + 1, Err("a string that does not end in its line")));
        } else if trimmed.contains(|c: char| c.is_control() && c != '\t') {
            all.push((number + 1, Err("a control character")));
        } else if !trimmed.is_empty() {
            all.push((number + 1, Ok(trimmed.to_string())));
        }
    }
    all
}

fn is_directive(line: &str) -> bool {
    let line = line.trim_start_matches([' ', '\t']);
    ["#include", "#includedir"]
        .iter()
        .any(|d| line.strip_prefix(d).is_some_and(|rest| rest.starts_with([' ', '\t'])))
}

/// The part of a line before its comment, and whether a final backslash continues the line.
fn scan<'a>(line: &'a str, quoted: &mut bool) -> (&'a str, bool) {
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(_) => {}
                None => return (&line[..at], true),
            },
            '"' => *quoted = !*quoted,
            '#' if !*quoted => {
                let rest = &line[at + 1..];
                let rest = rest.strip_prefix('-').unwrap_or(rest);
                if !rest.starts_with(|c: char| c.is_ascii_digit()) {
                    return (&line[..at], false);
                }
            }
            _ => {}
        }
    }
    (line, false)
}
