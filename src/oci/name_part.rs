//! Parses the parts of an image's name one by one, so that an error can name the part: registry, path, tag.

use super::ImageReference;

/// `HOST[:PORT]`, without a scheme; a slash at the end is dropped.
pub fn registry(text: &str) -> Result<String, String> {
    let host = text.trim_end_matches('/');
    match ImageReference::familiar(&format!("{host}/a/b")) {
        // Otherwise the first component was read as a path on Docker Hub.
        Ok(read) if read.repository.path == "a/b" => Ok(host.to_string()),
        _ => {
            let help = match host.split_once("://") {
                Some((_, rest)) => format!("without a scheme: {rest}"),
                None => "such as quay.io or localhost:5000".into(),
            };
            Err(format!("{text:?} is not a registry\nhelp: write HOST[:PORT], {help}"))
        }
    }
}

/// One or more components of a repository; slashes at the ends are dropped.
pub fn path(text: &str) -> Result<String, String> {
    let path = text.trim_matches('/');
    let read = ImageReference::familiar(&format!("registry.invalid/{path}"))?;
    match read.tag.is_none() && read.digest.is_none() {
        true => Ok(path.to_string()),
        false => Err(format!("{text:?} is not a path: it has a tag or a digest")),
    }
}

pub fn tag(text: &str) -> Result<String, String> {
    let valid = !text.contains(['/', '@', ':'])
        && ImageReference::familiar(&format!("registry.invalid/a:{text}")).is_ok_and(|read| read.tag.is_some());
    match valid {
        true => Ok(text.to_string()),
        false => Err(format!(
            "{text:?} is not a tag: letters, digits, `_`, `.` and `-`, at most 128, none of the last two first"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_read_alone() {
        for good in ["docker.io", "localhost", "localhost:5000", "127.0.0.1:1", "quay.io/"] {
            assert_eq!(registry(good).unwrap(), good.trim_end_matches('/'));
        }
        for bad in ["", "https://quay.io", "quay", "quay.io/team", "a b.c", "quay.io:x"] {
            assert!(registry(bad).is_err(), "{bad}");
        }
        assert_eq!(path("/team/a/").unwrap(), "team/a");
        for bad in ["", "Team", "a b", "a:b", "a//b"] {
            assert!(path(bad).is_err(), "{bad}");
        }
        assert_eq!(tag("7.0.0-x_y").unwrap(), "7.0.0-x_y");
        for bad in ["", "a:b", "a/b", "-a", "a b", "a@sha256:0"] {
            assert!(tag(bad).is_err(), "{bad}");
        }
    }
}
