//! S3 and S4: many services at once, and one container from its start to its end.

use super::Bench;
use super::boot::millions;
use super::figure::{Figure, Goal, MILLION_INSTRUCTIONS, Measure};
use super::guest::Guest;
use super::machine::{Kernel, Machine, image_of, require_parity};
use super::peers::{self, Peers};
use super::start::BARE;
use crate::process::Result;

/// For the document.
pub const METHOD: &str = "\
Instructions for a container of a program that ends at once: a hundredth of what a machine with 101 oneshots,
all of which start at once, takes more than one with a single one, from the first clone until the last end
has been reaped. Floor: `init/examples/floor.rs` as PID 1 of the same machines, which clones them one after the other,
waits for each and does what S2 says, with one difference: it mounts the file systems that its namespaces are for (proc, sysfs, devpts, mqueue
and two of tmpfs), which it leaves out for the figure beside the bare floor. Peers: `crun run` and `runc run` in a
loop of a shell, in a privileged container of the same kernel, with a bundle of the same profile: namespaces, ids,
seccomp with the same calls, masks, limits and capabilities. Their root is a folder, not an overlay, and is
there already. Before they are timed, both print what their container's `/proc/self/status` says, and that is
compared with what ours says. Where a processor waits, the clock of a counted guest jumps: what peers wait for is
among their instructions.";

/// For the document.
pub const METHOD_OF_MANY: &str = "\
Instructions of a machine with as many services from the first clone until all programs run, for each of them.
Floor: `init/examples/floor.rs` as in S4. The programs wait for ever. All machines have 2 GiB of memory.";

/// The containers by which the two machines of S4 differ.
const MORE: u32 = 100;
/// Of guests with many containers, in MiB.
const MEMORY: u32 = 2048;

/// Whose PID 1 a machine has.
#[derive(Clone, Copy)]
enum Init<'a> {
    Ours,
    Floor(&'a Bench<'a>),
}

/// A machine with many containers of one program.
struct Many<'a> {
    bench: &'a Bench<'a>,
    kernel: Kernel,
    /// `oneshot` or `service`.
    kind: &'static str,
    /// The program's argument.
    word: &'static str,
    /// Further keys of each.
    keys: &'static str,
}

impl Many<'_> {
    fn build(&self, name: &str, count: u32, init: Init<'_>) -> Result<Machine> {
        let image = image_of(self.bench, "moment", &self.bench.moment)?;
        let one = |number| {
            let Self { kind, word, keys, .. } = self;
            format!("[{kind}.s{number}]\nimage = \"{image}\"\ncommand = [\"/moment\", \"{word}\"]\n{keys}")
        };
        let services: String = (0..count).map(one).collect();
        let init = match init {
            Init::Ours => None,
            Init::Floor(bench) => Some(bench.floor.as_path()),
        };
        let kernel = if self.kernel == Kernel::Own { "own" } else { "second" };
        Machine::build(self.bench, &format!("{name}-{count}-{kernel}"), self.kernel, &services, init)
    }
}

/// Instructions from the first clone until everything has been started.
fn span(machine: &Machine) -> Result<f64> {
    let ready = Guest::counted_in(machine, &machine.initramfs(), MEMORY)?.ready()?;
    Ok(millions(ready.ready.saturating_sub(ready.first_start)))
}

/// Instructions for each container beyond the first.
fn each(many: &Many<'_>, name: &str, init: Init<'_>) -> Result<f64> {
    let one = span(&many.build(name, 1, init)?)?;
    Ok((span(&many.build(name, 1 + MORE, init)?)? - one) / f64::from(MORE))
}

/// The floor of S4 on the host's own kernel.
pub fn floor_of_one(bench: &Bench) -> Result<f64> {
    let many = Many { bench, kernel: Kernel::Own, kind: "oneshot", word: "end", keys: "" };
    each(&many, "floor-ends", Init::Floor(bench))
}

/// Measures S4.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for kernel in [Kernel::Own, Kernel::Second] {
        let many = Many { bench, kernel, kind: "oneshot", word: "end", keys: "" };
        let bare = Many { keys: BARE, ..many };
        require_parity(
            &many.build("ends", 1, Init::Ours)?,
            &many.build("floor-ends", 1, Init::Floor(bench))?,
        )?;
        let release = many.build("ends", 1, Init::Ours)?.release()?;
        let ours = each(&many, "ends", Init::Ours)?;
        let floor = each(&many, "floor-ends", Init::Floor(bench))?;
        let bare_floor = each(&bare, "bare-ends", Init::Floor(bench))?;
        let figure = |what: &str| Figure::new("S4", format!("{what}, {release}"), MILLION_INSTRUCTIONS, ours);
        figures.push(figure("one container").floor(floor).goal(Goal::AtMost(1.5, Measure::Floors)));
        figures.push(figure("one container, beside the bare floor").floor(bare_floor));
        let Peers { crun, runc } = peers::measure(bench, kernel)?;
        figures
            .push(figure("one container, beside crun").peer(crun).goal(Goal::AtMost(0.166, Measure::Peers)));
        figures
            .push(figure("one container, beside runc").peer(runc).goal(Goal::AtMost(0.025, Measure::Peers)));
    }
    Ok(figures)
}

/// Measures S3.
pub fn measure_many(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (kernel, counts) in [(Kernel::Own, &[1, 10, 100, 1000][..]), (Kernel::Second, &[100, 1000][..])] {
        let many = Many { bench, kernel, kind: "service", word: "wait", keys: "" };
        for &count in counts {
            let machine = many.build("waiting", count, Init::Ours)?;
            let what = format!("each of {count} services, ready, {}", machine.release()?);
            let floor = span(&many.build("floor-waiting", count, Init::Floor(bench))?)?;
            let figure = Figure::new("S3", what, MILLION_INSTRUCTIONS, span(&machine)? / f64::from(count));
            figures.push(figure.floor(floor / f64::from(count)).goal(Goal::AtMost(1.5, Measure::Floors)));
        }
    }
    Ok(figures)
}
