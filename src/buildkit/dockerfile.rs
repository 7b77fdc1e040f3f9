//! Maps the name of a failed step to the Dockerfile's lines, for engines that do not report them.

use std::io::Read;
use std::ops::RangeInclusive;

/// Larger than any Dockerfile.
const SIZE_LIMIT: u64 = 1 << 20;

/// Extracts the Dockerfile from the context's tar.
pub(super) fn from_context(tar: &[u8], path: &str) -> Option<String> {
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().ok()? {
        let entry = entry.ok()?;
        if entry
            .path()
            .is_ok_and(|found| found.as_ref() == std::path::Path::new(path))
        {
            let mut text = String::new();
            entry.take(SIZE_LIMIT).read_to_string(&mut text).ok()?;
            return Some(text);
        }
    }
    None
}

/// The lines, counted from 1, of the only instruction that matches `step` (`[stage 2/3] RUN …`); `None` if several
/// match.
///
/// BuildKit names steps by their instruction, with joined continuation lines and replaced variables.
pub(super) fn lines_of_step(dockerfile: &str, step: &str) -> Option<RangeInclusive<usize>> {
    let instruction = match step.strip_prefix('[') {
        Some(rest) => rest.split_once("] ")?.1,
        None => step,
    };
    let wanted = squeeze(instruction);
    let mut found = instructions(dockerfile).filter(|(_, text)| matches(text, &wanted));
    let first = found.next()?;
    found.next().is_none().then_some(first.0)
}

/// Each instruction with its lines, with joined continuations and without comments.
fn instructions(dockerfile: &str) -> impl Iterator<Item = (RangeInclusive<usize>, String)> {
    let mut lines = dockerfile
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    std::iter::from_fn(move || {
        let (first, line) = lines.next()?;
        let (mut last, mut line) = (first, line);
        let mut text = String::new();
        loop {
            let continued = line.strip_suffix('\\');
            text.push(' ');
            text.push_str(continued.unwrap_or(line));
            match continued.and_then(|_| lines.next()) {
                Some(next) => (last, line) = next,
                None => return Some((first..=last, squeeze(&text))),
            }
        }
    })
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether `step` is `instruction` with its variables replaced.
fn matches(instruction: &str, step: &str) -> bool {
    if instruction == step {
        return true;
    }
    let mut rest = step;
    let pieces = literal_pieces(instruction);
    let variables = pieces.len() > 1;
    for (index, piece) in pieces.iter().enumerate() {
        let at = match index {
            0 => rest.starts_with(piece.as_str()).then_some(0),
            _ => rest.find(piece.as_str()),
        };
        let Some(at) = at else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    variables && (rest.is_empty() || pieces.last().is_some_and(String::is_empty))
}

/// The text between references to variables: `$NAME`, `${…}`.
fn literal_pieces(instruction: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut rest = instruction;
    while let Some(at) = rest.find('$') {
        if let Some(piece) = pieces.last_mut() {
            piece.push_str(&rest[..at]);
        }
        let after = &rest[at + 1..];
        let length = match after.strip_prefix('{') {
            Some(braced) => braced.find('}').map_or(after.len(), |end| end + 2),
            None => after
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(after.len()),
        };
        rest = &after[length..];
        pieces.push(String::new());
    }
    if let Some(piece) = pieces.last_mut() {
        piece.push_str(rest);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKERFILE: &str = "\
# a comment
ARG VERSION=1
FROM scratch AS one
RUN apt-get update \\
    # inside
    && apt-get install \\
       jq

COPY a-${VERSION}.tar /opt/$NAME/
FROM scratch
RUN true
RUN false
RUN true
";

    #[test]
    fn a_step_is_found_by_its_instruction() {
        let lines = |step| lines_of_step(DOCKERFILE, step);
        assert_eq!(
            lines("[one 2/3] RUN apt-get update     && apt-get install        jq"),
            Some(4..=7)
        );
        assert_eq!(lines("[one 3/3] COPY a-1.tar /opt/x/"), Some(9..=9));
        assert_eq!(lines("[stage-1 2/3] RUN false"), Some(12..=12));
    }

    #[test]
    fn a_guess_is_not_made() {
        assert_eq!(lines_of_step(DOCKERFILE, "[stage-1 1/3] RUN true"), None);
        assert_eq!(lines_of_step(DOCKERFILE, "[internal] load metadata"), None);
        assert_eq!(lines_of_step(DOCKERFILE, "exporting to image"), None);
    }
}
