//! Parses the head of a file into the ELF facts: machine, type, and whether the file needs a dynamic loader.

/// `e_machine` of eBPF objects, which are the same on every platform.
pub const EM_BPF: u16 = 247;
const PT_INTERP: u32 = 3;
const HEADER_BYTES: usize = 64;

/// The ELF header fields that decide where a file runs.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    pub bits: u8,
    pub little_endian: bool,
    pub machine: u16,
    pub loader: Loader,
}

/// Whether the program headers request a dynamic loader. They usually follow the ELF header, but may be anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    /// `PT_INTERP` is present.
    Asked,
    /// `PT_INTERP` is absent: a static program, or a library.
    None,
    /// The head does not contain all program headers, or the file is not 64-bit little-endian.
    Unknown,
}

impl Header {
    /// `None` if the file is not ELF; an error if it starts as ELF and the header is truncated or invalid.
    pub fn parse(head: &[u8]) -> Option<Result<Self, &'static str>> {
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
            _ => return Some(Err("an unknown ELF class")),
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
            loader: if little_endian && bits == 64 {
                loader(head)
            } else {
                Loader::Unknown
            },
        }))
    }
}

fn loader(head: &[u8]) -> Loader {
    let u16_at = |at: usize| {
        head.get(at..at + 2)
            .map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])))
    };
    let (Some(offset), Some(size), Some(count)) = (head.get(32..40), u16_at(54), u16_at(56)) else {
        return Loader::Unknown;
    };
    let offset = u64::from_le_bytes(offset.try_into().unwrap_or_default());
    let Ok(offset) = usize::try_from(offset) else {
        return Loader::Unknown;
    };
    // Readers disagree about a table that overlaps the ELF header.
    if count > 0 && offset < HEADER_BYTES {
        return Loader::Unknown;
    }
    for n in 0..count {
        let kind = offset
            .checked_add(n * size)
            .and_then(|at| head.get(at..at.checked_add(4)?));
        match kind {
            Some(kind) if kind == PT_INTERP.to_le_bytes() => return Loader::Asked,
            Some(_) => {}
            None => return Loader::Unknown,
        }
    }
    Loader::None
}

/// The machine name that readelf(1) prints, for the machines that occur here.
pub fn machine_name(machine: u16) -> String {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::oci::Architecture;

    #[test]
    fn this_test_is_an_elf_file_with_a_loader() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let header = Header::parse(&program[..1024]).unwrap().unwrap();
        assert_eq!(header.machine, Architecture::host().unwrap().elf_machine());
        assert!(header.little_endian && header.bits == 64);
        assert_eq!(header.loader, Loader::Asked);
    }

    #[test]
    fn a_table_that_lies_elsewhere_is_not_taken_for_none() {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(1024, 0);
        (head[32], head[54], head[56]) = (64, 56, 8);
        assert_eq!(Header::parse(&head).unwrap().unwrap().loader, Loader::None);
        // Eight headers of 56 bytes at 0x3f0: the last seven are not in the head.
        (head[32], head[33]) = (0xf0, 3);
        assert_eq!(Header::parse(&head).unwrap().unwrap().loader, Loader::Unknown);
        (head[32], head[33]) = (0, 0);
        assert_eq!(Header::parse(&head).unwrap().unwrap().loader, Loader::Unknown);
    }

    proptest! {
        #[test]
        fn no_head_panics(tail in proptest::collection::vec(any::<u8>(), 0..252)) {
            let head = [b"\x7fELF".as_slice(), &tail].concat();
            let _ = Header::parse(&head);
        }
    }
}
