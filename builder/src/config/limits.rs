//! What a service may take of the machine: the keys that say so, and what they mean.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use manifest::{Limits, Memory, Resource, ResourceLimit, UNLIMITED};

use super::check::Check;
use super::document::{Entry, Value};
use super::problem::suggestion;
use super::raw::{At, Fields, FromValue};
use super::value::size;

/// Less holds no program: the C library alone takes more.
const LEAST_MEMORY: &str = "4MiB";

const DEFAULT_PROCESSES: u32 = 512;

/// The most that a 64-bit kernel numbers (`PID_MAX_LIMIT`).
const MOST_PROCESSES: u32 = 1 << 22;

const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// A page. tmpfs takes 0 for no limit.
const LEAST_SHM_SIZE: &str = "4KiB";

/// In thousandths: the kernel gives no less than a hundredth, and machines have at most 8,192 processors.
const PROCESSOR_MILLIS: RangeInclusive<u32> = 10..=8_192_000;

const MOST_PROCESSOR: u32 = 8_191;

/// What cgroups take, and beside which the others' 100 stand.
const IO_WEIGHTS: RangeInclusive<u32> = 1..=10_000;

/// -1000 means that a process is never chosen, which only PID 1 is.
const OOM_SCORES: RangeInclusive<i64> = -999..=1000;

/// The kernel's own limit of descriptors (`fs.nr_open`), which nobody may exceed.
const MOST_DESCRIPTORS: u64 = 1 << 20;

/// By Compose's names, which are those of setrlimit(2) in lower case.
const RESOURCES: &[(&str, Resource)] = &[
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

/// Resource, soft limit, hard limit.
const DEFAULT_RESOURCES: [(Resource, u64, u64); 3] = [
    (Resource::Core, 0, 0),
    (Resource::Memlock, 64 << 10, 64 << 10),
    // The soft limit is low because programs that use select(2) or close every descriptor read it; the hard one is
    // what a server may raise it to.
    (Resource::Nofile, 4096, 65_536),
];

/// The keys as they are written.
#[derive(Debug, Default)]
pub struct RawLimits {
    memory: Option<At<String>>,
    memory_reservation: Option<At<String>>,
    pids_limit: Option<At<u32>>,
    cpus: Option<At<Decimal>>,
    cpuset: Option<At<String>>,
    io_weight: Option<At<u32>>,
    oom_score_adj: Option<At<i64>>,
    shm_size: Option<At<String>>,
    ulimits: Option<At<Ulimits>>,
}

/// A number with a point: `1.5`, `2` or `"0.25"`.
#[derive(Debug, Clone, PartialEq)]
pub struct Decimal(String);

/// `{ nofile = 1024, core = { soft = 0, hard = 0 } }`; none for what is neither a number nor such a pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Ulimits(Vec<(At<String>, At<Option<Ulimit>>)>);

/// One number for both limits, or two; -1 is none.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ulimit {
    soft: i64,
    hard: i64,
}

impl RawLimits {
    pub fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            memory: fields.take("memory"),
            memory_reservation: fields.take("memory-reservation"),
            pids_limit: fields.take("pids-limit"),
            cpus: fields.take("cpus"),
            cpuset: fields.take("cpuset"),
            io_weight: fields.take("io-weight"),
            oom_score_adj: fields.take("oom-score-adj"),
            shm_size: fields.take("shm-size"),
            ulimits: fields.take("ulimits"),
        }
    }
}

impl FromValue for i64 {
    const EXPECTED: &'static str = "an integer";
    fn from_value(value: Value) -> Option<Self> {
        if let Value::Integer(value) = value { Some(value) } else { None }
    }
}

impl Decimal {
    /// Rounded down; none for what is no number from 0 on.
    pub fn hundredths(&self) -> Option<u32> {
        let (whole, rest) = self.0.split_once('.').unwrap_or((&self.0, ""));
        let whole: u32 = whole.parse().ok()?;
        let part: u32 = format!("{:0<2}", rest.get(..rest.len().min(2))?).parse().ok()?;
        whole.checked_mul(100)?.checked_add(part)
    }
}

impl FromValue for Decimal {
    const EXPECTED: &'static str = "a number such as 1.5";
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Text(text) | Value::Float(text) => Some(Self(text)),
            Value::Integer(value) => Some(Self(value.to_string())),
            _ => None,
        }
    }
}

