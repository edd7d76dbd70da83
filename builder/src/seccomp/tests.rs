//! Programs do what policies say, the default profile says what the documentation says, and profiles of Docker's mean
//! what they mean there.

mod docker;
mod documentation;
mod interpreter;

use std::collections::BTreeMap;

use manifest::Instruction;
use proptest::prelude::*;

use super::policy::{Comparison, Condition, Decision, EAFNOSUPPORT, ENOSYS, EPERM, Policy, Rule, Verdict};
use super::*;
use crate::capability;
use interpreter::{Call, X86_64, instructions_to_install, run};

const ALLOWED: u32 = 0x7fff_0000;
const KILLED: u32 = 0x8000_0000;

fn errno(number: u16) -> u32 {
    0x0005_0000 | u32::from(number)
}

/// What a policy says of a native call: the definition that programs are held against.
fn expected(policy: &Policy, call: &Call) -> u32 {
    if call.architecture != X86_64 || call.number >= 0x4000_0000 {
        return KILLED;
    }
    let Some(Decision { rules, otherwise }) = policy.calls.get(&call.number) else {
        return policy.unknown.code();
    };
    let holds = |condition: &Condition| {
        let argument = call.arguments[usize::try_from(condition.argument).unwrap()] & condition.mask;
        match condition.comparison {
            Comparison::Equal => argument == condition.value,
            Comparison::NotEqual => argument != condition.value,
            Comparison::Less => argument < condition.value,
            Comparison::LessOrEqual => argument <= condition.value,
            Comparison::Greater => argument > condition.value,
            Comparison::GreaterOrEqual => argument >= condition.value,
        }
    };
    let rule = rules.iter().find(|rule| rule.conditions.iter().all(holds));
    rule.map_or(*otherwise, |rule| rule.verdict).code()
}

fn native(name: &str, arguments: &[u64]) -> Call {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    Call { architecture: X86_64, number: number::number(name).unwrap(), arguments: all }
}

fn default_program(capabilities: u64) -> Vec<Instruction> {
    program::compile(&profile::policy(capabilities))
}

/// The verdict of the default profile.
fn verdict(name: &str, arguments: &[u64]) -> u32 {
    run(&default_program(0), &native(name, arguments)).0
}

/// Numbers near which programs could go wrong, and words of which only some bits count.
fn argument() -> impl Strategy<Value = u64> {
    let small = prop_oneof![0..70_u64, Just(0x5412), Just(0x541c), Just(0x7e02_0000), Just(0xffff_ffff)];
    prop_oneof![small.clone(), small.prop_map(|low| low | 1 << 32), any::<u64>()]
}

fn call() -> impl Strategy<Value = Call> {
    let number = prop_oneof![
        0..=600_u32,
        prop::sample::select(vec![16, 41, 53, 56, 135]),
        any::<u32>(),
        (0..=600_u32).prop_map(|number| number | 0x4000_0000),
    ];
    let architecture = prop_oneof![9 => Just(X86_64), 1 => any::<u32>()];
    (number, architecture, prop::array::uniform6(argument()))
        .prop_map(|(number, architecture, arguments)| Call { architecture, number, arguments })
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop::sample::select(vec![
        Verdict::Allow,
        Verdict::Log,
        Verdict::Errno(EPERM),
        Verdict::Errno(ENOSYS),
        Verdict::Trap,
        Verdict::KillThread,
        Verdict::KillProcess,
    ])
}

fn condition() -> impl Strategy<Value = Condition> {
    let comparison = prop::sample::select(vec![
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ]);
    let ordered = (0..6_u32, comparison, argument()).prop_map(|(argument, comparison, value)| Condition {
        argument,
        mask: u64::MAX,
        comparison,
        value,
    });
    let masked = (0..6_u32, argument(), argument()).prop_map(|(argument, mask, value)| Condition {
        argument,
        mask,
        comparison: Comparison::Equal,
        value,
    });
    prop_oneof![ordered, masked]
}

