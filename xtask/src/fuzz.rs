//! Searches for inputs that make a reader fail, guided by what the reader's code does with them.

use std::process::Command;

use crate::process::{Result, heading, run, run_quietly};
use crate::workspace::{Workspace, make_folder};

/// What may be asked for: the readers, as `builder/src/fuzz.rs` names them, and for how long each is fed.
pub const OPTIONS: &[&str] = &[
    "tar",
    "erofs",
    "image-archive",
    "document",
    "gzip",
    "zstd",
    "deb",
    "modinfo",
    "seccomp",
    "control-request",
    "control-answer",
    SECONDS,
    crate::NUMBER,
];
const SECONDS: &str = "--seconds";

/// How long each reader is fed unless said otherwise.
const USUAL_SECONDS: u32 = 300;

/// What libFuzzer needs of the compiler to see which branches an input takes, and what it compares.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Ccodegen-units=1",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Below `target/`: everything is compiled with other flags than usual.
const FOLDER: &str = "fuzz";

/// Named, because only then build scripts and macros do without the flags.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// An input that takes more memory, in MiB, or more seconds is a finding.
const LIMITS: &[&str] = &["-rss_limit_mb=1024", "-timeout=10", "-max_len=65536"];

/// Feeds one reader, or all of them one after another. What was found before is where it starts from.
pub fn fuzz(workspace: &Workspace, options: &[String]) -> Result<()> {
    let (readers, seconds) = parse(options)?;
    heading("build");
    build(workspace)?;
    readers.iter().try_for_each(|reader| feed(workspace, reader, seconds))
}

/// The readers and the seconds that the options say.
fn parse(options: &[String]) -> Result<(Vec<&str>, u32)> {
    let mut readers = Vec::new();
    let mut seconds = USUAL_SECONDS;
    let mut words = options.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if word == SECONDS {
            let number = words.next().and_then(|number| number.parse().ok()).filter(|number| *number > 0);
            seconds = number.ok_or_else(|| format!("`{SECONDS}` needs a number of seconds"))?;
        } else {
            readers.push(word);
        }
    }
    if readers.is_empty() {
        readers.extend(OPTIONS.iter().take_while(|option| **option != SECONDS));
    }
    Ok((readers, seconds))
}

/// Checks that the program which libFuzzer drives compiles, where it can be: no other task compiles it.
pub fn check(workspace: &Workspace) -> Result<()> {
    // libFuzzer is C++.
    if run_quietly(Command::new("c++").arg("--version")).is_err() {
        eprintln!("   skipped: there is no C++ compiler");
        return Ok(());
    }
    run(compile(workspace, "check").arg("--quiet"))
}

/// Builds the program that libFuzzer drives, and has the tests write down their seeds.
fn build(workspace: &Workspace) -> Result<()> {
    run(cargo(workspace, "test")
        .args(["--quiet", "--package=builder", "panic"])
        .env("CORACLE_FUZZ_SEEDS", workspace.target(FOLDER).join("seeds")))?;
    run(&mut compile(workspace, "build"))
}

/// A command of cargo for the program that libFuzzer drives.
fn compile(workspace: &Workspace, command: &str) -> Command {
    let mut cargo = cargo(workspace, command);
    cargo.args(["--package=builder", "--profile=fuzz", "--target", TRIPLE, "--target-dir"]);
    cargo.arg(workspace.target(FOLDER)).env("RUSTFLAGS", FLAGS.join(" "));
    cargo
}

fn cargo(workspace: &Workspace, command: &str) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(&workspace.root).arg(command);
    cargo
}

fn feed(workspace: &Workspace, reader: &str, seconds: u32) -> Result<()> {
    let folder = workspace.target(FOLDER);
    heading(&format!("{reader}, for {seconds} seconds"));
    let corpus = folder.join("corpus").join(reader);
    make_folder(&corpus)?;
    let program = folder.join(TRIPLE).join("fuzz/coracle");
    let kept = workspace.root.join("builder/fixtures/fuzz").join(reader);
    run(Command::new("nice")
        // The first folder gets what is found; it starts from all three.
        .args([program, corpus, folder.join("seeds").join(reader), kept])
        .args(LIMITS)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/{reader}-", folder.display()))
        .arg("-print_final_stats=1")
        .env("CORACLE_FUZZ", reader))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_reader_all_are_fed() {
        let parsed = |words: &str| {
            let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
            parse(&words).map(|(readers, seconds)| (readers.join(" "), seconds))
        };
        assert_eq!(parsed("tar --seconds 5 deb"), Ok(("tar deb".to_owned(), 5)));
        let all =
            "tar erofs image-archive document gzip zstd deb modinfo seccomp control-request control-answer";
        assert_eq!(parsed(""), Ok((all.to_owned(), USUAL_SECONDS)));
        assert!(parsed("tar --seconds").is_err() && parsed("--seconds tar").is_err());
    }
}
