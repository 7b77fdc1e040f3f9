//! ELF headers: every executable, shared object and relocatable file is for the platform.

use super::verdict::Evidence;
use super::{Context, Rule};
use crate::layout::tree::NodeKind;
use crate::platform::Architecture;

pub const ELF: Rule = Rule {
    id: "elf",
    title: "Every ELF file is for the platform, and its loader exists",
    check: elf,
};

/// eBPF objects are the same on every platform; iproute2 brings some.
const EM_BPF: u16 = 247;
const PT_INTERP: u32 = 3;

/// The part of an ELF header that tells where a file runs.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    bits: u8,
    little_endian: bool,
    machine: u16,
    /// Whether one of the program headers that the head holds asks for a loader.
    interpreted: bool,
}

/// `None` for what is no ELF file; an error for what begins as one and ends too early.
fn header(head: &[u8]) -> Option<Result<Header, &'static str>> {
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let (Some(class), Some(data), Some(machine)) = (head.get(4), head.get(5), head.get(18..20)) else {
        return Some(Err("a truncated ELF header"));
    };
    let little_endian = *data == 1;
    let bits = match class {
        1 => 32,
        2 => 64,
        _ => return Some(Err("an ELF header of no known class")),
    };
    let machine = [machine[0], machine[1]];
    Some(Ok(Header {
        bits,
        little_endian,
        machine: if little_endian {
            u16::from_le_bytes(machine)
        } else {
            u16::from_be_bytes(machine)
        },
        interpreted: little_endian && bits == 64 && has_interpreter(head),
    }))
}

/// Program headers usually follow the ELF header at once; the loader's stands among the first of them, but its name lies
/// further on than the head reaches.
fn has_interpreter(head: &[u8]) -> bool {
    let u16_at = |at: usize| head.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let (Some(offset), Some(size), Some(count)) = (head.get(32..40), u16_at(54), u16_at(56)) else {
        return false;
    };
    let offset = u64::from_le_bytes(offset.try_into().unwrap_or_default());
    let Ok(offset) = usize::try_from(offset) else {
        return false;
    };
    (0..usize::from(count))
        .map_while(|n| offset.checked_add(n * usize::from(size)))
        .map_while(|at| head.get(at..at.checked_add(4)?))
        .any(|kind| kind == PT_INTERP.to_le_bytes())
}

fn loader(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Amd64 => "/lib64/ld-linux-x86-64.so.2",
        Architecture::Arm64 => "/lib/ld-linux-aarch64.so.1",
    }
}

fn name(machine: u16) -> String {
    match machine {
        3 => "i386".into(),
        40 => "arm".into(),
        62 => "x86-64".into(),
        183 => "aarch64".into(),
        243 => "riscv".into(),
        EM_BPF => "bpf".into(),
        other => format!("machine {other}"),
    }
}

fn elf(context: &Context, evidence: &mut Evidence) {
    let architecture = context.image.platform.architecture();
    let wanted = architecture.elf_machine();
    let has_loader = context.tree.resolve(loader(architecture)).is_ok();
    let mut count = 0;
    for (path, node) in context.tree.iter() {
        let NodeKind::File(file) = &node.kind else { continue };
        let Some(header) = header(&file.head) else { continue };
        count += 1;
        let expected = format_args!("64-bit little-endian {}", name(wanted)).to_string();
        match header {
            Err(what) => evidence.file(path, node.layer, expected, what),
            Ok(h) if h.machine == EM_BPF => {}
            Ok(h) if h.machine != wanted || h.bits != 64 || !h.little_endian => {
                let endian = if h.little_endian { "little" } else { "big" };
                let found = format!("{}-bit {endian}-endian {}", h.bits, name(h.machine));
                evidence.file(path, node.layer, expected, found);
            }
            Ok(h) if h.interpreted && !has_loader => {
                let expected = format!("a loader at {}", loader(architecture));
                evidence.file(path, node.layer, expected, "the image has none");
            }
            Ok(_) => {}
        }
    }
    evidence.checked(count, "ELF files");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_test_is_an_elf_file_with_a_loader() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let header = header(&program[..256]).unwrap().unwrap();
        assert_eq!(header.machine, Architecture::host().unwrap().elf_machine());
        assert!(header.little_endian && header.bits == 64 && header.interpreted);
    }

    proptest! {
        #[test]
        fn no_head_panics(tail in proptest::collection::vec(any::<u8>(), 0..252)) {
            let head = [b"\x7fELF".as_slice(), &tail].concat();
            let _ = header(&head);
        }
    }
}
