//! Which devices a container may open: a program that the kernel runs for each open and each mknod in its cgroup.
//!
//! It is the second line: a container's `/dev` has only what it may use, and its other mounts have no devices. It
//! holds where a node has come from elsewhere. A node of a device may be made exactly when the device may be
//! opened, because the child makes `/dev` inside the cgroup.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::sys::{self, BpfInstruction};

/// Block or character device, as the kernel numbers them for the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Block = 1,
    Character = 2,
}

/// Devices that the program lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) kind: Kind,
    /// None for all of them.
    pub(super) major: Option<u32>,
    /// Likewise.
    pub(super) minor: Option<u32>,
}

impl Rule {
    /// Every device.
    pub(super) const ALL: [Self; 2] = [
        Self { kind: Kind::Block, major: None, minor: None },
        Self { kind: Kind::Character, major: None, minor: None },
    ];
}

const fn character(major: u32, minor: u32) -> Rule {
    Rule { kind: Kind::Character, major: Some(major), minor: Some(minor) }
}

/// What every container has: null, zero, full, random, urandom, tty, ptmx and its terminals.
const ALWAYS: [Rule; 8] = [
    character(1, 3),
    character(1, 5),
    character(1, 7),
    character(1, 8),
    character(1, 9),
    character(5, 0),
    character(5, 2),
    // Those of another container are in a devpts that this one does not see.
    Rule { kind: Kind::Character, major: Some(136), minor: None },
];

/// A program that the kernel has checked.
pub(super) struct Program(OwnedFd);

impl Program {
    /// Makes one that lets `own` through, beside what every container has.
    pub(super) fn load(own: &[Rule]) -> Result<Self> {
        const DOING: &str = "load";
        const OBJECT: &str = "a device program";
        sys::load_device_program(&assemble(ALWAYS.iter().chain(own))).map(Self).map_err(|errno| match errno {
            Errno::ENOSYS | Errno::EINVAL => {
                Error::said(DOING, OBJECT, "the kernel has none for cgroups (CONFIG_CGROUP_BPF)")
            }
            errno => Error::new(DOING, OBJECT, errno),
        })
    }

    /// Lets it decide for the processes of a cgroup, in place of the one before. The cgroup keeps it.
    pub(super) fn attach(&self, cgroup: &File) -> Result<()> {
        sys::attach_device_program(cgroup.as_fd(), self.0.as_fd())
            .map_err(|errno| Error::new("attach", "a device program", errno))
    }
}

/// Lets `own` through, beside what every container has, and no others, in a cgroup that has a program or none.
pub(super) fn decide(cgroup: &File, own: &[Rule]) -> Result<()> {
    if own != Rule::ALL {
        return Program::load(own)?.attach(cgroup);
    }
    // Without a program, so that a runtime in the container can have one for each of its own cgroups.
    match sys::detach_device_program(cgroup.as_fd()) {
        Err(errno) if errno != Errno::ENOENT => Err(Error::new("detach", "a device program", errno)),
        _ => Ok(()),
    }
}

/// Where the program has what; the kernel begins with the context in register 1.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const MAJOR: u8 = 3;
const MINOR: u8 = 4;

/// Codes of instructions (linux/bpf_common.h, linux/bpf.h), as class, size or source, and operation.
const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x57;
const SET: u8 = 0xb7;
const JUMP_IF_NOT: u8 = 0x55;
const EXIT: u8 = 0x95;

/// A program that returns 1 for the devices of `rules`, and 0 (EPERM) for all others.
fn assemble<'a>(rules: impl Iterator<Item = &'a Rule>) -> Vec<BpfInstruction> {
    // `struct bpf_cgroup_dev_ctx`: the kind in the lower half of the first word, then major and minor.
    let mut program = vec![load(KIND, 0), with_value(AND, KIND, 0xffff), load(MAJOR, 4), load(MINOR, 8)];
    for rule in rules {
        let minor = rule.minor.map(|minor| (MINOR, minor));
        let checks = [Some((KIND, rule.kind as u32)), rule.major.map(|major| (MAJOR, major)), minor];
        // To the rule after this: over what is left of the checks, and the two instructions that say yes.
        let mut skip = checks.iter().flatten().fold(1, |skip, _| skip + 1);
        for (register, value) in checks.into_iter().flatten() {
            let jump = BpfInstruction { offset: skip, ..with_value(JUMP_IF_NOT, register, value) };
            program.push(jump);
            skip -= 1;
        }
        program.extend([with_value(SET, RESULT, 1), with_value(EXIT, 0, 0)]);
    }
    program.extend([with_value(SET, RESULT, 0), with_value(EXIT, 0, 0)]);
    program
}

