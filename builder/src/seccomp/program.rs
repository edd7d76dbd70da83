//! From a policy to a program of the kernel's classic BPF machine.
//!
//! The program finds a call's number by binary search over ranges of numbers with one decision. Its length and its
//! depth are paid at each start of a container: the kernel translates it, which under `bpf_jit_harden` takes time by the
//! square of its comparisons, and runs it once for every number there is, to know which calls are always allowed.

use std::collections::BTreeMap;

use manifest::Instruction;

use super::policy::{Comparison, Condition, Decision, Policy, Verdict};

/// The native ABI: `AUDIT_ARCH_X86_64` of linux/audit.h.
const ARCHITECTURE: u32 = 0xc000_003e;
/// Numbers with this bit are those of the x32 ABI.
const X32_BIT: u32 = 0x4000_0000;

/// Operations, as linux/bpf_common.h puts them together.
pub mod operation {
    /// Loads a word of `struct seccomp_data`.
    pub const LOAD: u16 = 0x20;
    /// Keeps the bits of a mask.
    pub const AND: u16 = 0x54;
    /// Jumps.
    pub const JUMP: u16 = 0x05;
    /// Jumps by whether the word is equal.
    pub const IF_EQUAL: u16 = 0x15;
    /// Jumps by whether it is greater.
    pub const IF_GREATER: u16 = 0x25;
    /// Jumps by whether it is greater or equal.
    pub const IF_AT_LEAST: u16 = 0x35;
    /// Ends with a verdict.
    pub const RETURN: u16 = 0x06;
}
use operation::{AND, IF_AT_LEAST, IF_EQUAL, IF_GREATER, JUMP, LOAD, RETURN};

/// Where things stand in `struct seccomp_data`.
mod offset {
    pub const NUMBER: u32 = 0;
    pub const ARCHITECTURE: u32 = 4;

    /// The lower half of an argument; the upper one follows it.
    pub const fn argument(index: u32) -> u32 {
        16 + 8 * index
    }
}

/// Compiles a policy.
pub fn compile(policy: &Policy) -> Vec<Instruction> {
    let mut program = Backwards::default();
    let ranges = ranges(policy);
    let search = program.search(&ranges);
    let kill = program.verdict(Verdict::KillProcess);
    program.continue_at(search);
    program.load(offset::NUMBER);
    let native = program.here();
    program.branch(IF_EQUAL, ARCHITECTURE, native, kill);
    program.load(offset::ARCHITECTURE);
    program.finish()
}

/// Numbers with one decision. The next range's differ.
struct Range {
    first: u32,
    last: u32,
    decision: Decision,
}

/// All numbers, in their order.
fn ranges(policy: &Policy) -> Vec<Range> {
    let mut ranges = vec![Range { first: 0, last: u32::MAX, decision: policy.unknown.into() }];
    let mut push = |first: u32, decision: Decision| match ranges.last_mut() {
        Some(range) if range.first == first => range.decision = decision,
        Some(range) if range.decision == decision => {}
        last => {
            if let Some(range) = last {
                range.last = first - 1;
            }
            ranges.push(Range { first, last: u32::MAX, decision });
        }
    };
    for (number, decision) in &policy.calls {
        push(*number, decision.clone());
        if !policy.calls.contains_key(&(number + 1)) {
            push(number + 1, policy.unknown.into());
        }
    }
    push(X32_BIT, Verdict::KillProcess.into());
    ranges
}

/// The most numbers that are compared one after the other.
const MOST_EXCEPTIONS: usize = 3;

/// The decision for all of some ranges but for a few single numbers, and those.
fn with_exceptions(ranges: &[Range]) -> Option<(&Decision, Vec<&Range>)> {
    let longest = ranges.iter().max_by_key(|range| range.last - range.first)?;
    let others = ranges.iter().filter(|range| range.decision != longest.decision);
    let others: Vec<&Range> = others.collect();
    let few = others.len() <= MOST_EXCEPTIONS && others.iter().all(|range| range.first == range.last);
    few.then_some((&longest.decision, others))
}

/// Where to cut ranges in two: about in the middle, and not beside a single number between equals, which would then be
/// compared twice.
fn middle(ranges: &[Range]) -> usize {
    let is_exception = |index: usize| match ranges.get(index.saturating_sub(1)..index + 2) {
        Some([before, range, after]) => range.first == range.last && before.decision == after.decision,
        _ => false,
    };
    let middle = ranges.len() / 2;
    let is_good = |cut: &usize| !is_exception(cut - 1) && !is_exception(*cut);
    let near = [middle, middle - 1, middle + 1];
    near.into_iter().filter(|cut| (1..ranges.len()).contains(cut)).find(is_good).unwrap_or(middle)
}

/// A place in a program: how many instructions there are from it to the end.
type Label = usize;

/// A program that grows from its end, so that what a jump leads to is there before the jump.
#[derive(Default)]
struct Backwards {
    /// The last instruction first.
    instructions: Vec<Instruction>,
    /// Where each verdict is returned.
    verdicts: BTreeMap<Verdict, Label>,
}

impl Backwards {
    fn finish(mut self) -> Vec<Instruction> {
        self.instructions.reverse();
        self.instructions
    }

    fn here(&self) -> Label {
        self.instructions.len()
    }

