//! D1: how long a machine takes to stop services that stop at once.

use super::Bench;
use super::boot::millions;
use super::figure::{Figure, Goal, MILLION_INSTRUCTIONS, MILLISECONDS, Measure};
use super::guest::Guest;
use super::machine::{Kernel, Machine, image_of};
use super::sample::{interleave, median};
use crate::process::Result;

/// For the document.
pub const METHOD: &str = "\
The guest's time from the beginning of the stop until everything has ended and is unmounted, on two emulated
processors, after a press of the power button. The services are the tests' probe, which ends at the stop
signal. Floor: a machine whose one service has ended long before, so that nothing is left to stop. The
design's goal is 50 ms over the floor. The same once more in instructions, on one processor.";

const ROUNDS: usize = 3;

/// Measures D1.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let image = image_of(bench, "probe", &bench.workspace.target("dist-test/probe"))?;
    let machine = |name: &str, count: u32, command: &str| {
        let service = |number| {
            format!(
                "[service.s{number}]\nimage = \"{image}\"\ncommand = [{command}]\n\
                 restart = \"no\"\nread-only = true\n"
            )
        };
        let services: String = (0..count).map(service).collect();
        Machine::build(bench, name, Kernel::Own, &services, None)
    };
    let pause = "\"/probe\", \"pause\"";
    let one = machine("stop-1", 1, pause)?;
    let twenty = machine("stop-20", 20, pause)?;
    let hundred = machine("stop-100", 100, pause)?;
    let none = machine("stop-0", 1, "\"/probe\", \"print\", \"pausing\"")?;

    let end = |mut guest: Guest, count: usize| {
        guest.wait_for("pausing", count)?;
        guest.ready()?;
        guest.power_off().map(millions)
    };
    let stop = |machine: &Machine, count| end(Guest::run(bench, machine)?, count);
    let counted = |machine: &Machine, count| end(Guest::run_counted(bench, machine)?, count);
    let [ones, twenties, hundreds, floor] = interleave(
        ROUNDS,
        [&|| stop(&one, 1), &|| stop(&twenty, 20), &|| stop(&hundred, 100), &|| stop(&none, 1)],
    )?;
    let floor = median(floor)?;
    let figure = |what: &str, times: Vec<f64>| -> Result<Figure> {
        Ok(Figure::new("D1", what, MILLISECONDS, median(times)?)
            .floor(floor)
            .goal(Goal::AtMost(100.0, Measure::Units)))
    };
    let instructions =
        Figure::new("D1", "shutdown, 100 services, counted", MILLION_INSTRUCTIONS, counted(&hundred, 100)?)
            .floor(counted(&none, 1)?);
    Ok(vec![
        figure("shutdown, 1 service", ones)?,
        figure("shutdown, 20 services", twenties)?,
        figure("shutdown, 100 services", hundreds)?,
        instructions,
    ])
}
