//! `docs/benchmarks.md`: the figures of one run, with all that is needed to make sense of them.

use std::process::Command;

use super::figure::{Figure, Table};
use super::machine::Machine;
use super::{Bench, ROWS};
use crate::process::{Result, because, run_quietly};
use crate::workspace::{make_folder, write_file};

/// Debian packages whose versions decide the figures.
const PACKAGES: &[&str] = &["qemu-system-x86", "erofs-utils", "gzip", "tar", "umoci", "zstd"];

const INTRODUCTION: &str = "\
# Benchmarks

Written by `cargo xtask bench`: all of it, from one run. What is compared was measured in turns, the table
shows medians, and on a machine that others share only the ratios mean something. *Peer* is what a user would
pick instead, *floor* the least that the same work can take; a cell is empty where there is nothing to compare
with.

";

const COUNTING: &str = "\
Instructions are those of an emulated machine with one processor (QEMU with `-accel tcg,thread=single -icount
shift=0,sleep=off -rtc clock=vm`), whose clock advances by a nanosecond with each. They repeat almost exactly,
and do not show what memory and locks cost. The processor has no fast string instructions, since each byte
that they copy would count as one instruction; what is left counts one for eight bytes. Times of a guest are
from the same emulation on two processors without counting: several times longer than on a processor with KVM.
";

/// Writes the document.
pub fn write(bench: &Bench, figures: &[Figure]) -> Result<()> {
    let mut text = format!("{INTRODUCTION}{}\n## Rows\n\n{COUNTING}\n", Table(figures));
    for row in &ROWS {
        text += &format!("**{}: {}.** {}\n\n", row.name, row.question, row.method);
    }
    text += &format!("## Versions\n\n{}", versions(bench)?);
    let folder = bench.workspace.root.join("docs");
    make_folder(&folder)?;
    write_file(&folder.join("benchmarks.md"), &text)
}

fn versions(bench: &Bench) -> Result<String> {
    let mut text = format!("- Coracle {}\n", commit(bench)?);
    text += &format!("- guest kernels: {}\n", kernels(bench)?);
    let rustc = run_quietly(Command::new("rustc").current_dir(&bench.workspace.root).arg("--version"))?;
    text += &format!("- {}\n", rustc.trim());
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=- ${Package} ${Version}\n"]).args(PACKAGES);
    text += &run_quietly(&mut query)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    text += &format!("- host: {cores} processors, shared; {}\n", file_system(bench)?);
    Ok(text)
}

/// Where B3 writes, and whether files there can share their blocks.
fn file_system(bench: &Bench) -> Result<String> {
    let folder =
        tempfile::tempdir_in(bench.folder("")?).map_err(because("cannot make a temporary folder"))?;
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    write_file(&from, "to be shared")?;
    let clone = run_quietly(Command::new("cp").arg("--reflink=always").arg(from).arg(to));
    let reflinks = if clone.is_ok() { "with" } else { "without" };
    let mut command = Command::new("findmnt");
    command.args(["--noheadings", "--output", "FSTYPE", "--target"]).arg(folder.path());
    Ok(format!("{} {reflinks} reflinks", run_quietly(&mut command)?.trim()))
}

fn commit(bench: &Bench) -> Result<String> {
    let mut git = Command::new("git");
    git.current_dir(&bench.workspace.root).args(["describe", "--always", "--dirty"]);
    run_quietly(&mut git).map(|line| line.trim().to_owned())
}

/// The versions of both guests' kernels, from the machines that S2 has built.
fn kernels(bench: &Bench) -> Result<String> {
    let release = |name: &str| Machine::built(bench, name)?.release();
    Ok(format!("{}, {}", release("start-own")?, release("start-second")?))
}
