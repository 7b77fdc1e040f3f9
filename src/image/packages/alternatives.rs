//! The links of update-alternatives(1), as its database in `/var/lib/dpkg/alternatives` records them.
//!
//! A file describes one name: a line `auto` or `manual`, the link, then the name and the link of each slave up to an empty
//! line, then for each choice its path, its priority and the paths of its slaves.

use std::collections::BTreeMap;

use crate::layout::tree::Tree;

pub const DIRECTORY: &str = "var/lib/dpkg/alternatives/";
const LINKS: &str = "/etc/alternatives/";

/// Every link that the database names, and the targets that it may have. Both are absolute; unreadable files have none.
pub fn links(tree: &Tree) -> BTreeMap<String, Vec<String>> {
    let mut links = BTreeMap::new();
    for (name, _) in tree.children(DIRECTORY) {
        let text = tree.content(&format!("{DIRECTORY}{name}"));
        if let Some(text) = text.and_then(|bytes| std::str::from_utf8(bytes).ok()) {
            links.extend(parse(name, text));
        }
    }
    links
}

fn parse(name: &str, text: &str) -> Vec<(String, Vec<String>)> {
    let mut lines = text.lines().skip(1);
    // The name of each link in /etc/alternatives, and the link to that.
    let mut names = vec![(name, lines.next().unwrap_or_default())];
    while let Some(slave) = lines.next().filter(|line| !line.is_empty()) {
        names.push((slave, lines.next().unwrap_or_default()));
    }
    let lines: Vec<&str> = lines.collect();
    // Path, priority, and one path for each slave.
    let choices = lines.chunks_exact(names.len() + 1).take_while(|c| !c[0].is_empty());
    let choices: Vec<&[&str]> = choices.collect();
    let mut links = Vec::new();
    for (at, (name, link)) in names.into_iter().enumerate() {
        let column = if at == 0 { 0 } else { at + 1 };
        let targets = choices.iter().map(|c| c[column].to_string()).filter(|t| !t.is_empty());
        links.push((format!("{LINKS}{name}"), targets.collect()));
        links.push((link.to_string(), vec![format!("{LINKS}{name}")]));
    }
    links
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_name_gives_its_links_and_those_of_its_slaves() {
        let text = "auto\n/usr/bin/awk\nawk.1.gz\n/usr/share/man/man1/awk.1.gz\n\n\
            /usr/bin/mawk\n5\n/usr/share/man/man1/mawk.1.gz\n/usr/bin/original-awk\n0\n\n\n";
        let links = parse("awk", text);
        let target = |link: &str| links.iter().find(|(l, _)| l == link).map(|(_, t)| t.join(" "));
        assert_eq!(target("/usr/bin/awk").as_deref(), Some("/etc/alternatives/awk"));
        assert_eq!(
            target("/etc/alternatives/awk").as_deref(),
            Some("/usr/bin/mawk /usr/bin/original-awk")
        );
        let page = target("/etc/alternatives/awk.1.gz");
        assert_eq!(page.as_deref(), Some("/usr/share/man/man1/mawk.1.gz"));
        assert_eq!(links.len(), 4);
    }
}
