//! B5: how large the part of a machine is that no image brings.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::Bench;
use super::figure::{Figure, Goal, KILOBYTES, MEGABYTES, Measure};
use super::machine::Machine;
use crate::dist;
use crate::process::{Result, because, run_quietly};
use crate::workspace::write_file;

/// For the document.
pub const METHOD: &str = "\
What `configs/demo.toml` becomes, less the layers. Floor of init: `fn main() {}` with the same compiler and
flags, which is the standard library on static glibc alone. \"All of it\" is one cpio archive of init, boot
manifest and modules.";

/// What is taken out of the initramfs: all but the layers.
const FIXED: &[&str] = &["init", "coracle/manifest.json", "coracle/modules/*"];

/// The flags of the profile `init` and of `cargo xtask dist`.
const FLAGS: &[&str] = &["opt-level=s", "lto=fat", "codegen-units=1", "panic=abort", "strip=symbols"];

/// Measures B5.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let machine = Machine::demo(bench)?;
    let folder = tempfile::tempdir().map_err(because("cannot make a temporary folder"))?;
    let root = folder.path().join("root");
    fs::create_dir(&root).map_err(because("cannot make a temporary folder"))?;
    let mut extract = Command::new("sh");
    extract.current_dir(&root).args([
        "-euc",
        "archive=$1; shift; cpio --extract --make-directories --quiet \"$@\" <\"$archive\"",
        "sh",
    ]);
    run_quietly(extract.arg(machine.initramfs()).args(FIXED))?;
    let pack = "find . -mindepth 1 | LC_ALL=C sort | cpio --create --format=newc --quiet >../all.cpio";
    run_quietly(Command::new("sh").current_dir(&root).args(["-euc", pack]))?;

    let all = folder.path().join("all.cpio");
    let figure = |what: &str, bytes: f64| Figure::new("B5", what, MEGABYTES, bytes / 1e6);
    Ok(vec![
        figure("init", size(&root.join("init"))?)
            .floor(empty_program(bench, folder.path())? / 1e6)
            .goal(Goal::AtMost(1.6, Measure::Units)),
        Figure::new("B5", "boot manifest", KILOBYTES, size(&root.join("coracle/manifest.json"))? / 1e3),
        figure("modules", sizes(&root.join("coracle/modules"))?),
        figure("all of it", size(&all)?),
        figure("all of it, gzip -9", compressed(&all, "gzip -9")?).goal(Goal::AtMost(1.2, Measure::Units)),
        figure("all of it, zstd -19", compressed(&all, "zstd -19")?).goal(Goal::AtMost(1.2, Measure::Units)),
        figure("kernel, apart", size(&machine.kernel())?),
    ])
}

fn size(path: &Path) -> Result<f64> {
    let metadata = fs::metadata(path).map_err(because(format!("cannot find `{}`", path.display())))?;
    Ok(metadata.len() as f64)
}

fn sizes(folder: &Path) -> Result<f64> {
    let cannot = || format!("cannot list `{}`", folder.display());
    let mut total = 0.0;
    for entry in fs::read_dir(folder).map_err(because(cannot()))? {
        total += size(&entry.map_err(because(cannot()))?.path())?;
    }
    Ok(total)
}

fn compressed(path: &Path, program: &str) -> Result<f64> {
    let script = format!("{program} --stdout \"$1\" | wc -c");
    let count = run_quietly(Command::new("sh").args(["-euc", &script, "sh"]).arg(path))?;
    count.trim().parse().map_err(because(format!("`{program}` gave no size")))
}

/// The size of a program that does nothing.
fn empty_program(bench: &Bench, folder: &Path) -> Result<f64> {
    let (source, program) = (folder.join("empty.rs"), folder.join("empty"));
    write_file(&source, "fn main() {}\n")?;
    let mut command = Command::new("rustc");
    command.current_dir(&bench.workspace.root);
    command.args(["--edition=2024", "--target", dist::TARGET, "-o"]).arg(&program).arg(&source);
    command.args(dist::STATIC.split(' ')).args(FLAGS.iter().flat_map(|flag| ["-C", *flag]));
    run_quietly(&mut command)?;
    size(&program)
}
