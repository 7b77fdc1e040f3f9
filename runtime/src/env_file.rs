//! Variables <-> an env file that a shell can source: one `NAME='value'` per line, `'\''` for a quote in a value.
//!
//! `frr-init` writes it, `agent` and `drain` read it. The parser accepts only what [`render`] writes.

use std::collections::BTreeMap;
use std::fmt::Write;

pub fn render<'a>(variables: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut text = String::new();
    for (name, value) in variables {
        // A shell changes nothing within single quotes, but a single quote cannot be within them.
        let quoted = value.replace('\'', r"'\''");
        let _ = writeln!(text, "{name}='{quoted}'");
    }
    text
}

/// The variables, or the line number and the problem in that line.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, (usize, String)> {
    let mut values = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let line = text[..text.len() - rest.len()].matches('\n').count() + 1;
        let Some((name, after)) = rest.split_once('=') else {
            return Err((line, "NAME='value' is expected".into()));
        };
        let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(plain) {
            let name = name.lines().next().unwrap_or_default();
            return Err((line, format!("{name:?} is not a variable name")));
        }
        let Some((value, after)) = quoted(after) else {
            return Err((
                line,
                format!("the value of {name} is not in single quotes, or text follows the closing quote"),
            ));
        };
        if values.insert(name.to_string(), value).is_some() {
            return Err((line, format!("{name} occurs twice")));
        }
        rest = after;
    }
    Ok(values)
}

/// The quoted value at the start of a text, and the text after its line.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.strip_prefix('\'')?.split_once('\'')?;
        value += part;
        match after.strip_prefix(r"\'") {
            Some(after) => {
                value.push('\'');
                rest = after;
            }
            None => return Some((value, after.strip_prefix('\n')?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_assignment_per_line() {
        let text = render([
            ("NODE_NAME", "worker1".to_string()),
            ("BGP_AS", "4200049263".to_string()),
        ]);
        assert_eq!(text, "NODE_NAME='worker1'\nBGP_AS='4200049263'\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A real shell reads the written value back and executes no part of it.
        #[test]
        fn a_shell_reads_the_written_value(value in r#"[ -~\n\t'"$`\\äß]{0,40}"#) {
            let script = format!("{}printf '%s.' \"$VALUE\"", render([("VALUE", value.clone())]));
            let output = Command::new("sh").args(["-c", &script]).env_clear().output().unwrap();
            prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{value}."));
        }

        #[test]
        fn values_survive_quoting(value in r#"[ -~\n\t'"$`\\äß]{0,40}"#) {
            let values = parse(&render([("A", value.clone()), ("B", "x".to_string())])).unwrap();
            prop_assert_eq!((&values["A"], values["B"].as_str()), (&value, "x"));
        }

        #[test]
        fn any_text_is_parsed_without_a_panic(text: String) {
            let _ = parse(&text);
        }
    }
}
