//! Rule about ELF headers: every executable, shared object and relocatable file is for the platform.

use super::Rule;
use crate::layout::tree::NodeKind;
use crate::oci::Architecture;
use crate::util::elf::{EM_BPF, Header, Loader, machine_name};
use crate::verify::Context;
use crate::verify::verdict::Evidence;

pub const ELF: Rule = Rule {
    id: "elf",
    title: "Every ELF file is for the platform, and its loader exists",
    check: elf,
};

fn loader(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Amd64 => "/lib64/ld-linux-x86-64.so.2",
        Architecture::Arm64 => "/lib/ld-linux-aarch64.so.1",
    }
}

fn elf(context: &Context, evidence: &mut Evidence) {
    let architecture = context.platform.architecture();
    let wanted = architecture.elf_machine();
    let has_loader = context.tree.resolve(loader(architecture)).is_ok();
    let mut count = 0;
    for (path, node) in context.tree.iter() {
        let NodeKind::File(file) = &node.kind else { continue };
        let Some(header) = Header::parse(&file.head) else {
            continue;
        };
        count += 1;
        let expected = format_args!("64-bit little-endian {}", machine_name(wanted)).to_string();
        match header {
            Err(what) => evidence.file(path, node.layer, expected, what),
            // iproute2 ships BPF objects.
            Ok(h) if h.machine == EM_BPF => {}
            Ok(h) if h.machine != wanted || h.bits != 64 || !h.little_endian => {
                let endian = if h.little_endian { "little" } else { "big" };
                let found = format!("{}-bit {endian}-endian {}", h.bits, machine_name(h.machine));
                evidence.file(path, node.layer, expected, found);
            }
            Ok(h) if h.loader == Loader::Asked && !has_loader => {
                let expected = format!("a loader at {}", loader(architecture));
                evidence.file(path, node.layer, expected, "missing");
            }
            Ok(_) => {}
        }
    }
    evidence.checked(count, "ELF files");
}
