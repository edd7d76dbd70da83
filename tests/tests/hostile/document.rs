//! `docs/probes.md`: what came of each probe, as a table that this test makes.

use std::fs;

use probe::hostile::GROUPS;
use tests::{Line, root};

use crate::contexts::{CONTEXTS, Context, PROTECTIONS, Protection};
use crate::other_runtimes::{EXCEPTIONS, NEWER_CALLS};
use crate::{Outcomes, outcomes};

const FILE: &str = "docs/probes.md";
const BEGIN: &str = "<!-- made by tests/tests/hostile -->\n";

/// What came of the probes in one container.
pub struct Column {
    pub name: &'static str,
    /// The key that loosens something here.
    pub key: Option<&'static str>,
    /// The container with the default that this one is compared with.
    pub beside: Option<&'static str>,
    pub outcomes: Outcomes,
}

impl Column {
    pub fn of(context: &Context, line: &Line) -> Self {
        let output = line.run(&["/hostile", "all"]);
        assert_eq!(output.code, Some(0), "{}: {output:?}", context.name);
        let loosens = context.loosens.as_ref();
        Self {
            name: context.name,
            key: loosens.map(|loosens| loosens.key),
            beside: loosens.map(|loosens| loosens.beside),
            outcomes: outcomes(&output.stdout),
        }
    }
}

/// Compares the tables with the file, or writes them into it when `UPDATE` is set.
pub fn is_up_to_date(columns: &[Column]) {
    let path = root().join(FILE);
    let text = fs::read_to_string(&path).unwrap();
    let (head, now) = text.split_once(BEGIN).unwrap_or_else(|| panic!("{FILE} has no line {BEGIN:?}"));
    let made = tables(columns);
    if now == made {
        return;
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, format!("{head}{BEGIN}{made}")).unwrap();
        return;
    }
    let differ =
        made.lines().find(|line| !now.lines().any(|other| other == *line)).unwrap_or("a line is gone");
    panic!("{FILE} is not what was found: {differ}\nrun this test with UPDATE=1 to write it");
}

fn tables(columns: &[Column]) -> String {
    let mut text = protections() + &exceptions();
    for group in GROUPS {
        text += &format!(
            "\n## {}\n\n| probe | default | runc, crun | changed by |\n|---|---|---|---|\n",
            group.name
        );
        let mut rows: Vec<(Vec<&str>, [String; 3])> = Vec::new();
        for probe in group.probes {
            let cells = cells(columns, probe.name);
            match rows.last_mut() {
                Some((names, last)) if *last == cells => names.push(probe.name),
                _ => rows.push((vec![probe.name], cells)),
            }
        }
        for (names, [default, others, keys]) in rows {
            text += &format!("| {} | {default} | {others} | {keys} |\n", names.join("<br>"));
        }
    }
    text
}

/// What one protection alone decides.
fn protections() -> String {
    let mut text = "\n## What each protection stops\n\n\
        | protection | stops, among others | service with it | without it |\n|---|---|---|---|\n"
        .to_owned();
    let keys = |name: &str| {
        let context = CONTEXTS.iter().find(|context| context.name == name).unwrap();
        let keys: Vec<String> = context.keys.lines().map(|line| format!("`{}`", line.trim())).collect();
        if keys.is_empty() { "default".to_owned() } else { keys.join("<br>") }
    };
    for Protection { name, with, without, stops } in PROTECTIONS {
        text += &format!("| {name} | {} | {} | {} |\n", stops.join("<br>"), keys(with), keys(without));
    }
    text
}

fn exceptions() -> String {
    let mut text = "\n## What a service may do and Docker's containers may not\n\n\
        | probe | why |\n|---|---|\n"
        .to_owned();
    for (probe, why) in EXCEPTIONS {
        text += &format!("| {probe} | {why} |\n");
    }
    text += &format!("| the calls {} | they are newer than its profile |\n", NEWER_CALLS.join(", "));
    text
}

/// By default, in other runtimes, and the keys that change it.
fn cells(columns: &[Column], probe: &str) -> [String; 3] {
    let of = |name: &str| {
        let column = columns.iter().find(|column| column.name == name);
        column.map(|column| column.outcomes[probe].as_str()).unwrap_or_default()
    };
    let pair = |root: &str, user: &str| {
        let (root, user) = (of(root), of(user));
        if root == user { root.to_owned() } else { format!("{root}, user {user}") }
    };
    let (runc, crun) = (pair("runc, root", "runc, user"), pair("crun, root", "crun, user"));
    let others = if runc == crun { runc } else { format!("{runc}; crun: {crun}") };
    let keys: Vec<String> = columns
        .iter()
        .filter(|column| {
            let is_another = |beside: &str| column.outcomes[probe] != of(beside);
            column.key.is_some() && column.beside.is_some_and(is_another)
        })
        .filter_map(|column| column.key.map(|key| (key, column.outcomes[probe].as_str())))
        .map(|(key, outcome)| format!("`{key}`: {outcome}"))
        .collect();
    [pair("root", "user"), others, keys.join("<br>")]
}