    fn push(&mut self, operation: u16, if_true: u8, if_false: u8, value: u32) -> Label {
        self.instructions.push(Instruction { operation, if_true, if_false, value });
        self.here()
    }

    fn load(&mut self, offset: u32) -> Label {
        self.push(LOAD, 0, 0, offset)
    }

    /// The place that returns a verdict.
    fn verdict(&mut self, verdict: Verdict) -> Label {
        if let Some(label) = self.verdicts.get(&verdict) {
            return *label;
        }
        let label = self.push(RETURN, 0, 0, verdict.code());
        self.verdicts.insert(verdict, label);
        label
    }

    /// How many instructions a jump from right before this place skips to get to `label`.
    fn distance(&self, label: Label) -> usize {
        self.here() - label
    }

    /// Makes what is put before this place go on at `label`.
    fn continue_at(&mut self, label: Label) {
        // No program has more than 2^32 instructions: the kernel takes 4,096.
        let distance = u32::try_from(self.distance(label)).unwrap_or(u32::MAX);
        if distance > 0 {
            self.push(JUMP, 0, 0, distance);
        }
    }

    /// A label that leads to `label` and that a conditional jump reaches: its distances are bytes. One instruction
    /// may still come between.
    fn near(&mut self, label: Label) -> Label {
        if self.distance(label) >= usize::from(u8::MAX) {
            self.continue_at(label);
            return self.here();
        }
        label
    }

    /// A jump by a comparison of the loaded word.
    fn branch(&mut self, operation: u16, value: u32, if_true: Label, if_false: Label) -> Label {
        let if_true = self.near(if_true);
        let if_false = self.near(if_false);
        let byte = |distance| u8::try_from(distance).unwrap_or(u8::MAX);
        let (if_true, if_false) = (byte(self.distance(if_true)), byte(self.distance(if_false)));
        self.push(operation, if_true, if_false, value)
    }

    /// Finds the range of the loaded number.
    fn search(&mut self, ranges: &[Range]) -> Label {
        if let Some((usual, exceptions)) = with_exceptions(ranges) {
            let mut otherwise = self.decision(usual);
            for range in exceptions.into_iter().rev() {
                let label = self.decision(&range.decision);
                otherwise = self.branch(IF_EQUAL, range.first, label, otherwise);
            }
            return otherwise;
        }
        let (lower, upper) = ranges.split_at(middle(ranges));
        let if_upper = self.search(upper);
        let if_lower = self.search(lower);
        self.branch(IF_AT_LEAST, upper[0].first, if_upper, if_lower)
    }

    /// Decides by arguments. The number is not loaded any more afterwards.
    fn decision(&mut self, decision: &Decision) -> Label {
        let mut otherwise = self.verdict(decision.otherwise);
        for rule in decision.rules.iter().rev() {
            let mut then = self.verdict(rule.verdict);
            for condition in rule.conditions.iter().rev() {
                then = self.condition(condition, then, otherwise);
            }
            otherwise = then;
        }
        otherwise
    }

    fn condition(&mut self, condition: &Condition, then: Label, otherwise: Label) -> Label {
        match condition.comparison {
            Comparison::Equal => self.equal(condition, then, otherwise),
            Comparison::NotEqual => self.equal(condition, otherwise, then),
            Comparison::Greater => self.greater(IF_GREATER, condition, then, otherwise),
            Comparison::GreaterOrEqual => self.greater(IF_AT_LEAST, condition, then, otherwise),
            Comparison::Less => self.greater(IF_AT_LEAST, condition, otherwise, then),
            Comparison::LessOrEqual => self.greater(IF_GREATER, condition, otherwise, then),
        }
    }

    fn equal(&mut self, condition: &Condition, then: Label, otherwise: Label) -> Label {
        let [lower, upper] = halves(condition);
        self.branch(IF_EQUAL, lower.value, then, otherwise);
        let label = self.half(&lower);
        if upper.mask == 0 && upper.value == 0 {
            return label;
        }
        self.branch(IF_EQUAL, upper.value, label, otherwise);
        self.half(&upper)
    }

    /// Compares by `last` where the upper halves are equal.
    fn greater(&mut self, last: u16, condition: &Condition, then: Label, otherwise: Label) -> Label {
        let [lower, upper] = halves(condition);
        self.branch(last, lower.value, then, otherwise);
        let if_equal = self.half(&lower);
        let not_greater = self.branch(IF_EQUAL, upper.value, if_equal, otherwise);
        self.branch(IF_GREATER, upper.value, then, not_greater);
        self.half(&upper)
    }

    /// Loads one half of an argument.
    fn half(&mut self, half: &Half) -> Label {
        if half.mask != u32::MAX {
            self.push(AND, 0, 0, half.mask);
        }
        self.load(half.offset)
    }
}

/// One half of a condition on 64 bits: the machine has words of 32.
struct Half {
    offset: u32,
    mask: u32,
    value: u32,
}

/// The lower and the upper half.
fn halves(condition: &Condition) -> [Half; 2] {
    let words = |value: u64| {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
    };
    let [lower_mask, upper_mask] = words(condition.mask);
    let [lower, upper] = words(condition.value);
    let offset = offset::argument(condition.argument);
    [
        Half { offset, mask: lower_mask, value: lower },
        Half { offset: offset + 4, mask: upper_mask, value: upper },
    ]
}
