//! I1: how often a machine wakes that has nothing to do.

use super::Bench;
use super::figure::{Figure, Goal, Measure, TIMES};
use super::guest::Guest;
use super::machine::{Kernel, Machine};
use super::systemd;
use crate::process::Result;

/// For the document.
pub const METHOD: &str = "\
How often PID 1 of a machine with 100 services that wait for ever, and no watchdog, gives up its processor in a minute
(`voluntary_ctxt_switches`), as a service of the same machine counts it, which says nothing meanwhile. With a watchdog
of 60 s it is two more. Peer: systemd as PID 1 of the same kernel with 101 units, in a minute of the counted clock.";

const SCRIPT: &str = "\
    count() { while read -r name value; do [ \"$name\" != voluntary_ctxt_switches: ] || echo \"$value\"; done <$status; }
    sleep 20; before=$(count); sleep 60; echo WAKES=$(($(count) - before))";

/// Measures I1.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let image = format!("oci:{}:busybox", bench.workspace.target("images/demo").display());
    let idle = |number: u32| {
        format!("[service.s{number}]\nimage = \"{image}\"\ncommand = [\"sleep\", \"1000000\"]\n")
    };
    let config = format!(
        "{}[watchdog]\ntimeout = \"none\"\n[service.counts]\nimage = \"{image}\"\nvolumes = [\"/proc:/machine/proc\"]\n\
         command = [\"sh\", \"-c\", '''status=/machine/proc/1/status; {SCRIPT}; sleep 1000000''']\n",
        (0..100).map(idle).collect::<String>()
    );
    let machine = Machine::build(bench, "idle", Kernel::Own, &config, None)?;
    let mut guest = Guest::run_in(bench, &machine, "1GiB")?;
    let wakes = guest.moment("WAKES")?;
    let unit = |number| (format!("s{number}.service"), "[Service]\nExecStart=/moment wait\n".to_owned());
    // systemd knows variables in a command line as well.
    let script = format!("status=/proc/1/status; {SCRIPT}").replace('$', "$$").replace('\n', ";");
    let counts = format!("[Service]\nStandardOutput=tty\nExecStart=/bin/dash -c '{script}'\n");
    let units: Vec<systemd::Unit> =
        (0..100).map(unit).chain([("counts.service".to_owned(), counts)]).collect();
    let peer = systemd::boot(bench, &machine, "idle", &units, &bench.moment)?.moment("WAKES")?;
    let figure = Figure::new("I1", "wake-ups of PID 1 in a minute, 101 services", TIMES, wakes as f64);
    Ok(vec![figure.peer(peer as f64).goal(Goal::AtMost(0.0, Measure::Units))])
}
