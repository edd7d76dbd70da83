//! S2: from PID 1 to the first service's first instruction.

use super::Bench;
use super::boot::millions;
use super::figure::{Figure, Goal, MILLION_INSTRUCTIONS, MILLISECONDS, Measure};
use super::guest::Guest;
use super::machine::{Kernel, Machine, image_of, require_parity};
use super::sample::{interleave, median};
use crate::process::Result;

/// For the document.
pub const METHOD: &str = "\
Instructions until a program of 9 KB without a library prints the time, in a machine without a network whose
one service it is: from PID 1's first instruction, and from the clone. Floor: `init/examples/floor.rs` as PID
1 of the same machine. It loads the same modules and mounts the same layers, then clones into the same
namespaces and a cgroup with the same limits, mounts the layers with mapped owners and the overlay, pivots,
installs the same seccomp filter and executes. It has no standard mounts, no masks, no devices, no limits of
resources, no capabilities and no log. Kernel and command line are compared before each pair. The demo machine's time to ready is the guest's own, on two
emulated processors, and so depends on how busy the host is.";

/// Makes the floor leave out the file systems that a container's namespaces show of themselves.
pub const BARE: &str = "environment = { FLOOR = \"bare\" }\n";

/// Instructions repeat; times do not.
const COUNTED_ROUNDS: usize = 2;
const TIMED_ROUNDS: usize = 5;

/// Measures S2.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (suffix, kernel) in [("own", Kernel::Own), ("second", Kernel::Second)] {
        figures.extend(on(bench, suffix, kernel)?);
    }
    let demo = Machine::demo(bench)?;
    let [times] = interleave(
        TIMED_ROUNDS,
        [&|| {
            let ready = Guest::run(bench, &demo)?.ready()?;
            Ok(millions(ready.ready.saturating_sub(ready.init)))
        }],
    )?;
    let demo = Figure::new("S2", "demo ready, two processors", MILLISECONDS, median(times)?);
    figures.push(demo.goal(Goal::AtMost(2000.0, Measure::Units)));
    Ok(figures)
}

/// The two spans of one start.
struct Spans {
    from_init: f64,
    from_clone: f64,
}

fn on(bench: &Bench, suffix: &str, kernel: Kernel) -> Result<Vec<Figure>> {
    let image = image_of(bench, "moment", &bench.moment)?;
    let service = format!("[service.moment]\nimage = \"{image}\"\ncommand = [\"/moment\"]\n{BARE}");
    let ours = Machine::build(bench, &format!("start-{suffix}"), kernel, &service, None)?;
    let floor = Machine::build(bench, &format!("floor-{suffix}"), kernel, &service, Some(&bench.floor))?;
    require_parity(&ours, &floor)?;

    let [our_spans, floor_spans] = interleave(COUNTED_ROUNDS, [&|| spans(&ours), &|| spans(&floor)])?;
    let middle = |spans: &[Spans], part: fn(&Spans) -> f64| median(spans.iter().map(part));
    let release = ours.release()?;
    let figure = |what: &str, part: fn(&Spans) -> f64| -> Result<Figure> {
        let value = middle(&our_spans, part)?;
        Ok(Figure::new("S2", format!("{what}, {release}"), MILLION_INSTRUCTIONS, value)
            .floor(middle(&floor_spans, part)?)
            .goal(Goal::AtMost(3.0, Measure::Floors)))
    };
    Ok(vec![
        figure("PID 1 to service", |spans| spans.from_init)?,
        figure("clone to service", |spans| spans.from_clone)?,
    ])
}

fn spans(machine: &Machine) -> Result<Spans> {
    let mut guest = Guest::counted(machine)?;
    let first = guest.moment("FIRST_NS")?;
    let ready = guest.ready()?;
    Ok(Spans {
        from_init: millions(first.saturating_sub(ready.init)),
        from_clone: millions(first.saturating_sub(ready.first_start)),
    })
}