fn load(register: u8, offset: i16) -> BpfInstruction {
    BpfInstruction { code: LOAD_WORD, registers: register | CONTEXT << 4, offset, value: 0 }
}

/// Majors have 12 bits and minors 20: no value is negative as the kernel takes it.
fn with_value(code: u8, register: u8, value: u32) -> BpfInstruction {
    BpfInstruction { code, registers: register, offset: 0, value: value.cast_signed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: u32 = 2;

    /// What the kernel does with a program.
    fn run(program: &[BpfInstruction], (access, kind): (u32, u32), (major, minor): (u32, u32)) -> i64 {
        let context = [access << 16 | kind, major, minor].map(i64::from);
        let mut registers = [0_i64; 11];
        let mut at = 0;
        loop {
            let BpfInstruction { code, registers: named, offset, value } = program[at];
            let (target, value) = (usize::from(named & 15), i64::from(value));
            at += 1;
            match code {
                LOAD_WORD => registers[target] = context[usize::try_from(offset).unwrap() / 4],
                AND => registers[target] &= value,
                SET => registers[target] = value,
                JUMP_IF_NOT if registers[target] != value => at += usize::try_from(offset).unwrap(),
                JUMP_IF_NOT => {}
                EXIT => return registers[usize::from(RESULT)],
                other => panic!("{other:#x} is no instruction"),
            }
        }
    }

    #[test]
    fn only_what_is_listed_passes_for_every_access() {
        let kvm = Rule { kind: Kind::Character, major: Some(10), minor: Some(232) };
        let disk = Rule { kind: Kind::Block, major: Some(254), minor: Some(1) };
        let (plain, with_devices) = (assemble(ALWAYS.iter()), assemble(ALWAYS.iter().chain([&kvm, &disk])));
        for access in 1..=7 {
            for (kind, device, by_plain, by_other) in [
                (2, (1, 3), 1, 1),
                (2, (5, 0), 1, 1),
                (2, (136, 0), 1, 1),
                (2, (136, (1 << 20) - 1), 1, 1),
                (2, (10, 232), 0, 1),
                (1, (254, 1), 0, 1),
                (1, (254, 0), 0, 0),
                (2, (254, 1), 0, 0),
                (1, (1, 3), 0, 0),
                (2, (1, 1), 0, 0),
                (2, (1, 11), 0, 0),
                (2, (5, 1), 0, 0),
                (2, (4, 0), 0, 0),
                (2, (0, 0), 0, 0),
                (1, (136, 0), 0, 0),
            ] {
                assert_eq!(run(&plain, (access, kind), device), by_plain, "{access} {kind} {device:?}");
                assert_eq!(
                    run(&with_devices, (access, kind), device),
                    by_other,
                    "{access} {kind} {device:?}"
                );
            }
        }
    }

    #[test]
    fn a_privileged_container_has_every_device() {
        let program = assemble(ALWAYS.iter().chain(&Rule::ALL));
        for (kind, device) in [(1, (254, 7)), (2, (1, 1)), (2, (10, 232)), (2, (5, 1))] {
            assert_eq!(run(&program, (READ, kind), device), 1, "{kind} {device:?}");
        }
    }

    #[test]
    fn nothing_but_the_list_passes_of_all_that_is_near() {
        let program = assemble(ALWAYS.iter());
        let passed = (0..300).flat_map(|major| (0..300).map(move |minor| (major, minor)));
        let passed: Vec<(u32, u32)> = passed
            .filter(|&(major, minor)| major != 136 && run(&program, (READ, 2), (major, minor)) == 1)
            .collect();
        assert_eq!(passed, [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)]);
    }
}
