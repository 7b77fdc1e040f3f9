//! Names and values -> a file of assignments that a shell can source, and `obgp-runtime agent` reads.

use std::fmt::Write;

/// One `NAME='value'` per line; whatever is in the value, it stays one.
pub fn render<'a>(variables: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut text = String::new();
    for (name, value) in variables {
        // Inside single quotes a shell leaves everything as it is; a quote itself cannot be there.
        let quoted = value.replace('\'', r"'\''");
        let _ = writeln!(text, "{name}='{quoted}'");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_assignment_a_line() {
        let text = render([
            ("NODE_NAME", "worker1".to_string()),
            ("BGP_AS", "4200049263".to_string()),
        ]);
        assert_eq!(text, "NODE_NAME='worker1'\nBGP_AS='4200049263'\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A real shell gets back what was written, and runs nothing of it.
        #[test]
        fn a_shell_reads_what_was_written(value in r#"[ -~\n\t'"$`\\äß]{0,40}"#) {
            let script = format!("{}printf '%s.' \"$VALUE\"", render([("VALUE", value.clone())]));
            let output = Command::new("sh").args(["-c", &script]).env_clear().output().unwrap();
            prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{value}."));
        }
    }
}
