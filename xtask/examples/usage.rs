//! Runs a program to its end and prints its wall time and processor time in nanoseconds, and its peak memory
//! in KiB.
//!
//! A program of its own, and not a function of the benchmark: the kernel keeps the peak of all children that
//! a process ever waited for, and a child begins with the peak of the process that made it.

use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let Some(program) = words.next() else {
        eprintln!("usage: usage PROGRAM [ARGUMENT]...");
        return ExitCode::from(2);
    };
    let mut command = Command::new(&program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let status = command.status();
    let took = begun.elapsed();
    match (status, getrusage(UsageWho::RUSAGE_CHILDREN)) {
        (Ok(status), Ok(usage)) if status.success() => {
            let processor = usage.user_time() + usage.system_time();
            println!("{} {} {}", took.as_nanos(), processor.num_nanoseconds(), usage.max_rss());
            ExitCode::SUCCESS
        }
        (Ok(status), _) => {
            eprintln!("`{}` failed: {status}", program.display());
            ExitCode::FAILURE
        }
        (Err(error), _) => {
            eprintln!("cannot run `{}`: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}
