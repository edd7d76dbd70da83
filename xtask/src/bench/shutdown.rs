//! D1: how long a machine takes to stop services that stop at once.

use super::Bench;
use super::boot::millions;
use super::figure::{Figure, Goal, MILLION_INSTRUCTIONS, MILLISECONDS, Measure};
use super::guest::Guest;
use super::machine::{Kernel, Machine, image_of};
use super::sample::{interleave, median};
use super::{peers, systemd};
use crate::process::Result;

/// For the document.
pub const METHOD: &str = "\
The guest's time from the beginning of the stop until everything has ended and is unmounted, on two emulated
processors, after a press of the power button. The services are the tests' probe, which ends at the stop
signal. Floor: a machine whose one service has ended long before, so that nothing is left to stop. Beside it a
machine whose one service has started 100 processes of the same program, all of which the kernel kills with it. The
same in instructions, on one processor, with that machine as the floor; the design's goal of 50 ms over the first floor
is judged by that clock as well, which advances by a nanosecond with each instruction. Peers: systemd as PID 1 of the
same kernel with 100 units of the same program, without containers, from `poweroff.target` to the kernel's last line;
and 20 times `runc kill` and `runc delete` of containers as in S4 which do not handle signals, until the last is gone.";

const ROUNDS: usize = 3;

const PAUSE: &str = "\"/probe\", \"pause\"";
/// The same with 100 processes more.
const PAUSE_WITH: &str = "\"/probe\", \"pause\", \"100\"";
const END: &str = "\"/probe\", \"print\", \"pausing\"";

/// Measures D1.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    Ok([times(bench)?, counted(bench)?].concat())
}

fn machine(bench: &Bench, name: &str, count: u32, command: &str) -> Result<Machine> {
    let image = image_of(bench, "probe", &bench.workspace.target("dist-test/probe"))?;
    let service = |number| {
        format!(
            "[service.s{number}]\nimage = \"{image}\"\ncommand = [{command}]\n\
             restart = \"no\"\nread-only = true\n"
        )
    };
    Machine::build(bench, name, Kernel::Own, &(0..count).map(service).collect::<String>(), None)
}

/// What a stop takes when `count` processes have said that they wait for it.
fn stop(mut guest: Guest, count: usize) -> Result<f64> {
    guest.wait_for("pausing", count)?;
    guest.ready()?;
    guest.power_off().map(millions)
}

fn times(bench: &Bench) -> Result<Vec<Figure>> {
    let one = machine(bench, "stop-1", 1, PAUSE)?;
    let twenty = machine(bench, "stop-20", 20, PAUSE)?;
    let hundred = machine(bench, "stop-100", 100, PAUSE)?;
    let none = machine(bench, "stop-0", 1, END)?;
    let processes = machine(bench, "stop-processes", 1, PAUSE_WITH)?;
    let stop = |machine: &Machine, count| stop(Guest::run(bench, machine)?, count);
    let [ones, twenties, hundreds, alone, floor] = interleave(
        ROUNDS,
        [
            &|| stop(&one, 1),
            &|| stop(&twenty, 20),
            &|| stop(&hundred, 100),
            &|| stop(&processes, 100),
            &|| stop(&none, 1),
        ],
    )?;
    let floor = median(floor)?;
    let figure = |what: &str, times: Vec<f64>| {
        Ok::<Figure, String>(Figure::new("D1", what, MILLISECONDS, median(times)?).floor(floor))
    };
    let goal = Goal::AtMost(100.0, Measure::Units);
    Ok(vec![
        figure("shutdown, 1 service", ones)?.goal(goal),
        figure("shutdown, 20 services", twenties)?.goal(goal),
        figure("shutdown, 100 services", hundreds)?.goal(goal),
        figure("shutdown, 100 processes of one service", alone)?,
    ])
}

fn counted(bench: &Bench) -> Result<Vec<Figure>> {
    let hundred = machine(bench, "stop-100", 100, PAUSE)?;
    let none = machine(bench, "stop-0", 1, END)?;
    let processes = machine(bench, "stop-processes", 1, PAUSE_WITH)?;
    let stop = |machine: &Machine, count| stop(Guest::run_counted(bench, machine)?, count);
    let unit = |number| (format!("s{number}.service"), "[Service]\nExecStart=/probe pause\n".to_owned());
    let units: Vec<systemd::Unit> = (0..100).map(unit).chain([systemd::stopper()]).collect();
    let probe = bench.workspace.target("dist-test/probe");
    let peer = systemd::stop(systemd::boot(bench, &hundred, "stop", &units, &probe)?)?;
    let image = image_of(bench, "moment", &bench.moment)?;
    let silent =
        |number| format!("[service.s{number}]\nimage = \"{image}\"\ncommand = [\"/moment\", \"wait\"]\n");
    let silent = (0..20).map(silent).collect::<String>();
    let silent = Machine::build(bench, "stop-silent", Kernel::Own, &silent, None)?;
    let figure = |what: &str, value: f64| Figure::new("D1", what, MILLION_INSTRUCTIONS, value);
    Ok(vec![
        figure("shutdown, 100 services, counted", stop(&hundred, 100)?)
            .floor(stop(&processes, 100)?)
            .peer(millions(peer))
            .goal(Goal::AtMost((stop(&none, 1)? + 50.0).round(), Measure::Units)),
        figure("shutdown, 20 that handle no signal, beside runc", stop(&silent, 0)?)
            .peer(peers::measure_stop(bench)?),
    ])
}
