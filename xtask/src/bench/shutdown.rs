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
processors, after a press of the power button. The services are a program of 9 KB without a library, which waits for
the stop signal and ends. Floor: a machine whose one service has ended long before, so that nothing is left to stop. Beside it a
machine whose one service has started 100 processes of the tests' probe, all of which the kernel kills with it; and
services of that probe, which is Rust on a C library at an address of its own in each process. What an emulator runs for the
first time it translates: of these it is 26,000 pieces of code during the stop, nine of ten the probe's own, and of a hundred
small ones 2,700, nearly all the kernel's, so that times on two processors are not those of a machine. The same in
instructions, on one processor, with the machine of 100 processes as the floor; the design's goal of 50 ms over the first floor
is judged by that clock as well, which advances by a nanosecond with each instruction. Peers: systemd as PID 1 of the
same kernel with 100 units of the same program, without containers, from `poweroff.target` to the kernel's last line;
and 20 times `runc kill` and `runc delete` of containers as in S4 which do not handle signals, until the last is gone.";

const ROUNDS: usize = 3;

/// Programs of services.
#[derive(Clone, Copy)]
enum Program {
    /// Waits for its stop signal.
    Small,
    /// Likewise, with a standard library.
    Large,
    /// The same with 100 processes more.
    Many,
    /// Ends at once.
    Ends,
}

/// Measures D1.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    Ok([times(bench)?, counted(bench)?].concat())
}

fn machine(bench: &Bench, name: &str, count: u32, program: Program) -> Result<Machine> {
    let probe = || image_of(bench, "probe", &bench.workspace.target("dist-test/probe"));
    let (image, command) = match program {
        Program::Small => (image_of(bench, "moment", &bench.moment), r#""/moment", "term""#),
        Program::Large => (probe(), r#""/probe", "pause""#),
        Program::Many => (probe(), r#""/probe", "pause", "100""#),
        Program::Ends => (probe(), r#""/probe", "print", "pausing""#),
    };
    let image = image?;
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
    let one = machine(bench, "stop-1", 1, Program::Small)?;
    let twenty = machine(bench, "stop-20", 20, Program::Small)?;
    let hundred = machine(bench, "stop-100", 100, Program::Small)?;
    let large = machine(bench, "stop-large", 100, Program::Large)?;
    let none = machine(bench, "stop-0", 1, Program::Ends)?;
    let processes = machine(bench, "stop-processes", 1, Program::Many)?;
    let stop = |machine: &Machine, count| stop(Guest::run(bench, machine)?, count);
    let [ones, twenties, hundreds, larges, alone, floor] = interleave(
        ROUNDS,
        [
            &|| stop(&one, 1),
            &|| stop(&twenty, 20),
            &|| stop(&hundred, 100),
            &|| stop(&large, 100),
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
        figure("shutdown, 100 services with a standard library", larges)?,
        figure("shutdown, 100 processes of one service", alone)?,
    ])
}

fn counted(bench: &Bench) -> Result<Vec<Figure>> {
    let hundred = machine(bench, "stop-100", 100, Program::Small)?;
    let large = machine(bench, "stop-large", 100, Program::Large)?;
    let none = machine(bench, "stop-0", 1, Program::Ends)?;
    let processes = machine(bench, "stop-processes", 1, Program::Many)?;
    let stop = |machine: &Machine, count| stop(Guest::run_counted(bench, machine)?, count);
    let unit = |number| (format!("s{number}.service"), "[Service]\nExecStart=/moment term\n".to_owned());
    let units: Vec<systemd::Unit> = (0..100).map(unit).chain([systemd::stopper()]).collect();
    let peer = systemd::stop(systemd::boot(bench, &hundred, "stop", &units, &bench.moment)?)?;
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
        figure("shutdown, 100 services with a standard library, counted", stop(&large, 100)?),
        figure("shutdown, 20 that handle no signal, beside runc", stop(&silent, 0)?)
            .peer(peers::measure_stop(bench)?),
    ])
}