impl FromValue for Ulimits {
    const EXPECTED: &'static str = "a table such as { nofile = 1024, core = { soft = 0, hard = 0 } }";
    fn from_value(value: Value) -> Option<Self> {
        let Value::Table(table) = value else { return None };
        let pair = |entry: Entry| {
            let value = At { value: Ulimit::read(entry.node.value), span: entry.node.span };
            (At { value: entry.key, span: entry.key_span }, value)
        };
        Some(Self(table.0.into_iter().map(pair).collect()))
    }
}

impl Ulimit {
    fn read(value: Value) -> Option<Self> {
        match value {
            Value::Integer(both) => Some(Self { soft: both, hard: both }),
            Value::Table(table) => {
                let value = |key: &str| {
                    let entry = table.0.iter().find(|entry| entry.key == key)?;
                    i64::from_value(entry.node.value.clone())
                };
                let pair = Self { soft: value("soft")?, hard: value("hard")? };
                (table.0.len() == 2).then_some(pair)
            }
            _ => None,
        }
    }
}

/// What the keys of the service at `path` mean; what means nothing becomes a problem.
pub fn check(raw: RawLimits, path: &str, check: &mut Check<'_>) -> Limits {
    let written_reservation = raw.memory_reservation.as_ref().map(|reservation| reservation.span.clone());
    let memory = at_least(LEAST_MEMORY, "memory", raw.memory, path, check);
    let reservation = at_least("0", "memory-reservation", raw.memory_reservation, path, check).unwrap_or(0);
    if let (Some(span), Some(memory)) = (&written_reservation, memory)
        && reservation > memory
    {
        let what = "more is reserved than `memory` lets the service have";
        check.at(span, format!("{path}.memory-reservation"), what);
    }
    let processes = raw.pids_limit.and_then(|written| {
        let processes = pids_limit(written.value);
        check.value(&written.span, format!("{path}.pids-limit"), processes)
    });
    let processor_millis = raw.cpus.and_then(|written| {
        let millis = thousandths(&written.value.0);
        check.value(&written.span, format!("{path}.cpus"), millis)
    });
    let processors = raw.cpuset.and_then(|written| {
        let list = processor_list(&written.value);
        check.value(&written.span, format!("{path}.cpuset"), list)
    });
    let io_weight = raw.io_weight.and_then(|written| {
        let weight = io_weight(written.value);
        check.value(&written.span, format!("{path}.io-weight"), weight)
    });
    let oom_score_adj = raw.oom_score_adj.and_then(|written| {
        let score = oom_score(written.value);
        check.value(&written.span, format!("{path}.oom-score-adj"), score)
    });
    let shm_size = at_least(LEAST_SHM_SIZE, "shm-size", raw.shm_size, path, check);
    Limits {
        memory: memory.map_or(Memory::Half, Memory::Bytes),
        memory_reservation: reservation,
        processes: processes.unwrap_or(DEFAULT_PROCESSES),
        processor_millis: processor_millis.unwrap_or(0),
        processors: processors.unwrap_or_default(),
        io_weight: io_weight.unwrap_or(0),
        oom_score_adj: oom_score_adj.unwrap_or(0),
        shm_size: shm_size.unwrap_or(DEFAULT_SHM_SIZE),
        resources: resources(raw.ulimits, path, check),
    }
}

fn at_least(
    least: &str,
    key: &str,
    written: Option<At<String>>,
    path: &str,
    check: &mut Check<'_>,
) -> Option<u64> {
    let written = written?;
    let bytes = size(&written.value).and_then(|bytes| {
        let too_small = || format!("`{}` is less than {least}, the least that makes sense", written.value);
        if bytes < size(least)? { Err(too_small()) } else { Ok(bytes) }
    });
    check.value(&written.span, format!("{path}.{key}"), bytes)
}

fn pids_limit(processes: u32) -> Result<u32, String> {
    if (1..=MOST_PROCESSES).contains(&processes) {
        Ok(processes)
    } else {
        Err(format!("a service has 1 to {MOST_PROCESSES} processes"))
    }
}

fn io_weight(weight: u32) -> Result<u16, String> {
    let known = u16::try_from(weight).ok().filter(|_| IO_WEIGHTS.contains(&weight));
    known.ok_or_else(|| {
        let (least, most) = (IO_WEIGHTS.start(), IO_WEIGHTS.end());
        format!("a weight is {least} to {most}; services without one have 100")
    })
}

fn oom_score(score: i64) -> Result<i16, String> {
    let known = i16::try_from(score).ok().filter(|_| OOM_SCORES.contains(&score));
    known.ok_or_else(|| {
        format!("expected {} (killed last) to {} (killed first)", OOM_SCORES.start(), OOM_SCORES.end())
    })
}

