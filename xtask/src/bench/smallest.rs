//! M3: the smallest memory in which a machine's service runs.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Bench;
use super::boot::{add_busybox, pack};
use super::figure::{Figure, Goal, MEBIBYTES, Measure};
use super::guest::Guest;
use super::machine::{Kernel, Machine, image_of};
use super::store::empty;
use crate::process::{Result, because};
use crate::workspace::{make_folder, write_file};

/// For the document.
pub const METHOD: &str = "\
The least `-m` of QEMU, in MiB, with which the tests' probe prints a line as the one service of a machine
without a network, found by bisection on one processor whose instructions are counted. Floor: an initramfs
with Debian's static busybox as init, which prints a line by its inittab, with the same kernel and command
line. Most of it is the kernel's: it is unpacked from its compressed image to where it runs. The goal is the
floor and 8 MB.";

/// What the container or the floor's init prints.
const LINE: &str = "alive-in-little-memory";

/// In MiB: what is surely too little, and what is surely enough.
const BOUNDS: (u32, u32) = (56, 120);

/// How long a boot may take: a guest without memory may neither go on nor end.
const PATIENCE: Duration = Duration::from_secs(40);

/// 8 MB, in MiB.
const MORE: f64 = 7.63;

/// Measures M3.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let image = image_of(bench, "probe", &bench.workspace.target("dist-test/probe"))?;
    let service = format!(
        "[service.one]\nimage = \"{image}\"\ncommand = [\"/probe\", \"print\", \"{LINE}\"]\nrestart = \"never\"\n"
    );
    let floor = busybox_alone(bench)?;
    let mut figures = Vec::new();
    for (suffix, kernel) in [("own", Kernel::Own), ("second", Kernel::Second)] {
        let machine = Machine::build(bench, &format!("smallest-{suffix}"), kernel, &service, None)?;
        let least = |initramfs: &Path| {
            bisect(BOUNDS, |memory| Ok(Guest::counted_in(&machine, initramfs, memory)?.says(LINE, PATIENCE)))
                .map(f64::from)
        };
        let (ours, floor) = (least(&machine.initramfs())?, least(&floor)?);
        let what = format!("smallest memory, {}", machine.release()?);
        let goal = Goal::AtMost(floor + MORE, Measure::Units);
        figures.push(Figure::new("M3", what, MEBIBYTES, ours).floor(floor).goal(goal));
    }
    Ok(figures)
}

/// The least number that is enough, where the lower bound is not and the upper one is.
fn bisect(bounds: (u32, u32), is_enough: impl Fn(u32) -> Result<bool>) -> Result<u32> {
    let (mut too_little, mut enough) = bounds;
    if !is_enough(enough)? {
        return Err(format!("no line was printed in {enough} MiB either"));
    }
    while enough - too_little > 1 {
        let middle = too_little.midpoint(enough);
        if is_enough(middle)? {
            enough = middle;
        } else {
            too_little = middle;
        }
    }
    Ok(enough)
}

/// An archive with busybox as init and nothing else but its inittab.
fn busybox_alone(bench: &Bench) -> Result<PathBuf> {
    let root = bench.folder("initramfs-alone/root")?;
    empty(&root)?;
    add_busybox(bench, &root)?;
    symlink("bin/busybox", root.join("init")).map_err(because("cannot make a link"))?;
    make_folder(&root.join("etc"))?;
    write_file(&root.join("etc/inittab"), &format!("::sysinit:/bin/busybox echo {LINE}\n"))?;
    pack(&root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bisection_finds_the_least_that_is_enough() {
        for least in [57, 58, 100, 119, 120] {
            assert_eq!(bisect(BOUNDS, |memory| Ok(memory >= least)), Ok(least));
        }
        assert!(bisect(BOUNDS, |_| Ok(false)).is_err());
    }
}
