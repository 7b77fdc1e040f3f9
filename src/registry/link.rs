//! Finds the next page of a list in the `Link` headers of a response: RFC 8288, parsed as its appendix B.2 describes.
//!
//! Why not `nom-rfc8288` 0.4, the kept crate: it brings second versions of `nom` and `itertools`, and rejects a whole
//! header for one value that is neither a token nor quoted.

use http::HeaderMap;
use http::header::LINK;

/// The target of the first link with the relation `next`; relative targets stay so. A header that cannot be parsed is
/// an error, because it may name another page.
pub(super) fn next(headers: &HeaderMap) -> Result<Option<String>, String> {
    for value in headers.get_all(LINK) {
        let text = value.to_str().map_err(|e| e.to_string())?;
        let links = parse(text).ok_or_else(|| format!("its Link header is not valid: {text}"))?;
        if let Some(link) = links.into_iter().find(Link::is_next) {
            return Ok(Some(link.target));
        }
    }
    Ok(None)
}

#[derive(Debug, Default)]
struct Link {
    target: String,
    /// The first `rel`; the RFC ignores further ones.
    rel: Option<String>,
}

impl Link {
    /// A `rel` is a list of types, separated by spaces and compared without case.
    fn is_next(&self) -> bool {
        let types = self.rel.iter().flat_map(|rel| rel.split_ascii_whitespace());
        types.into_iter().any(|rel| rel.eq_ignore_ascii_case("next"))
    }
}

/// `None` if the text does not have the form `<TARGET>; NAME=VALUE, …`.
fn parse(text: &str) -> Option<Vec<Link>> {
    let mut rest = text.trim_start_matches([' ', '\t', ',']);
    let mut links = Vec::new();
    while !rest.is_empty() {
        let (target, after) = rest.strip_prefix('<')?.split_once('>')?;
        let mut link = Link {
            target: target.trim().to_string(),
            rel: None,
        };
        rest = after.trim_start();
        while let Some(after) = rest.strip_prefix(';') {
            let (name, value, after) = parameter(after.trim_start())?;
            if name.eq_ignore_ascii_case("rel") && link.rel.is_none() {
                link.rel = Some(value);
            }
            rest = after.trim_start();
        }
        links.push(link);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    Some(links)
}

/// A parameter's name and value, and the text after it. `None` if a quoted value does not end.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = text.split_at(text.find(['=', ';', ',']).unwrap_or(text.len()));
    let Some(rest) = rest.strip_prefix('=').map(str::trim_start) else {
        return Some((name.trim(), String::new(), rest));
    };
    let Some(quoted) = rest.strip_prefix('"') else {
        let (value, rest) = rest.split_at(rest.find([';', ',']).unwrap_or(rest.len()));
        return Some((name.trim(), value.trim().to_string(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((name.trim(), value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_of(headers: &[&str]) -> Result<Option<String>, String> {
        let headers = headers.iter().map(|value| (LINK, value.parse().unwrap()));
        next(&headers.collect())
    }

    #[test]
    fn the_next_page_is_found_in_every_form_of_the_rfc() {
        for headers in [
            &["</b>; rel=\"next\""][..],
            &["</b>;rel=next"],
            &["</b>; REL=NEXT"],
            &["</b> ; rel = \"next\" "],
            &["</b>; rel=\"last next\""],
            &["<a>; rel=\"first\", </b>; rel=\"next\""],
            &["<a>; rel=first", "</b>; rel=next"],
            &["", ", ,</b>; rel=next,"],
            &["<a>; title=\"x, <c>; rel=next \\\"; rel=next\"; rel=first, </b>; anchor=\"#a\"; rel=\"next\""],
            &["<a>; rel=first; rel=next, </b>;; rel=next; rel=prev"],
            &["<a>; crossorigin, </b>; title*=UTF-8''n%20; rel=next"],
            &["<a;b,c>; rel=prev,</b>; rel=next"],
        ] {
            assert_eq!(next_of(headers), Ok(Some("/b".to_string())), "{headers:?}");
        }
    }

    #[test]
    fn other_relations_and_texts_are_not_the_next_page() {
        for headers in [
            &[][..],
            &["</next>; rel=\"prev\""],
            &["</b>; title=next"],
            &["</b>; rel=\"nextish next-page\""],
            &["</b>; rel=first; title=\"; rel=next\""],
        ] {
            assert_eq!(next_of(headers), Ok(None), "{headers:?}");
        }
    }

    #[test]
    fn a_header_that_cannot_be_parsed_is_an_error() {
        for header in [
            "next",
            "</b; rel=next",
            "</b>; title=\"; rel=next",
            "</b> rel=next",
            "/b; rel=next",
        ] {
            assert!(next_of(&[header]).is_err(), "{header}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_stops_the_parser(text in "[<>;,=\" a-z\\\\]{0,60}") {
            let _ = parse(&text);
        }
    }
}
