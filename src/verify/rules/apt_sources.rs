//! apt's sources, in both formats of sources.list(5): each archive must be one of the contract's, over HTTP or HTTPS.

use crate::layout::tree::Node;
use crate::verify::Context;
use crate::verify::verdict::Evidence;

/// Fields of a deb822 source, and options of a one-line source, that do not weaken the check of signatures.
const FIELDS: [&str; 10] = [
    "types",
    "uris",
    "suites",
    "components",
    "signed-by",
    "architectures",
    "languages",
    "enabled",
    "arch",
    "lang",
];

pub fn is_one(path: &str) -> bool {
    path == "etc/apt/sources.list"
        || path
            .strip_prefix("etc/apt/sources.list.d/")
            .is_some_and(|n| n.ends_with(".list") || n.ends_with(".sources"))
}

pub fn check(context: &Context, evidence: &mut Evidence, path: &str, node: &Node) {
    let content = context.tree.content(path).map(std::str::from_utf8);
    let Some(Ok(text)) = content else {
        return evidence.file(path, node.layer, "apt sources", "nothing that can be read");
    };
    let findings = match path.ends_with(".sources") {
        true => stanzas(text, &context.terms.host.archives),
        false => lines(text, &context.terms.host.archives),
    };
    for found in findings {
        evidence.file(path, node.layer, context.terms.host.archives.join(" or "), found);
    }
}

/// `deb [option=value …] URI suite component…`
fn lines(text: &str, archives: &[String]) -> Vec<String> {
    let mut findings = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some((kind, rest)) = line.split_once([' ', '\t']).filter(|_| !line.is_empty()) else {
            findings.extend((!line.is_empty()).then(|| format!("the line {line:?}")));
            continue;
        };
        let rest = rest.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']').unwrap_or((rest, "")),
            None => ("", rest),
        };
        let names = options.split_whitespace().filter_map(|option| option.split('=').next());
        findings.extend(names.filter_map(|name| unknown(name.trim_end_matches(['+', '-']))));
        let uri = rest.split_whitespace().next().unwrap_or_default();
        match kind {
            "deb" | "deb-src" => findings.extend(foreign(uri, archives)),
            _ => findings.push(format!("the type {kind:?}")),
        }
    }
    findings
}

/// `URIs: …` in paragraphs; a line that starts with white space continues the field.
fn stanzas(text: &str, archives: &[String]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut field = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let value = match line.starts_with([' ', '\t']) {
            true => line,
            false if line.is_empty() => continue,
            false => {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                field = name.trim().to_ascii_lowercase();
                findings.extend(unknown(&field));
                value
            }
        };
        if field == "uris" {
            findings.extend(value.split_whitespace().filter_map(|uri| foreign(uri, archives)));
        }
    }
    findings
}

fn unknown(name: &str) -> Option<String> {
    let known = FIELDS.contains(&name.to_ascii_lowercase().as_str());
    (!known).then(|| format!("the option {name:?}"))
}

/// An archive's address, if it is not on one of the contract's hosts. It is compared as written: parsers of URLs differ.
fn foreign(uri: &str, archives: &[String]) -> Option<String> {
    let rest = uri.strip_prefix("http://").or_else(|| uri.strip_prefix("https://"));
    let authority = rest.and_then(|rest| rest.split('/').next());
    if authority.is_some_and(|authority| archives.iter().any(|archive| archive == authority)) {
        return None;
    }
    // A user name and a password are not printed.
    let (scheme, rest) = uri.split_once(':').unwrap_or(("", uri));
    let rest = rest.rsplit('@').next().unwrap_or_default();
    Some(format!("{scheme}:{rest}").escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archives() -> Vec<String> {
        vec!["deb.debian.org".to_string(), "security.debian.org".to_string()]
    }

    #[test]
    fn the_sources_of_debian_and_ubuntu_are_allowed() {
        let line = "# comment\n\n deb [ arch=amd64,arm64 signed-by=/usr/share/keyrings/a.gpg ] http://deb.debian.org/debian sid main # c\n\
            deb-src https://deb.debian.org/debian sid main\n";
        assert_eq!(lines(line, &archives()), [""; 0]);
        let stanza = "Types: deb deb-src\n# http://snapshot.debian.org\nURIs: http://deb.debian.org/debian\n  http://security.debian.org/\n\
            Suites: sid\nComponents: main\nSigned-By: /usr/share/keyrings/a.gpg\n\nTypes: deb\nuris:http://deb.debian.org/x\n";
        assert_eq!(stanzas(stanza, &archives()), [""; 0]);
    }

    #[test]
    fn every_other_address_is_found_in_both_formats() {
        for uri in [
            "file:/srv/mirror",
            "file:///srv/mirror",
            "FILE:/srv",
            "copy:/srv",
            "mirror+file:/etc/apt/mirrors/x.list",
            "mirror+http://deb.debian.org/x",
            "mirror://deb.debian.org/x",
            "cdrom:[Debian]/",
            "ssh://deb.debian.org/x",
            "tor+http://deb.debian.org/x",
            "http://mirror.example/debian",
            "http://deb.debian.org:8080/debian",
            "http://deb.debian.org@mirror.example/",
            "http://me:secret@deb.debian.org/debian",
            "http://deb.debian.org.example/",
            "/srv/mirror",
            "$(ARCH)",
            "http:deb.debian.org/x",
            "http://deb.debian.org\\\\@mirror.example/",
            "HTTP://deb.debian.org/",
        ] {
            for found in [
                lines(&format!("deb {uri} sid main\n"), &archives()),
                lines(&format!("deb\t[arch=amd64]  {uri} ./\n"), &archives()),
                stanzas(&format!("URIs: {uri}\n"), &archives()),
                stanzas(&format!("uRiS:\n http://deb.debian.org/debian\n\t{uri}\n"), &archives()),
            ] {
                assert_eq!(found.len(), 1, "{uri}: {found:?}");
                assert!(!found[0].contains("secret"), "{found:?}");
            }
        }
    }

    #[test]
    fn options_that_weaken_signatures_are_found() {
        for option in ["trusted=yes", "allow-insecure=yes", "allow-weak=yes", "check-date=no"] {
            let line = format!("deb [{option} arch=amd64] http://deb.debian.org/debian sid main\n");
            assert_eq!(lines(&line, &archives()).len(), 1, "{line}");
            let (name, value) = option.split_once('=').unwrap();
            assert_eq!(stanzas(&format!("{name}: {value}\n"), &archives()).len(), 1, "{option}");
        }
        assert_eq!(lines("rpm http://deb.debian.org/ x\nnonsense\n", &archives()).len(), 2);
    }
}
