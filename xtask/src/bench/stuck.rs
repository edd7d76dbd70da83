//! D2: how long a machine takes to stop services that do not stop.

use super::Bench;
use super::boot::millions;
use super::figure::{Figure, Goal, MILLISECONDS, Measure};
use super::guest::Guest;
use super::machine::{Kernel, Machine};
use super::sample::median;
use crate::process::Result;

/// For the document.
pub const METHOD: &str = "\
The guest's time from the beginning of the stop until everything has ended and is unmounted, on two emulated
processors. The services ignore their stop signal, and are killed when their grace period is over. Floor: that
grace period. systemd and Docker need as long, but each after the other where one depends on the other.";

const ROUNDS: usize = 3;
/// Seconds.
const GRACE: u32 = 2;

/// Measures D2.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let image = format!("oci:{}:busybox", bench.workspace.target("images/demo").display());
    let figure = |what: &str, name: &str, keys: fn(u32) -> String, count: u32| {
        let service = |number| {
            let keys = keys(number);
            format!(
                "[service.s{number}]\nimage = \"{image}\"\nstop-grace-period = \"{GRACE}s\"\n{keys}\
                 command = [\"sh\", \"-c\", \"trap '' TERM; echo pausing; while :; do sleep 1000; done\"]\n"
            )
        };
        let services: String = (0..count).map(service).collect();
        let machine = Machine::build(bench, name, Kernel::Own, &services, None)?;
        let stop = || {
            let mut guest = Guest::run(bench, &machine)?;
            guest.wait_for("pausing", count as usize)?;
            guest.ready()?;
            guest.power_off().map(millions)
        };
        let times = (0..ROUNDS).map(|_| stop()).collect::<Result<Vec<f64>>>()?;
        let grace = f64::from(GRACE) * 1e3;
        Ok::<Figure, String>(
            Figure::new("D2", what, MILLISECONDS, median(times)?)
                .floor(grace)
                .goal(Goal::AtMost(grace + 50.0, Measure::Units)),
        )
    };
    let chained = |number: u32| match number.checked_sub(1) {
        Some(before) => format!("depends-on = [\"s{before}\"]\n"),
        None => String::new(),
    };
    Ok(vec![
        figure("shutdown, 20 services that are stuck", "stuck", |_| String::new(), 20)?,
        figure("shutdown, 5 that are stuck, in a chain", "stuck-chain", chained, 5)?,
    ])
}