/// Thousandths of a decimal number, of which more digits would be lost.
fn thousandths(text: &str) -> Result<u32, String> {
    let wrong =
        || format!("`{text}` is no number of processors: expected one such as 0.5 or 2, at least 0.01");
    let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(rest) || rest.len() > 3 {
        return Err(wrong());
    }
    let millis = format!("{whole}{rest:0<3}").parse().map_err(|_| wrong())?;
    if PROCESSOR_MILLIS.contains(&millis) { Ok(millis) } else { Err(wrong()) }
}

/// The processors of a list such as `0-2,4`, ascending.
fn processor_list(text: &str) -> Result<Vec<u32>, String> {
    let wrong = || format!("`{text}` is no list of processors: expected one such as \"0-2,4\"");
    let mut processors = std::collections::BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last > MOST_PROCESSOR {
            return Err(wrong());
        }
        processors.extend(first..=last);
    }
    Ok(processors.into_iter().collect())
}

/// The default limits, and in their places those that are written.
fn resources(ulimits: Option<At<Ulimits>>, path: &str, check: &mut Check<'_>) -> Vec<ResourceLimit> {
    let mut limits: BTreeMap<Resource, (u64, u64)> =
        DEFAULT_RESOURCES.iter().map(|&(resource, soft, hard)| (resource, (soft, hard))).collect();
    for (name, limit) in ulimits.map(|ulimits| ulimits.value.0).unwrap_or_default() {
        let path = format!("{path}.ulimits.{}", name.value);
        let Some((_, resource)) = RESOURCES.iter().find(|(known, _)| *known == name.value) else {
            let known = RESOURCES.iter().map(|(known, _)| *known);
            let what = format!("there is no such limit{}", suggestion(&name.value, known));
            check.at(&name.span, path, what);
            continue;
        };
        let pair = limit
            .value
            .ok_or_else(|| "expected a number, or two as in { soft = 1024, hard = 2048 }".to_owned())
            .and_then(|written| resource_limit(*resource, written));
        if let Some(pair) = check.value(&limit.span, path, pair) {
            limits.insert(*resource, pair);
        }
    }
    limits.into_iter().map(|(resource, (soft, hard))| ResourceLimit { resource, soft, hard }).collect()
}

fn resource_limit(resource: Resource, Ulimit { soft, hard }: Ulimit) -> Result<(u64, u64), String> {
    let value = |written: i64| match written {
        -1 => Ok(UNLIMITED),
        _ => u64::try_from(written)
            .map_err(|_| format!("{written} is no limit: expected 0 or more, or -1 for none")),
    };
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft > hard {
        return Err("the soft limit is above the hard one".to_owned());
    }
    if resource == Resource::Nofile && hard > MOST_DESCRIPTORS {
        return Err(format!("the kernel gives no process more than {MOST_DESCRIPTORS} descriptors"));
    }
    Ok((soft, hard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_in_thousandths() {
        for (text, millis) in [("1", 1000), ("0.5", 500), ("1.25", 1250), ("0.010", 10), ("8192", 8_192_000)]
        {
            assert_eq!(thousandths(text), Ok(millis), "{text}");
        }
        for wrong in ["", "0", "0.0", "0.009", ".5", "1.", "-1", "+1", "1e3", "0.1234", "8193", "nan", "1.+1"]
        {
            assert!(thousandths(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn processors_are_listed_as_the_kernel_does() {
        assert_eq!(processor_list("4,0-2,1"), Ok(vec![0, 1, 2, 4]));
        for wrong in ["", "a", "2-1", "0-", "-1", "1,,2", "0-4294967295"] {
            assert!(processor_list(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_soft_limit_is_not_above_the_hard_one() {
        let limit = |resource, soft, hard| resource_limit(resource, Ulimit { soft, hard });
        assert_eq!(limit(Resource::Core, 0, -1), Ok((0, UNLIMITED)));
        assert_eq!(limit(Resource::Nofile, 7, 1 << 20), Ok((7, 1 << 20)));
        for (resource, soft, hard) in [
            (Resource::Core, 1, 0),
            (Resource::Core, -1, 5),
            (Resource::Core, -2, 5),
            (Resource::Nofile, 1, -1),
        ] {
            assert!(limit(resource, soft, hard).is_err(), "{resource:?} {soft} {hard}");
        }
    }

    #[test]
    fn every_resource_has_its_name_in_the_boot_manifest() {
        for (name, resource) in RESOURCES {
            assert_eq!(serde_json::to_value(resource).unwrap(), *name);
        }
    }
}
