//! S5: how long a service is away that has ended.

use super::Bench;
use super::boot::millions;
use super::containers;
use super::figure::{Figure, Goal, MILLION_INSTRUCTIONS, Measure};
use super::guest::Guest;
use super::machine::{Kernel, Machine, image_of};
use super::systemd;
use crate::process::Result;

/// For the document.
pub const METHOD: &str = "\
Instructions from one run of a service to the next, less the backoff of 1 ms, the shortest that there is, in which
the clock of a counted guest jumps: a ninety-ninth of what a machine takes whose service, which ends at once, is given
up after 100 runs, more than one that gives it up after the first. The runs begin two seconds after the first start: in
a machine's first second the kernel's timers expire at ticks, 4 ms apart, and a pause takes until the next. Floor: S4's,
which does nothing but clone, wait and reap. Peer: systemd as PID 1 of the same kernel, with a unit of the same program
that has no container, `RestartSec=0` instead of the 100 ms that it waits by default, and
`StartLimitAction=poweroff-immediate` after as many runs.";

/// As many ends as can be counted before a service is given up.
const RUNS: u32 = 100;
/// Millions of nanoseconds.
const BACKOFF: f64 = 1.0;

/// Measures S5.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let image = image_of(bench, "moment", &bench.moment)?;
    let machine = |runs: u32| {
        let service = format!(
            "[oneshot.nap]\nimage = \"{image}\"\ncommand = [\"/moment\", \"nap\"]\n\
             [service.s]\nimage = \"{image}\"\ncommand = [\"/moment\", \"end\"]\n\
             depends-on = {{ nap = \"completed\" }}\n\
             backoff = {{ first = \"1ms\", cap = \"1ms\" }}\n\
             give-up = {{ after = {runs}, within = \"1h\", then = \"poweroff\" }}\n"
        );
        Machine::build(bench, &format!("crashes-{runs}"), Kernel::Own, &service, None)
    };
    let span = |runs: u32| {
        let mut guest = Guest::counted(&machine(runs)?)?;
        let first = guest.ready()?.first_start;
        let (stop, _) = guest.end()?;
        Ok::<f64, String>(millions(stop.saturating_sub(first)))
    };
    let ours = (span(RUNS)? - span(1)?) / f64::from(RUNS - 1) - BACKOFF;
    let floor = containers::floor_of_one(bench)?;
    let peer = |runs: u32| {
        let limits =
            format!("StartLimitIntervalSec=1h\nStartLimitBurst={runs}\nStartLimitAction=poweroff-immediate");
        let service = "ExecStart=/moment end\nRestart=always\nRestartSec=0";
        let unit = ("s.service".to_owned(), format!("[Unit]\n{limits}\n[Service]\n{service}\n"));
        let guest = systemd::boot(bench, &machine(1)?, &format!("crashes-{runs}"), &[unit], &bench.moment)?;
        systemd::end(guest).map(millions)
    };
    let peer = (peer(RUNS)? - peer(1)?) / f64::from(RUNS - 1);
    Ok(vec![
        Figure::new("S5", "crash to the next run", MILLION_INSTRUCTIONS, ours)
            .floor(floor)
            .peer(peer)
            .goal(Goal::AtMost(2.0, Measure::Floors)),
    ])
}
