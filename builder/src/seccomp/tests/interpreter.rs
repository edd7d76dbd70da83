//! The kernel's classic BPF machine, as far as it runs seccomp programs (`net/core/filter.c`, `kernel/seccomp.c`).

use manifest::Instruction;

use super::super::program::operation::{AND, IF_AT_LEAST, IF_EQUAL, IF_GREATER, JUMP, LOAD, RETURN};

/// `struct seccomp_data`: a call, as the program sees it.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub architecture: u32,
    pub number: u32,
    pub arguments: [u64; 6],
}

/// The machine's own architecture.
pub const X86_64: u32 = 0xc000_003e;

impl Call {
    fn word(&self, offset: u32) -> u32 {
        let mut bytes = Vec::new();
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.architecture.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(self.arguments.iter().flat_map(|argument| argument.to_le_bytes()));
        let at = usize::try_from(offset).unwrap();
        assert!(offset.is_multiple_of(4) && at + 4 <= bytes.len(), "no word stands at {offset}");
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }
}

/// What a program returns, and after how many instructions.
pub fn run(program: &[Instruction], call: &Call) -> (u32, usize) {
    let (mut at, mut word, mut steps) = (0, 0, 0);
    loop {
        // Jumps lead forwards only, so this ends: or it leaves the program, which the index refuses.
        let Instruction { operation, if_true, if_false, value } = program[at];
        steps += 1;
        at += 1;
        let jump = |holds: bool| usize::from(if holds { if_true } else { if_false });
        match operation {
            LOAD => word = call.word(value),
            AND => word &= value,
            JUMP => at += usize::try_from(value).unwrap(),
            IF_EQUAL => at += jump(word == value),
            IF_GREATER => at += jump(word > value),
            IF_AT_LEAST => at += jump(word >= value),
            RETURN => return (value, steps),
            other => panic!("{other:#x} is no operation of seccomp programs"),
        }
    }
}

/// What the kernel does when it is given a program, but for the machine code: it looks through all of it, and runs it
/// for every number to find those that are always allowed.
pub fn instructions_to_install(program: &[Instruction]) -> usize {
    const NUMBERS: u32 = 470;
    let steps = |architecture| {
        (0..NUMBERS)
            .map(|number| run(program, &Call { architecture, number, arguments: [0; 6] }).1)
            .sum::<usize>()
    };
    steps(X86_64) + program.len()
}
