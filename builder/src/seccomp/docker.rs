//! Profiles in Docker's JSON format, as `docker run --security-opt seccomp=FILE` takes them.
//!
//! What a file means is what runc and libseccomp make of it: the first entry without conditions wins over those with,
//! an entry that says the same as the default says nothing, and of an entry that names an argument twice each condition
//! is one of its own. Where several fit, theirs depends on how the conditions are written; here the strictest wins.
//! The reader is strict where Docker's overlooks: a name that no architecture has is an error.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::policy::{Comparison, Condition, Decision, ENOSYS, EPERM, Policy, Rule, Verdict};
use super::{Facts, number};
use crate::capability;
use crate::config::suggestion;
use crate::error::{Error, Result};

/// A profile, its names checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    default: Verdict,
    rules: Vec<RuleOfProfile>,
}

/// One entry of `syscalls`.
#[derive(Debug, Clone, PartialEq)]
struct RuleOfProfile {
    /// Calls of x86-64.
    calls: Vec<u32>,
    verdict: Verdict,
    /// Alternatives, each of which is met by all of its conditions; a single empty one is met by every call.
    alternatives: Vec<Vec<Condition>>,
    includes: Filter,
    excludes: Filter,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    default_action: Action,
    default_errno_ret: Option<u16>,
    default_errno: Option<String>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<Architecture>>,
    flags: Option<Vec<String>>,
    syscalls: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Architecture {
    architecture: String,
    #[serde(rename = "subArchitectures")]
    _below: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Entry {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: Action,
    errno_ret: Option<u16>,
    errno: Option<String>,
    args: Option<Vec<Argument>>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Operator,
}

/// When an entry holds, or does not.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Filter {
    arches: Option<Vec<String>>,
    caps: Option<Vec<String>>,
    min_kernel: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Action {
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    /// For a tracer that is not there.
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    /// For a supervisor that is not there.
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// The machine's architecture, as `arches` and `architectures` call it.
const ARCH: &str = "amd64";
const SCMP_ARCH: &str = "SCMP_ARCH_X86_64";

/// The largest error number that a call can fail with (`MAX_ERRNO`).
const MAX_ERRNO: u16 = 4095;

impl Profile {
    /// Reads a file's text.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let document: Document = serde_json::from_slice(text)
            .map_err(|cause| Error::new(format!("it is no seccomp profile of Docker's: {cause}")))?;
        if let Some(flag) = document.flags.iter().flatten().next() {
            return Err(Error::new(format!("the flag `{flag}` is not supported")));
        }
        let listed = document.architectures.iter().flatten();
        let listed: Vec<&String> =
            listed.chain(document.arch_map.iter().flatten().map(|entry| &entry.architecture)).collect();
        if !listed.is_empty() && !listed.iter().any(|name| *name == SCMP_ARCH) {
            return Err(Error::new(format!("it is not for {SCMP_ARCH}, the machine's architecture")));
        }
        let default =
            verdict(document.default_action, document.default_errno_ret, document.default_errno.as_deref())
                .map_err(|error| error.within("defaultAction"))?;
        check_names(&document)?;
        let entries = document.syscalls.unwrap_or_default();
        let rules = entries
            .into_iter()
            .enumerate()
            .map(|(index, entry)| rule(entry).map_err(|error| error.within(format!("syscalls[{index}]"))));
        Ok(Self { default, rules: rules.collect::<Result<_>>()? })
    }

    /// What it means for a container.
    pub fn policy(&self, facts: Facts) -> Result<Policy> {
        let mut of_calls: BTreeMap<u32, Vec<(&[Condition], Verdict)>> = BTreeMap::new();
        for rule in &self.rules {
            let holds = rule.includes.includes(facts)? && !rule.excludes.excludes(facts)?;
            if !holds || rule.verdict == self.default {
                continue;
            }
            for call in &rule.calls {
                let alternatives = rule.alternatives.iter().map(|all| (all.as_slice(), rule.verdict));
                of_calls.entry(*call).or_default().extend(alternatives);
            }
        }
        let mut policy = Policy { calls: BTreeMap::new(), unknown: self.default };
        if matches!(self.default, Verdict::Errno(_)) {
            // As Docker does: a program that finds a call missing tries an older one, one that is refused gives up.
            policy.unknown = Verdict::Errno(ENOSYS);
        }
        for (number, _) in number::calls() {
            let rules = of_calls.remove(&number).unwrap_or_default();
            policy.calls.insert(number, self.decision(&rules));
        }
        Ok(policy)
    }

    fn decision(&self, rules: &[(&[Condition], Verdict)]) -> Decision {
        if let Some((_, verdict)) = rules.iter().find(|(conditions, _)| conditions.is_empty()) {
            return (*verdict).into();
        }
        let rule = |(conditions, verdict): &(&[Condition], _)| Rule {
            conditions: conditions.to_vec(),
            verdict: *verdict,
        };
        let mut rules: Vec<Rule> = rules.iter().map(rule).collect();
        rules.sort_by_key(|rule| Reverse(rule.verdict));
        Decision { rules, otherwise: self.default }
    }
}

/// Refuses names that no architecture has, all at once.
fn check_names(document: &Document) -> Result<()> {
    let names = document
        .syscalls
        .iter()
        .flatten()
        .flat_map(|entry| entry.name.iter().chain(entry.names.iter().flatten()));
    let is_known = |name: &str| number::number(name).is_some() || number::is_elsewhere(name);
    let mut unknown: Vec<String> = names
        .filter(|name| !is_known(name))
        .map(|name| {
            let known = number::calls().map(|(_, known)| known);
            format!("`{}`{}", name.escape_debug(), suggestion(name, known))
        })
        .collect();
    unknown.sort();
    unknown.dedup();
    match unknown.as_slice() {
        [] => Ok(()),
        [one] => Err(Error::new(format!("there is no system call {one}"))),
        several => Err(Error::new(format!("there are no system calls {}", several.join(", ")))),
    }
}

fn rule(entry: Entry) -> Result<RuleOfProfile> {
    let names = match (entry.name, entry.names) {
        (Some(name), None) => vec![name],
        (None, Some(names)) => names,
        _ => return Err(Error::new("an entry has either `names` or `name`")),
    };
    let conditions: Vec<Condition> =
        entry.args.unwrap_or_default().iter().map(condition).collect::<Result<_>>()?;
    let is_repeated = |condition: &Condition| {
        conditions.iter().filter(|other| other.argument == condition.argument).count() > 1
    };
    let alternatives = if conditions.iter().any(is_repeated) {
        conditions.into_iter().map(|condition| vec![condition]).collect()
    } else {
        vec![conditions]
    };
    let (includes, excludes) = (entry.includes.unwrap_or_default(), entry.excludes.unwrap_or_default());
    includes.check()?;
    excludes.check()?;
    Ok(RuleOfProfile {
        calls: names.iter().filter_map(|name| number::number(name)).collect(),
        verdict: verdict(entry.action, entry.errno_ret, entry.errno.as_deref())?,
        alternatives,
        includes,
        excludes,
    })
}

fn verdict(action: Action, errno: Option<u16>, errno_name: Option<&str>) -> Result<Verdict> {
    // Podman's files have the error's name beside its number.
    if let (Some(name), None) = (errno_name, errno) {
        return Err(Error::new(format!("`{name}` is an error by name: give its number as `errnoRet`")));
    }
    Ok(match action {
        Action::Allow => Verdict::Allow,
        Action::Log => Verdict::Log,
        Action::Errno => match errno.unwrap_or(EPERM) {
            number @ 0..=MAX_ERRNO => Verdict::Errno(number),
            number => return Err(Error::new(format!("{number} is no error number"))),
        },
        Action::Trap => Verdict::Trap,
        Action::KillThread => Verdict::KillThread,
        Action::KillProcess => Verdict::KillProcess,
        Action::Trace => return Err(Error::new("SCMP_ACT_TRACE needs a tracer, which a machine has not")),
        Action::Notify => {
            return Err(Error::new("SCMP_ACT_NOTIFY needs a supervisor, which a machine has not"));
        }
    })
}

fn condition(argument: &Argument) -> Result<Condition> {
    let Argument { index, value, value_two, op } = *argument;
    if index > 5 {
        return Err(Error::new(format!("a system call has the arguments 0 to 5, not {index}")));
    }
    let (mask, value) = match op {
        Operator::MaskedEqual => (value, value_two),
        _ => (u64::MAX, value),
    };
    let comparison = match op {
        Operator::NotEqual => Comparison::NotEqual,
        Operator::Less => Comparison::Less,
        Operator::LessOrEqual => Comparison::LessOrEqual,
        Operator::Equal | Operator::MaskedEqual => Comparison::Equal,
        Operator::GreaterOrEqual => Comparison::GreaterOrEqual,
        Operator::Greater => Comparison::Greater,
    };
    Ok(Condition { argument: index, mask, comparison, value })
}

impl Filter {
    /// Whether it can be understood at all.
    fn check(&self) -> Result<()> {
        for name in self.caps.iter().flatten() {
            bit(name)?;
        }
        self.min_kernel.as_deref().map_or(Ok(()), |release| version(release).map(drop))
    }

    /// As `includes`: everything that it names is there.
    fn includes(&self, facts: Facts) -> Result<bool> {
        let arch = self.arches.as_ref().is_none_or(|arches| arches.is_empty() || names_ours(arches));
        Ok(arch
            && self.bits()? & !facts.capabilities == 0
            && self.is_kernel_new_enough(facts)?.unwrap_or(true))
    }

    /// As `excludes`: anything that it names is there.
    fn excludes(&self, facts: Facts) -> Result<bool> {
        let arch = self.arches.as_ref().is_some_and(|arches| names_ours(arches));
        Ok(arch
            || self.bits()? & facts.capabilities != 0
            || self.is_kernel_new_enough(facts)?.unwrap_or(false))
    }

    fn bits(&self) -> Result<u64> {
        self.caps.iter().flatten().try_fold(0, |set, name| Ok(set | bit(name)?))
    }

    fn is_kernel_new_enough(&self, facts: Facts) -> Result<Option<bool>> {
        let Some(least) = &self.min_kernel else { return Ok(None) };
        let Some(release) = facts.kernel else {
            let what = format!("it asks for Linux {least}, and the kernel's own release is not known");
            return Err(Error::new(what).hint("put the kernel's configuration beside it as `config`"));
        };
        Ok(Some(release >= version(least)?))
    }
}

fn names_ours(arches: &[String]) -> bool {
    arches.iter().any(|arch| arch == ARCH)
}

/// `CAP_SYS_ADMIN` as a set.
fn bit(name: &str) -> Result<u64> {
    let bit = name.strip_prefix("CAP_").and_then(capability::bit);
    bit.ok_or_else(|| Error::new(format!("there is no capability `{}`", name.escape_debug())))
}

/// `5.10` as numbers.
fn version(text: &str) -> Result<(u32, u32)> {
    let numbers =
        text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    numbers.ok_or_else(|| Error::new(format!("`{}` is no kernel release such as 5.10", text.escape_debug())))
}
