//! M2: the memory that layers in an initramfs take from a machine for good.

use std::collections::BTreeMap;
use std::fs;

use super::Bench;
use super::cold::demo_layers;
use super::figure::{Figure, Goal, MEGABYTES, Measure};
use super::guest::Guest;
use super::layout;
use super::machine::{Kernel, Machine};
use super::memory::{FUNCTIONS, KIBIBYTE, said};
use super::store::empty;
use crate::process::{Result, because};

/// For the document.
pub const METHOD: &str = "\
B1's layers in a machine whose containers read how much memory is available after the page cache has been
dropped (as M1 does): first of all, and once more when every file of these layers has been read to its end.
Pinned is by how much less is available than in the same machine without these layers, in which busybox is
read. Floor: the compressed size, by which the initramfs of the one is larger than that of the other. Linux
6.1 mounts layers through loop devices, 6.12 the files themselves. Both machines keep the same reserve, which
would else follow from what the initramfs leaves at boot. linuxkit would have all of it in memory,
uncompressed.";

/// For both machines, so that the kernel's own tables are alike.
const MEMORY: &str = "768MiB";

/// What the kernel keeps free is a twentieth of what was free when it began, the initramfs not counted, and
/// half as much again is not available: 10 MB of difference that no layer takes.
const RESERVE: &str = "[kernel]\ncmdline = \"sysctl.vm.min_free_kbytes=16384\"\n";

/// Measures M2.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let folder = bench.folder("pinned")?;
    empty(&folder)?;
    let layout = folder.join("layout");
    let size = layout::stack(&layout, "stack", &demo_layers(bench)?)?;
    let with = format!("oci:{}", layout::name(&layout, "stack"));
    let without = busybox(bench);
    let mut figures = Vec::new();
    for (suffix, kernel) in [("own", Kernel::Own), ("second", Kernel::Second)] {
        let with = Machine::build(bench, &format!("pinned-{suffix}"), kernel, &services(bench, &with), None)?;
        let without =
            Machine::build(bench, &format!("unpinned-{suffix}"), kernel, &services(bench, &without), None)?;
        figures.extend(compare(bench, &with, &without, size)?);
    }
    fs::remove_dir_all(&folder).map_err(because(format!("cannot remove `{}`", folder.display())))?;
    Ok(figures)
}

fn compare(bench: &Bench, with: &Machine, without: &Machine, size: f64) -> Result<Vec<Figure>> {
    let compressed = initramfs_size(with)? - initramfs_size(without)?;
    let run = |machine: &Machine| said(&mut Guest::run_in(bench, machine, MEMORY)?);
    let (with_layers, without_layers) = (run(with)?, run(without)?);
    let get = |of: &BTreeMap<String, f64>, name: &str| {
        of.get(name).copied().ok_or_else(|| format!("no container of the machine said `{name}`"))
    };
    if get(&with_layers, "READ")? < size / 2.0 {
        return Err("the container that was to read all layers has not".to_owned());
    }
    let release = with.release()?;
    let figure = |what: &str, name: &str| -> Result<Figure> {
        let pinned = (get(&without_layers, name)? - get(&with_layers, name)?) * KIBIBYTE / 1e3;
        let what = format!("pinned by {:.0} MB of layers {what}, {release}", size / 1e6);
        Ok(Figure::new("M2", what, MEGABYTES, pinned)
            .floor(compressed / 1e6)
            .goal(Goal::AtMost(1.02, Measure::Floors)))
    };
    Ok(vec![figure("at boot", "BEFORE")?, figure("once read", "AFTER")?])
}

/// One after the other.
fn services(bench: &Bench, image: &str) -> String {
    let measures = |kind: &str, name: &str, after: &str, script: &str| {
        format!(
            "[{kind}.{name}]\nimage = \"{}\"\nvolumes = [\"/proc:/machine/proc\"]\nrestart = \"never\"\n\
             userns = \"host\"\ndepends-on = {{ {after} }}\n\
             command = [\"sh\", \"-euc\", '''{FUNCTIONS}\n{script}''']\n",
            busybox(bench)
        )
    };
    let before = measures("oneshot", "before", "", "settle; available BEFORE");
    let after =
        measures("service", "after", "read = \"completed\"", "settle; available AFTER; echo MEASURED=1");
    let read = format!(
        "[oneshot.read]\nimage = \"{image}\"\ndepends-on = {{ before = \"completed\" }}\n\
         command = [\"sh\", \"-euc\", 'echo READ=$(find / -xdev -type f -exec cat {{}} + | wc -c)']\n"
    );
    RESERVE.to_owned() + &before + &read + &after
}

fn busybox(bench: &Bench) -> String {
    format!("oci:{}:busybox", bench.workspace.target("images/demo").display())
}

fn initramfs_size(machine: &Machine) -> Result<f64> {
    let file = machine.initramfs();
    let metadata = fs::metadata(&file).map_err(because(format!("cannot find `{}`", file.display())))?;
    Ok(metadata.len() as f64)
}
