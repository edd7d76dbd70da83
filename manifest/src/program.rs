//! Seccomp programs: instructions of the kernel's classic BPF machine, written as hexadecimal digits.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A program that the kernel runs for each system call of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Program(pub Vec<Instruction>);

/// `struct sock_filter` of linux/filter.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What is done (`code`).
    pub operation: u16,
    /// How many instructions are skipped when a comparison holds (`jt`).
    pub if_true: u8,
    /// And when it does not (`jf`).
    pub if_false: u8,
    /// What the operation uses (`k`).
    pub value: u32,
}

/// Why a text is no program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidProgram;

impl fmt::Display for InvalidProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a seccomp program is 1 to 4096 groups of 16 hexadecimal digits")
    }
}

impl std::error::Error for InvalidProgram {}

impl Program {
    /// The most instructions that a kernel takes (`BPF_MAXINSNS`).
    pub const MAX_LENGTH: usize = 4096;
}

impl From<Program> for String {
    fn from(program: Program) -> Self {
        let digits = |instruction: &Instruction| {
            let Instruction { operation, if_true, if_false, value } = instruction;
            format!("{operation:04x}{if_true:02x}{if_false:02x}{value:08x}")
        };
        program.0.iter().map(digits).collect::<Vec<_>>().join(" ")
    }
}

impl TryFrom<String> for Program {
    type Error = InvalidProgram;

    fn try_from(text: String) -> Result<Self, InvalidProgram> {
        let instructions: Option<Vec<Instruction>> = text.split(' ').map(instruction).collect();
        let fits = |program: &Vec<Instruction>| program.len() <= Self::MAX_LENGTH;
        instructions.filter(fits).map(Self).ok_or(InvalidProgram)
    }
}

/// The instruction that 16 digits stand for.
fn instruction(digits: &str) -> Option<Instruction> {
    // Checked beforehand, since the number's own parser also takes a sign.
    if digits.len() != 16 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let [o0, o1, if_true, if_false, v0, v1, v2, v3] = u64::from_str_radix(digits, 16).ok()?.to_be_bytes();
    let (operation, value) = (u16::from_be_bytes([o0, o1]), u32::from_be_bytes([v0, v1, v2, v3]));
    Some(Instruction { operation, if_true, if_false, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_survives_the_text() {
        let one = Instruction { operation: 0x15, if_true: 1, if_false: 255, value: 0xc000_003e };
        let program = Program(vec![one, Instruction { operation: 6, if_true: 0, if_false: 0, value: 7 }]);
        let text = String::from(program.clone());
        assert_eq!(text, "001501ffc000003e 0006000000000007");
        assert_eq!(Program::try_from(text), Ok(program));
    }

    #[test]
    fn anything_else_is_no_program() {
        let long = ["0006000000000007"; 4097].join(" ");
        for text in ["", "06", "0006000000000007 ", "+006000000000007", "000600000000000g", long.as_str()] {
            assert_eq!(Program::try_from(text.to_owned()), Err(InvalidProgram), "{text:.20}");
        }
    }
}
