//! Tasks for people who work on Coracle: `cargo xtask TASK`. Never part of the product.

mod bench;
mod check;
mod demo;
mod dist;
mod fuzz;
mod images;
mod process;
mod setup;
mod soak;
mod sources;
mod suite;
mod tidy;
mod vsock;
mod workspace;

use std::process::ExitCode;

use process::Result;
use workspace::Workspace;

/// One task: its name, its arguments as shown, what it is for, and the function that does it.
struct Task {
    name: &'static str,
    options: &'static [&'static str],
    purpose: &'static str,
    perform: fn(&Workspace, &[String]) -> Result<()>,
}

/// Stands for any number among a task's options.
const NUMBER: &str = "N";

const TASKS: &[Task] = &[
    Task {
        name: "demo",
        options: &["--once"],
        purpose: "boot configs/demo.toml and wait until its services answer; --once powers it off again",
        perform: |workspace, options| demo::demo(workspace, !options.is_empty()),
    },
    Task {
        name: "test",
        options: &[],
        purpose: "every check and every test, boots included",
        perform: |workspace, _| check::test(workspace),
    },
    Task {
        name: "ci",
        options: &[],
        purpose: "the same as test: what continuous integration runs",
        perform: |workspace, _| check::test(workspace),
    },
    Task {
        name: "tidy",
        options: &[],
        purpose: "the rules that no compiler checks: sizes, module docs, where unsafe may stand",
        perform: |workspace, _| tidy::tidy(workspace),
    },
    Task {
        name: "setup",
        options: &[],
        purpose: "install the Debian packages that the other tasks need",
        perform: |workspace, _| setup::setup_tests(workspace),
    },
    Task {
        name: "images",
        options: &[],
        purpose: "make the demo and test images below target/images",
        perform: |workspace, _| images::images(workspace),
    },
    Task {
        name: "dist",
        options: &[],
        purpose: "build the product's programs into target/dist",
        perform: |workspace, _| dist::dist(workspace),
    },
    Task {
        name: "bench",
        options: bench::NAMES,
        purpose: "measure these rows, or all of them and write docs/benchmarks.md",
        perform: bench::bench,
    },
    Task {
        name: "fuzz",
        options: fuzz::OPTIONS,
        purpose: "feed these readers, or all of them, with what may break them, for 300 seconds each",
        perform: fuzz::fuzz,
    },
    Task {
        name: "soak",
        options: soak::OPTIONS,
        purpose: "do faults to machines, each long form for 10 minutes, and write docs/faults.md",
        perform: soak::soak,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, options)) = arguments.split_first() else {
        return usage("a task is missing");
    };
    let Some(task) = TASKS.iter().find(|task| task.name == name) else {
        return usage(&format!("no task is called `{name}`"));
    };
    let takes_numbers = task.options.contains(&NUMBER);
    let is_known =
        |option: &str| task.options.contains(&option) || takes_numbers && option.parse::<u32>().is_ok();
    if let Some(unknown) = options.iter().find(|option| !is_known(option)) {
        return usage(&format!("`{name}` has no option `{unknown}`"));
    }
    match Workspace::find().and_then(|workspace| (task.perform)(&workspace, options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("error: {problem}\n\nusage: cargo xtask TASK\n");
    for Task { name, options, purpose, .. } in TASKS {
        eprintln!("  {:14} {purpose}", format!("{name} {}", options.join(" ")));
    }
    ExitCode::from(2)
}
