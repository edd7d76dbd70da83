//! D2: how long a machine takes to stop services that do not stop.

use super::Bench;
use super::boot::millions;
use super::figure::{Figure, Goal, MILLISECONDS, Measure};
use super::guest::Guest;
use super::machine::{Kernel, Machine};
use super::sample::median;
use super::systemd;
use crate::process::Result;

/// For the document.
pub const METHOD: &str = "\
The guest's time from the beginning of the stop until everything has ended and is unmounted, on two emulated
processors. The services ignore their stop signal, and are killed when their grace period is over. Floor: that
grace period. Once more on one processor whose instructions are counted, and whose clock jumps while nothing runs, beside
systemd as PID 1 of the same kernel with 20 units of the same program and `TimeoutStopSec=2`, without containers. On two
processors the time has in it what D1 says of emulators: 2,700 pieces of code that run for the first time. Docker
stops one container after the other where one depends on the other.";

const ROUNDS: usize = 3;
/// Seconds.
const GRACE: u32 = 2;

/// Measures D2.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let image = format!("oci:{}:busybox", bench.workspace.target("images/demo").display());
    let machine = |name: &str, keys: fn(u32) -> String, count: u32| {
        let service = |number| {
            let keys = keys(number);
            format!(
                "[service.s{number}]\nimage = \"{image}\"\nstop-grace-period = \"{GRACE}s\"\n{keys}\
                 command = [\"sh\", \"-c\", \"trap '' TERM; echo pausing; while :; do sleep 1000; done\"]\n"
            )
        };
        let services: String = (0..count).map(service).collect();
        Machine::build(bench, name, Kernel::Own, &services, None)
    };
    let stop = |mut guest: Guest, count: usize| {
        guest.wait_for("pausing", count)?;
        guest.ready()?;
        guest.power_off().map(millions)
    };
    let grace = f64::from(GRACE) * 1e3;
    let figure = |what: &str, machine: &Machine, count: usize| {
        let times = (0..ROUNDS).map(|_| stop(Guest::run(bench, machine)?, count));
        let time = median(times.collect::<Result<Vec<f64>>>()?)?;
        let figure = Figure::new("D2", what, MILLISECONDS, time).floor(grace);
        Ok::<Figure, String>(figure.goal(Goal::AtMost(grace + 50.0, Measure::Units)))
    };
    let chained = |number: u32| match number.checked_sub(1) {
        Some(before) => format!("depends-on = [\"s{before}\"]\n"),
        None => String::new(),
    };
    let many = machine("stuck", |_| String::new(), 20)?;
    let chain = machine("stuck-chain", chained, 5)?;
    let script = "trap \"\" TERM; while :; do sleep 1000; done";
    let service = format!("ExecStart=/bin/dash -c '{script}'\nTimeoutStopSec={GRACE}");
    let unit = |number| (format!("s{number}.service"), format!("[Service]\n{service}\n"));
    let units: Vec<systemd::Unit> = (0..20).map(unit).chain([systemd::stopper()]).collect();
    let peer = systemd::stop(systemd::boot(bench, &many, "stuck", &units, &bench.moment)?)?;
    let counted = stop(Guest::run_counted(bench, &many)?, 20)?;
    Ok(vec![
        figure("shutdown, 20 services that are stuck", &many, 20)?,
        figure("shutdown, 5 that are stuck, in a chain", &chain, 5)?,
        Figure::new("D2", "shutdown, 20 that are stuck, counted", MILLISECONDS, counted)
            .floor(grace)
            .peer(millions(peer))
            .goal(Goal::AtMost(grace + 50.0, Measure::Units)),
    ])
}
