//! A hostile program in a container: what it can do by default, with each key that loosens something, with each
//! protection taken away, and in containers of other runtimes. On both kernels.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

mod contexts;
mod document;
mod machine;
mod other_runtimes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use probe::hostile::{self, Answers};
use tests::{Kernel, Line, Machine, root};

use contexts::{CONTEXTS, PROTECTIONS, Protection};
use document::Column;

/// What came of each probe, by its name.
type Outcomes = BTreeMap<String, String>;

#[test]
fn on_the_machines_own_kernel() {
    let findings = check_all(machine::boot(Kernel::Own));
    document::is_up_to_date(&findings);
}

#[test]
fn on_the_second_kernel() {
    check_all(machine::boot(Kernel::Second));
}

/// By the list that another test holds against the machine, number by number.
#[test]
fn services_may_make_no_call_that_docker_refuses() {
    let text = fs::read_to_string(root().join("docs/system-calls.md")).unwrap();
    let (_, allowed) = text.split_once("## Allowed\n").unwrap();
    let (allowed, _) = allowed.split_once("\n## ").unwrap();
    // Each is a name with its number.
    let name = |item: &str| {
        let (name, number) = item.trim().split_once(' ')?;
        number.parse::<u32>().ok().map(|_| name.to_owned())
    };
    let ours: BTreeSet<String> = allowed.split([',', '\n']).filter_map(name).collect();
    assert!(ours.len() > 200, "{ours:?}");
    let theirs = other_runtimes::allowed_calls();
    let more: Vec<&String> = ours.difference(&theirs).collect();
    assert_eq!(more, other_runtimes::NEWER_CALLS);
}

fn check_all(machine: Machine) -> Vec<Column> {
    let watcher = machine.probe("watcher");
    let before = survey(watcher);
    let mut findings: Vec<Column> =
        CONTEXTS.iter().map(|context| Column::of(context, machine.probe(context.name))).collect();
    let of = |name: &str| &findings.iter().find(|column| column.name == name).unwrap().outcomes;
    every_probe_comes_out_as_the_table_says(of("root"), of("user"));
    let others = other_runtimes::all(machine.probe("runtimes"));
    each_protection_stops_something(&of);
    nothing_is_allowed_that_others_refuse(of, &others);
    neighbours_are_not_disturbed(&machine);
    nothing_outside_is_another(&before, &survey(watcher));
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
    for (name, events) in &ended.events {
        let starts = events.iter().filter(|event| matches!(event, probe::Event::Started { .. })).count();
        assert_eq!(starts, 1, "{name} was ended by somebody");
    }
    for word in ["Kernel panic", "BUG:", "Oops", "WARNING:", "hung task"] {
        assert!(!ended.output.contains(word), "{word}: {}", ended.output);
    }
    findings.extend(others);
    findings
}

/// The lines that the hostile program prints.
fn outcomes(text: &str) -> Outcomes {
    let read = |line: &str| {
        serde_json::from_str::<hostile::Finding>(line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    };
    text.lines().map(read).map(|finding| (finding.name, finding.outcome)).collect()
}

fn every_probe_comes_out_as_the_table_says(root: &Outcomes, user: &Outcomes) {
    let mut wrong = Vec::new();
    for probe in hostile::probes() {
        for (who, outcomes, expected) in [("root", root, probe.for_root()), ("user", user, probe.for_user())]
        {
            let outcome = &outcomes[probe.name];
            if outcome != expected {
                wrong.push(format!("{}, {who}: {outcome} instead of {expected}", probe.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn each_protection_stops_something<'a>(of: &impl Fn(&str) -> &'a Outcomes) {
    let mut wrong = Vec::new();
    for Protection { name, with, without, stops } in PROTECTIONS {
        for probe in *stops {
            let (with, without) = (&of(with)[*probe], &of(without)[*probe]);
            if with == "allowed" || without != "allowed" {
                wrong.push(format!("{probe}: {with} with {name}, and {without} without"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What ours allows is a subset of what they allow.
fn nothing_is_allowed_that_others_refuse<'a>(of: impl Fn(&str) -> &'a Outcomes, others: &[Column]) {
    let mut wrong = Vec::new();
    for other in others {
        let ours = of(other.beside.unwrap());
        for (name, outcome) in ours {
            let is_excepted = other_runtimes::EXCEPTIONS.iter().any(|(excepted, _)| excepted == name);
            let theirs = &other.outcomes[name];
            if outcome == "allowed" && theirs != "allowed" && !is_excepted {
                wrong.push(format!("{name}: allowed, and {theirs} in {}", other.name));
            }
        }
    }
    for (excepted, _) in other_runtimes::EXCEPTIONS {
        let is_needed = others.iter().any(|other| {
            of(other.beside.unwrap())[*excepted] == "allowed" && other.outcomes[*excepted] != "allowed"
        });
        assert!(is_needed, "{excepted} needs no exception");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A server answers its clients while another service takes all that it can get.
fn neighbours_are_not_disturbed(machine: &Machine) {
    let neighbour = machine.probe("neighbour");
    let measure = || -> Answers {
        let output = neighbour.run(&["/hostile", "measure", "4000"]);
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    };
    let alone = measure();
    let bomber = machine.probe("bomber");
    bomber.run(&["/hostile", "begin-bombs", "6000"]);
    let beside = measure();
    println!("alone: {alone:?}; beside a service that takes all it can get: {beside:?}");
    assert_eq!((alone.wrong, beside.wrong), (0, 0), "every answer is right");
    assert!(beside.right * 20 > alone.right, "{beside:?} after {alone:?}");
    tests::eventually("the bombs have ended", || bomber.exists("/tmp/bombs-ended"));
    let report = bomber.read("/tmp/bombs");
    println!("{report}");
    for limit in ["600 threads: EAGAIN", "70,000 descriptors: EMFILE", "65 MiB in /dev/shm: ENOSPC"] {
        assert!(report.contains(limit), "{limit} in {report}");
    }
    assert_eq!(neighbour.read("/shared"), "shared by all", "each has a copy of its own of what it changes");
}

/// What somebody with every right sees of the machine.
fn survey(watcher: &Line) -> BTreeMap<String, u64> {
    let output = watcher.run(&["/hostile", "survey"]);
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.stderr))
}

fn nothing_outside_is_another(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) {
    let changed: Vec<&String> = before
        .iter()
        .filter(|(name, hash)| after.get(*name) != Some(hash))
        .chain(after.iter().filter(|(name, _)| !before.contains_key(*name)))
        .map(|(name, _)| name)
        .collect();
    for kind in ["/proc/sys/kernel/", "module ", "mount ", "/proc/1/root/init"] {
        assert!(before.keys().any(|name| name.starts_with(kind)), "the survey has no {kind}");
    }
    assert!(changed.is_empty(), "{changed:#?}");
}
