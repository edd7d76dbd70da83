//! What a filter is to do, before it is a program: a decision for each system call.

use std::collections::BTreeMap;

/// Operation not permitted.
pub const EPERM: u16 = 1;
/// No such system call: programs try another way.
pub const ENOSYS: u16 = 38;
/// No such kind of socket.
pub const EAFNOSUPPORT: u16 = 97;

/// What becomes of a call, the stricter the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It is carried out.
    Allow,
    /// It is carried out, and the kernel logs it.
    Log,
    /// It fails with this error number.
    Errno(u16),
    /// The thread gets SIGSYS, which it can handle.
    Trap,
    /// The thread ends.
    KillThread,
    /// The process ends by SIGSYS.
    KillProcess,
}

impl Verdict {
    /// What a program returns for it: `SECCOMP_RET_*` of linux/seccomp.h.
    pub fn code(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Log => 0x7ffc_0000,
            Self::Errno(number) => 0x0005_0000 | u32::from(number),
            Self::Trap => 0x0003_0000,
            Self::KillThread => 0,
            Self::KillProcess => 0x8000_0000,
        }
    }
}

/// How an argument is compared, as an unsigned number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// ==
    Equal,
    /// !=
    NotEqual,
    /// <
    Less,
    /// <=
    LessOrEqual,
    /// >
    Greater,
    /// >=
    GreaterOrEqual,
}

/// A condition on an argument: `argument & mask` compared with `value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// The first is 0, the last 5.
    pub argument: u32,
    /// The bits that count.
    pub mask: u64,
    /// How they are compared.
    pub comparison: Comparison,
    /// With what.
    pub value: u64,
}

impl Condition {
    /// That the `int` or `unsigned int` which the kernel takes the argument for has in the bits of `mask` what `value`
    /// has. It never looks at the upper half of the register, so that nobody passes a filter by what he puts there.
    pub const fn masked(argument: u32, mask: u32, value: u32) -> Self {
        Self { argument, mask: mask as u64, comparison: Comparison::Equal, value: value as u64 }
    }

    /// That the argument is this `int` or `unsigned int`.
    pub const fn is(argument: u32, value: u32) -> Self {
        Self::masked(argument, u32::MAX, value)
    }
}

/// A verdict for a call whose arguments meet all conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// All of them must hold.
    pub conditions: Vec<Condition>,
    /// What follows.
    pub verdict: Verdict,
}

/// What becomes of one call: the verdict of the first rule that fits, or else the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// In order.
    pub rules: Vec<Rule>,
    /// When none of them fits.
    pub otherwise: Verdict,
}

impl From<Verdict> for Decision {
    fn from(otherwise: Verdict) -> Self {
        Self { rules: Vec::new(), otherwise }
    }
}

/// What becomes of every call of the native ABI. Calls of any other end the process, whatever the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// By the call's number.
    pub calls: BTreeMap<u32, Decision>,
    /// For every other number.
    pub unknown: Verdict,
}