fn decision() -> impl Strategy<Value = Decision> {
    let rule = (prop::collection::vec(condition(), 1..4), any_verdict())
        .prop_map(|(conditions, verdict)| Rule { conditions, verdict });
    (prop::collection::vec(rule, 0..6), any_verdict())
        .prop_map(|(rules, otherwise)| Decision { rules, otherwise })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    (prop::collection::btree_map(0..600_u32, decision(), 0..120), any_verdict())
        .prop_map(|(calls, unknown)| Policy { calls, unknown })
}

proptest! {
    #[test]
    fn the_default_program_does_what_the_profile_says(call in call(), capabilities: u64) {
        for capabilities in [0, capabilities] {
            let policy = profile::policy(capabilities);
            prop_assert_eq!(run(&program::compile(&policy), &call).0, expected(&policy, &call), "{:?}", call);
        }
    }

    /// Also programs whose jumps are too long for a byte.
    #[test]
    fn every_program_does_what_its_policy_says(policy in any_policy(), calls in prop::collection::vec(call(), 40)) {
        let program = program::compile(&policy);
        for call in calls {
            prop_assert_eq!(run(&program, &call).0, expected(&policy, &call), "{:?}", call);
        }
    }
}

#[test]
fn every_number_has_the_verdict_of_the_table() {
    let (policy, program) = (profile::policy(0), default_program(0));
    for number in 0..=600 {
        for (architecture, number) in
            [(X86_64, number), (X86_64, number | 0x4000_0000), (0x4000_0003, number)]
        {
            let call = Call { architecture, number, arguments: [0; 6] };
            assert_eq!(run(&program, &call).0, expected(&policy, &call), "{call:?}");
        }
    }
}

#[test]
fn every_call_stands_in_the_profile_once() {
    let mut places: BTreeMap<&str, usize> = number::calls().map(|(_, name)| (name, 0)).collect();
    assert_eq!(places.len(), number::calls().count(), "a name stands in the table of numbers twice");
    let grouped = profile::GROUPS.iter().flat_map(|group| group.calls.split_whitespace());
    for name in grouped.chain(profile::FILTERED.iter().map(|filtered| filtered.call)) {
        *places.get_mut(name).unwrap_or_else(|| panic!("`{name}` is no call")) += 1;
    }
    let wrong: Vec<_> = places.iter().filter(|(_, times)| **times != 1).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    for (capability, calls) in profile::BY_CAPABILITY {
        assert!(capability::bit(capability).is_some(), "{capability}");
        for name in calls.split_whitespace() {
            assert_ne!(verdict(name, &[u64::MAX]), ALLOWED, "{capability} adds nothing by {name}");
        }
    }
}

/// The kernel's own table, where this host has its headers.
#[test]
fn the_numbers_are_the_kernels() {
    let Ok(header) = std::fs::read_to_string("/usr/include/x86_64-linux-gnu/asm/unistd_64.h") else { return };
    let defined: Vec<(&str, u32)> = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define __NR_")?.split_once(' '))
        .filter_map(|(name, number)| Some((name, number.trim().parse().ok()?)))
        .collect();
    assert!(defined.len() > 300, "{} calls", defined.len());
    let newest = defined.iter().map(|(_, number)| *number).max().unwrap();
    for (number, name) in
        number::calls().filter(|(number, _)| !(335..424).contains(number) && *number <= newest)
    {
        assert!(defined.contains(&(name, number)), "{name} is not {number}");
    }
    for (name, number) in defined {
        assert!(number > 469 || number::number(name) == Some(number), "{name} is {number}");
        assert!(!number::is_elsewhere(name), "{name} is a call of x86-64");
    }
}

