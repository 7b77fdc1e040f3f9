//! ELF headers of test programs.

/// A dynamic program: 64-bit, little-endian, with one program header of type PT_INTERP.
pub fn elf_header(machine: u16) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(64 + 56, 0);
    header[18..20].copy_from_slice(&machine.to_le_bytes());
    header[32] = 64;
    header[54] = 56;
    header[56] = u8::from(machine != 247);
    header[64] = 3;
    header
}

/// A static program: the program header is of type PT_LOAD.
pub fn static_elf_header(machine: u16) -> Vec<u8> {
    let mut header = elf_header(machine);
    header[64] = 1;
    header
}
