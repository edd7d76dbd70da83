//! A program that makes one system call of any number: machine code in an ELF file, since no safe Rust can.

/// How the kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abi {
    /// `syscall`: x86-64, and x32 where the number has its bit.
    Native,
    /// `int 0x80`: i386, from a 64-bit program.
    I386,
}

/// Where the file is in memory.
const BASE: u64 = 0x40_0000;
/// Where its input is: see [`probe::hostile::DATA`].
const INPUT: u64 = probe::hostile::DATA - 56;
/// All of its memory.
const SIZE: u64 = 0x4000;
/// Bytes of an ELF header and one program header.
const HEADERS: usize = 64 + 56;

/// The file. It reads seven words from its standard input, a number and the call's arguments, and up to 4,040 bytes
/// that arguments can point to, at [`probe::hostile::DATA`]. It ends with the error number as its exit code, 0 when
/// there is none. A call that blocks ends by SIGALRM after a second.
#[rustfmt::skip]
pub fn caller(abi: Abi) -> Vec<u8> {
    let enter: [u8; 2] = match abi {
        Abi::Native => [0x0f, 0x05],
        Abi::I386 => [0xcd, 0x80],
    };
    let input = u32::try_from(INPUT).unwrap().to_le_bytes();
    let code = [
        // alarm(1)
        &[0xbf, 0x01, 0, 0, 0][..],                     // mov edi, 1
        &[0xb8, 37, 0, 0, 0],                           // mov eax, 37
        &[0x0f, 0x05],                                  // syscall
        // read(0, rsp, 4096), with the stack at the input
        &[0xbc, input[0], input[1], input[2], input[3]], // mov esp, INPUT
        &[0x31, 0xff],                                  // xor edi, edi
        &[0x48, 0x89, 0xe6],                            // mov rsi, rsp
        &[0xba, 0, 0x10, 0, 0],                         // mov edx, 4096
        &[0x31, 0xc0],                                  // xor eax, eax
        &[0x0f, 0x05],                                  // syscall
        // The call, with each word in its register.
        &[0x58, 0x5f, 0x5e, 0x5a],                      // pop rax, rdi, rsi, rdx
        &[0x41, 0x5a, 0x41, 0x58, 0x41, 0x59],          // pop r10, r8, r9
        &enter,
        // Errors are -1 to -4095, anything else becomes 0.
        &[0x48, 0xf7, 0xd8],                            // neg rax
        &[0x48, 0x89, 0xc7],                            // mov rdi, rax
        &[0x48, 0x81, 0xff, 0xff, 0x0f, 0, 0],          // cmp rdi, 4095
        &[0x76, 0x02],                                  // jbe to the end
        &[0x31, 0xff],                                  // xor edi, edi
        // exit(rdi), which strict seccomp allows as well
        &[0xb8, 60, 0, 0, 0],                           // mov eax, 60
        &[0x0f, 0x05],                                  // syscall
    ].concat();
    let length = (HEADERS + code.len()) as u64;
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    [
        // 64 bits, little-endian, version 1; an executable (2) for x86-64 (62), version 1
        &b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"[..],
        &[2, 0, 62, 0, 1, 0, 0, 0],
        // Entry, program headers, no section headers; no flags; sizes and numbers of headers
        &words(&[BASE + HEADERS as u64, 64, 0]),
        &[0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0],
        // All of the file (a segment of type 1), readable, writable and executable (7), with zeros behind it
        &[1, 0, 0, 0, 7, 0, 0, 0],
        &words(&[0, BASE, BASE, length, SIZE, 0x1000]),
        &code,
    ]
    .concat()
}