#[test]
fn arguments_decide_about_sockets_clones_terminals_and_personalities() {
    let (denied, no_family) = (errno(EPERM), errno(EAFNOSUPPORT));
    let other_word = 1 << 32;
    for (name, arguments, expected) in [
        ("socket", &[1, 1, 0][..], ALLOWED),
        ("socket", &[2, 1, 6], ALLOWED),
        ("socket", &[10, 2, 17], ALLOWED),
        ("socket", &[16, 3, 0], ALLOWED),
        ("socket", &[16, 3, 9], no_family),
        ("socket", &[16, 3, 15], no_family),
        ("socket", &[17, 3, 0], no_family),
        ("socket", &[38, 5, 0], no_family),
        ("socket", &[40, 1, 0], no_family),
        // The kernel takes an int: what is above it changes nothing.
        ("socket", &[38 | other_word, 5, 0], no_family),
        ("socket", &[2 | other_word, 1, 0], ALLOWED),
        ("socketpair", &[1, 1, 0], ALLOWED),
        ("socketpair", &[30, 1, 0], no_family),
        ("clone", &[0x3d_0f00], ALLOWED),
        ("clone", &[17], ALLOWED),
        ("clone", &[0x1000_0011], denied),
        ("clone", &[0x4000_0000 | other_word], denied),
        ("clone3", &[0, 0], errno(ENOSYS)),
        ("ioctl", &[0, 0x5401], ALLOWED),
        ("ioctl", &[0, 0x5412], denied),
        ("ioctl", &[0, 0x5412 | other_word], denied),
        ("ioctl", &[0, 0x541c], denied),
        ("personality", &[0], ALLOWED),
        ("personality", &[8], ALLOWED),
        ("personality", &[0x2_0000], ALLOWED),
        ("personality", &[0x2_0008], ALLOWED),
        ("personality", &[0xffff_ffff], ALLOWED),
        ("personality", &[0x4_0000], denied),
        ("personality", &[1], denied),
        ("io_uring_setup", &[], denied),
        ("unshare", &[0], denied),
        ("execve", &[], ALLOWED),
    ] {
        assert_eq!(verdict(name, arguments), expected, "{name} {arguments:x?}");
    }
}

#[test]
fn a_capability_brings_its_calls() {
    for (capability, name) in [
        ("SYS_TIME", "clock_settime"),
        ("SYS_TIME", "adjtimex"),
        ("SYS_ADMIN", "mount"),
        ("SYS_ADMIN", "clone"),
        ("SYS_PTRACE", "ptrace"),
        ("SYS_CHROOT", "chroot"),
    ] {
        let with = default_program(capability::bit(capability).unwrap());
        let call = native(name, &[u64::MAX; 6]);
        assert_eq!(run(&with, &call).0, ALLOWED, "{name} with {capability}");
        assert_eq!(run(&default_program(0), &call).0, errno(EPERM), "{name} without {capability}");
    }
}

#[test]
fn containers_with_equal_filters_share_a_program() {
    let mut programs = Programs::default();
    let none = Profiles::new();
    let mut add = |choice: &config::Seccomp, capabilities| {
        programs.add(choice, &none, Facts { capabilities, kernel: None }).unwrap()
    };
    assert_eq!(add(&config::Seccomp::Default, 0), Seccomp::Program(0));
    // CHOWN is no reason for another program, SYS_TIME is.
    assert_eq!(add(&config::Seccomp::Default, 1), Seccomp::Program(0));
    assert_eq!(add(&config::Seccomp::Default, 1 << 25), Seccomp::Program(1));
    assert_eq!(add(&config::Seccomp::Unconfined, 0), Seccomp::Unconfined);
    assert_eq!(programs.into_list().len(), 2);
}

/// The kernel runs a program for each number when it is installed, at each start of a container.
#[test]
fn the_default_program_is_short_and_quickly_installed() {
    let program = default_program(0);
    let cost = instructions_to_install(&program);
    assert!(program.len() <= 100, "{} instructions", program.len());
    assert!(cost <= 6_000, "{cost} instructions to install {}", program.len());
}
