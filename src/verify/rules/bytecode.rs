//! Rule about compiled Python (`.pyc`, PEP 552): absent, or valid for its source.
//!
//! A timestamp-based file is stale once timestamps are normalised; a container with a read-only root then compiles it
//! at every start. A hash-based file stays valid.

use super::Rule;
use crate::layout::tree::{Node, NodeKind};
use crate::verify::Context;
use crate::verify::verdict::Evidence;

pub const BYTECODE: Rule = Rule {
    id: "bytecode",
    title: "Bytecode is for this interpreter and not stale",
    check: bytecode,
};

const HASH_BASED: u32 = 0b01;
const KNOWN_FLAGS: u32 = 0b11;

/// The magic number of CPython releases (importlib/_bootstrap_external.py); it does not change within one.
fn magic(python: &str) -> Option<u16> {
    match python {
        "3.10" => Some(3439),
        "3.11" => Some(3495),
        "3.12" => Some(3531),
        "3.13" => Some(3571),
        "3.14" => Some(3627),
        _ => None,
    }
}

fn bytecode(context: &Context, evidence: &mut Evidence) {
    let python = &context.expected.distro.python;
    let tag = format!("cpython-{}", python.replace('.', ""));
    let mut count = 0;
    for (path, node) in context.tree.iter().filter(|(p, _)| p.ends_with(".pyc")) {
        count += 1;
        if let Err((expected, found)) = judge(context, path, node, &tag, magic(python)) {
            evidence.file(path, node.layer, expected, found);
        }
    }
    evidence.checked(count, "bytecode files");
}

fn judge(
    context: &Context,
    path: &str,
    node: &Node,
    tag: &str,
    magic: Option<u16>,
) -> Result<(), (&'static str, String)> {
    let NodeKind::File(file) = &node.kind else {
        return Err(("a regular file", "another type".to_string()));
    };
    let source = source(path, tag).map_err(|found| ("a file name that this interpreter loads", found))?;
    // Debian links sitecustomize.py to /etc, and the interpreter follows the link.
    let (source, source_mtime) = match context.tree.resolve(&source) {
        Ok((
            _,
            Node {
                kind: NodeKind::File(source),
                mtime,
                ..
            },
        )) => (source, *mtime),
        _ => return Err(("its source file", format!("/{source} is missing"))),
    };
    let word = |at: usize| {
        file.head
            .get(at..at + 4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    };
    let (Some(first), Some(flags), Some(mtime), Some(size)) = (word(0), word(4), word(8), word(12)) else {
        return Err(("a header of 16 bytes", format!("{} bytes", file.size)));
    };
    let wanted = magic.map(|m| u32::from(m) | 0x0a0d_0000);
    if let Some(wanted) = wanted.filter(|w| *w != first) {
        return Err((
            "bytecode of this interpreter",
            format!("magic {} instead of {}", first & 0xffff, wanted & 0xffff),
        ));
    }
    if flags & !KNOWN_FLAGS != 0 {
        return Err(("flags by PEP 552", format!("{flags:#x}")));
    }
    if flags & HASH_BASED != 0 {
        return Ok(());
    }
    // The header contains the low 32 bits of both.
    if mtime != source_mtime as u32 || size != source.size as u32 {
        let found = format!(
            "compiled from {size} bytes with mtime {mtime}; the source has {} bytes with mtime {source_mtime}",
            source.size
        );
        return Err(("hash-based, or with the source's time and size", found));
    }
    Ok(())
}

/// `a/__pycache__/b.cpython-312.opt-1.pyc` into `a/b.py`.
fn source(path: &str, tag: &str) -> Result<String, String> {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = name.trim_end_matches(".pyc");
    let Some(dir) = dir.strip_suffix("__pycache__") else {
        return Err("bytecode in place of a source file".to_string());
    };
    let mut parts = stem.rsplitn(3, '.');
    let (last, middle, rest) = (parts.next(), parts.next(), parts.next());
    let module = match (last, middle, rest) {
        (Some(opt), Some(t), Some(module)) if opt.starts_with("opt-") && t == tag => module.to_string(),
        (Some(t), Some(_), _) if t == tag => stem[..stem.len() - tag.len() - 1].to_string(),
        _ => return Err(format!("{name}, not {tag}")),
    };
    Ok(format!("{dir}{module}.py"))
}

#[cfg(test)]
mod tests {
    use super::source;

    #[test]
    fn names_of_sources() {
        let of = |path| source(path, "cpython-312");
        assert_eq!(of("a/__pycache__/b.cpython-312.pyc").unwrap(), "a/b.py");
        assert_eq!(of("a/__pycache__/b.cpython-312.opt-1.pyc").unwrap(), "a/b.py");
        assert_eq!(of("a/__pycache__/b.c.cpython-312.pyc").unwrap(), "a/b.c.py");
        assert!(of("a/__pycache__/b.cpython-311.pyc").is_err());
        assert!(of("a/b.pyc").is_err());
    }
}
