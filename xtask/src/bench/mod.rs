//! `cargo xtask bench`: how fast and how small Coracle is, beside what a user would pick instead and beside
//! the least that the same work can take.
//!
//! Everything that is compared is measured in one run, in turns: on a machine that others share, only ratios
//! within one run mean something.

mod boot;
mod build;
mod change;
mod cold;
mod containers;
mod conversion;
mod document;
mod figure;
mod guest;
mod idle;
mod layout;
mod logs;
mod machine;
mod memory;
mod neighbour;
mod peers;
mod pinned;
mod restart;
mod sample;
mod shutdown;
mod size;
mod smallest;
mod start;
mod store;
mod stuck;
mod systemd;
mod usage;

use std::path::PathBuf;
use std::process::Command;

use figure::{Figure, Table};

use crate::process::{Result, heading, run_quietly, step};
use crate::workspace::{Workspace, make_folder};
use crate::{dist, images, setup};

/// One row of the design's table of performance: a question, and what answers it.
struct Row {
    name: &'static str,
    question: &'static str,
    /// What the peer and the floor are, and what is measured how.
    method: &'static str,
    measure: fn(&Bench) -> Result<Vec<Figure>>,
}

const ROWS: [Row; 19] = [
    Row {
        name: "B1",
        question: "A machine built for the first time",
        method: cold::METHOD,
        measure: cold::measure,
    },
    Row {
        name: "B2",
        question: "A warm build with nothing changed",
        method: build::METHOD,
        measure: build::measure,
    },
    Row {
        name: "B3",
        question: "One small layer of a large machine changed",
        method: change::METHOD,
        measure: change::measure,
    },
    Row {
        name: "B4",
        question: "One layer from tar.gz to EROFS",
        method: conversion::METHOD,
        measure: conversion::measure,
    },
    Row { name: "B5", question: "The size of the fixed part", method: size::METHOD, measure: size::measure },
    Row {
        name: "B6",
        question: "The size of a layer",
        method: conversion::METHOD_OF_SIZE,
        measure: conversion::measure_size,
    },
    Row {
        name: "S1",
        question: "From the kernel's start to PID 1",
        method: boot::METHOD,
        measure: boot::measure,
    },
    Row {
        name: "S2",
        question: "From PID 1 to the first service's first instruction",
        method: start::METHOD,
        measure: start::measure,
    },
    Row {
        name: "S3",
        question: "From one to a thousand services",
        method: containers::METHOD_OF_MANY,
        measure: containers::measure_many,
    },
    Row {
        name: "S4",
        question: "Start, exit and reap of one container",
        method: containers::METHOD,
        measure: containers::measure,
    },
    Row {
        name: "S5",
        question: "From the end of a service to its next run",
        method: restart::METHOD,
        measure: restart::measure,
    },
    Row {
        name: "M1",
        question: "Memory of PID 1 and of an idle container",
        method: memory::METHOD,
        measure: memory::measure,
    },
    Row { name: "M2", question: "Memory pinned by layers", method: pinned::METHOD, measure: pinned::measure },
    Row { name: "M3", question: "The smallest memory", method: smallest::METHOD, measure: smallest::measure },
    Row { name: "L1", question: "What it takes to log", method: logs::METHOD, measure: logs::measure },
    Row {
        name: "D1",
        question: "Shutdown with services that stop at once",
        method: shutdown::METHOD,
        measure: shutdown::measure,
    },
    Row {
        name: "D2",
        question: "Shutdown with services that are stuck",
        method: stuck::METHOD,
        measure: stuck::measure,
    },
    Row {
        name: "N1",
        question: "What neighbours notice of greedy services",
        method: neighbour::METHOD,
        measure: neighbour::measure,
    },
    Row { name: "I1", question: "Wake-ups of an idle machine", method: idle::METHOD, measure: idle::measure },
];

/// The names of all rows: what `cargo xtask bench` can be asked for.
pub const NAMES: &[&str] = &[
    "B1", "B2", "B3", "B4", "B5", "B6", "S1", "S2", "S3", "S4", "S5", "M1", "M2", "M3", "L1", "D1", "D2",
    "N1", "I1",
];

/// Where a benchmark finds what it measures.
struct Bench<'a> {
    workspace: &'a Workspace,
    /// `examples/usage.rs` of this package.
    usage: PathBuf,
    /// `examples/inflate.rs` of the builder.
    inflate: PathBuf,
    /// `examples/verify.rs` of the builder.
    verify: PathBuf,
    /// `examples/floor.rs` of init.
    floor: PathBuf,
    /// `moment.c`.
    moment: PathBuf,
}

impl Bench<'_> {
    /// The program under test, in the workspace's root.
    fn coracle(&self) -> Command {
        let mut command = Command::new(self.workspace.target("dist/coracle"));
        command.current_dir(&self.workspace.root);
        command
    }

    /// A folder of the benchmark's own, made when it is not there.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.workspace.target("bench").join(name);
        make_folder(&folder).map(|()| folder)
    }
}

/// Measures the rows that are named, or all of them. All of them are written to `docs/benchmarks.md` as well.
pub fn bench(workspace: &Workspace, names: &[String]) -> Result<()> {
    step("set-up: Debian packages", || setup::setup(workspace))?;
    step("build of coracle, init and the floors", || dist::dist(workspace))?;
    let bench = prepare(workspace)?;
    step("demo images", || images::images(workspace))?;

    let mut figures = Vec::new();
    let mut failed = Vec::new();
    for Row { name, question, measure, .. } in &ROWS {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        match step(&format!("{name}: {question}"), || measure(&bench)) {
            Ok(measured) => figures.extend(measured),
            Err(error) => {
                eprintln!("error: {error}");
                failed.push(*name);
            }
        }
    }
    heading("figures");
    print!("{}", Table(&figures));
    if !failed.is_empty() {
        return Err(format!("not measured: {}", failed.join(", ")));
    }
    if names.is_empty() { document::write(&bench, &figures) } else { Ok(()) }
}

/// Builds the programs that are measured beside the product's.
fn prepare(workspace: &Workspace) -> Result<Bench<'_>> {
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(&workspace.root).args(["build", "--quiet"]).args(arguments);
        command
    };
    let built = dist::cargo_target(workspace);
    run_quietly(&mut cargo(&["--package", "xtask", "--example", "usage"]))?;
    let codecs = ["--release", "--package", "builder", "--example", "inflate", "--example", "verify"];
    run_quietly(&mut cargo(&codecs))?;
    let floor = ["--profile", "init", "--package", "init", "--example", "floor", "--target", dist::TARGET];
    run_quietly(cargo(&floor).env("RUSTFLAGS", dist::STATIC))?;
    let moment = workspace.target("bench/moment");
    make_folder(&workspace.target("bench"))?;
    // Freestanding: the compiler is not to put in calls of a library that is not there.
    run_quietly(
        Command::new("cc")
            .args(["-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-s"])
            .args(["-fno-pie", "-no-pie", "-fno-tree-loop-distribute-patterns", "-o"])
            .arg(&moment)
            .arg(workspace.root.join("xtask/src/bench/moment.c")),
    )?;
    Ok(Bench {
        workspace,
        usage: built.join("debug/examples/usage"),
        inflate: built.join("release/examples/inflate"),
        verify: built.join("release/examples/verify"),
        floor: built.join(dist::TARGET).join("init/examples/floor"),
        moment,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_asked_for() {
        assert_eq!(ROWS.map(|row| row.name), NAMES);
    }
}
