//! S1: from the kernel's start to the first instruction of PID 1.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Bench;
use super::figure::{Figure, Goal, MILLION_INSTRUCTIONS, Measure};
use super::guest::Guest;
use super::layout::top_layer;
use super::machine::{Kernel, Machine, image_of};
use super::sample::{interleave, median};
use crate::process::{Result, because, run_quietly};
use crate::workspace::make_folder;

/// For the document.
pub const METHOD: &str = "\
Instructions from the start of the kernel's clock to the first of PID 1: with the demo machine's layers in the
initramfs, and with one small image. Same kernel, command line, memory and devices on all sides. Peer: an
initramfs with Debian's static busybox and, in place of its init, a program of 9 KB that prints the time.
Floor: that program alone.";

/// Instructions repeat.
const ROUNDS: usize = 2;

/// Measures S1.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let demo = Machine::demo(bench)?;
    let service = format!(
        "[service.one]\nimage = \"{}\"\ncommand = [\"/moment\"]\n",
        image_of(bench, "moment", &bench.moment)?
    );
    let small = Machine::build(bench, "small", Kernel::Own, &service, None)?;
    let busybox = initramfs(bench, "busybox", true)?;
    let bare = initramfs(bench, "bare", false)?;

    let init = |machine: &Machine| Guest::counted(machine)?.ready().map(|ready| millions(ready.init));
    let other = |archive: &Path| Guest::counted_with(&demo, archive)?.moment("FIRST_NS").map(millions);
    let [demo_runs, small_runs, peer, floor] =
        interleave(ROUNDS, [&|| init(&demo), &|| init(&small), &|| other(&busybox), &|| other(&bare)])?;
    let (peer, floor) = (median(peer)?, median(floor)?);
    let figure = |what: String, runs: Vec<f64>| -> Result<Figure> {
        Ok(Figure::new("S1", what, MILLION_INSTRUCTIONS, median(runs)?)
            .peer(peer)
            .floor(floor)
            .goal(Goal::AtMost(1.15, Measure::Peers)))
    };
    let megabytes =
        fs::metadata(demo.initramfs()).map_err(because("the demo has no initramfs"))?.len() / 1_000_000;
    Ok(vec![
        figure(format!("boot, {megabytes} MB of initramfs"), demo_runs)?,
        figure("boot, one small image".to_owned(), small_runs)?,
    ])
}

/// Instructions as the table shows them.
#[expect(clippy::cast_precision_loss, reason = "a boot has fewer than 2^52 instructions")]
pub fn millions(instructions: u64) -> f64 {
    instructions as f64 / 1e6
}

/// An archive whose PID 1 prints the time, with busybox beside it or alone.
fn initramfs(bench: &Bench, name: &str, with_busybox: bool) -> Result<PathBuf> {
    let folder = bench.folder(&format!("initramfs-{name}"))?;
    let root = folder.join("root");
    make_folder(&root)?;
    fs::copy(&bench.moment, root.join("init"))
        .map_err(because("cannot copy the program that prints the time"))?;
    if with_busybox {
        add_busybox(bench, &root)?;
    }
    pack(&root)
}

/// Puts Debian's static busybox into a folder, as `bin/busybox`.
pub fn add_busybox(bench: &Bench, root: &Path) -> Result<()> {
    const SCRIPT: &str = "gzip -dc \"$1\" | tar -x --no-same-owner -C \"$2\" ./bin/busybox";
    let layer = top_layer(&bench.workspace.target("images/demo"), "busybox")?;
    run_quietly(Command::new("sh").args(["-euc", SCRIPT, "sh"]).arg(layer).arg(root)).map(drop)
}

/// Makes an archive of a folder, beside it.
pub fn pack(root: &Path) -> Result<PathBuf> {
    const SCRIPT: &str =
        "find . -mindepth 1 | LC_ALL=C sort | cpio --create --format=newc --quiet >../initramfs.img";
    run_quietly(Command::new("sh").current_dir(root).args(["-euc", SCRIPT]))?;
    Ok(root.with_file_name("initramfs.img"))
}
