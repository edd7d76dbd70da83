//! M1: what PID 1 and a container that does nothing hold in memory.

use std::collections::BTreeMap;

use super::Bench;
use super::figure::{Figure, Goal, KILOBYTES, MEGABYTES, Measure};
use super::guest::Guest;
use super::machine::{Kernel, Machine};
use crate::process::Result;

/// For the document.
pub const METHOD: &str = "\
A service reads the machine's `/proc/1/smaps_rollup`, `/proc/meminfo` and `/proc/zoneinfo` after the page cache has
been dropped, beside 1 and beside 101 containers of `busybox sleep`, all from one layer; and the first of these beside 1001. Most of what is
resident are pages of the program's own file. An idle container is a hundredth of the difference of available memory between the two
machines; free pages that a processor keeps for itself count as available. Floor: the same between two machines
whose PID 1 is S4's floor, which says it itself: a container with the same namespaces, cgroup, file systems and filter, but
without masks, devices and a log. For the figure beside a process it is that of 100 processes of the same program that the
reading service starts in its own container. The design's goal for PID 1 is 1.2 MB and 2 KB a service.";

/// The containers by which the two machines differ.
const MORE: u32 = 100;
/// Those of a machine with very many, and its memory in MiB.
const VERY_MANY: u32 = 1001;
const MEMORY: u32 = 2048;

/// For the scripts of services that measure: `field NAME AS` says `AS=NUMBER`, in KiB, of a line of what it
/// reads; `available AS` says how much memory is available; `settle` drops the caches, and lets everything
/// come to rest first.
///
/// `MemAvailable` leaves out the free pages that each processor keeps for itself: up to 15 MB, which differ
/// from one boot to the next.
pub const FUNCTIONS: &str = "\
    field() { while read -r name value unit; do [ \"$name\" != \"$1:\" ] || echo \"$2=$value\"; done; }
    available() {
        kept=0
        while read -r name value rest; do
            [ \"$name\" != count: ] || kept=$((kept + value))
        done </proc/zoneinfo
        while read -r name value unit; do
            [ \"$name\" != MemAvailable: ] || echo \"$1=$((value + 4 * kept))\"
        done </proc/meminfo
    }
    settle() { sleep 2; echo 3 >/machine/proc/sys/vm/drop_caches; sleep 1; }";

/// Says `NAME=NUMBER` lines, and `MEASURED=1` at last.
const SCRIPT: &str = "\
    settle
    field Rss PID1 </machine/proc/1/smaps_rollup
    field Anonymous ANON </machine/proc/1/smaps_rollup
    available BEFORE
    i=0
    while [ $i -lt 100 ]; do /bin/sleep 1000000 & i=$((i + 1)); done
    settle
    available AFTER
    echo MEASURED=1";

/// Bytes of a KiB, in KB.
pub const KIBIBYTE: f64 = 1.024;

/// Measures M1.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let few = said(&mut Guest::run(bench, &machine(bench, 1)?)?)?;
    let many = said(&mut Guest::run(bench, &machine(bench, 1 + MORE)?)?)?;
    let floor = available_to_floor(bench, 1)? - available_to_floor(bench, 1 + MORE)?;
    let very_many = machine(bench, VERY_MANY)?;
    let very_many = said(&mut Guest::counted_in(&very_many, &very_many.initramfs(), MEMORY)?)?;
    let get = |of: &BTreeMap<String, f64>, name: &str| {
        of.get(name).copied().ok_or_else(|| format!("the reading service did not say `{name}`"))
    };
    let containers = f64::from(MORE);
    let (rss, rss_of_many) = (get(&few, "PID1")?, get(&many, "PID1")?);
    let container = (get(&few, "BEFORE")? - get(&many, "BEFORE")?) / containers;
    let process = (get(&few, "BEFORE")? - get(&few, "AFTER")?) / containers;
    let resident = |what: &str, value: f64| Figure::new("M1", what, MEGABYTES, value * KIBIBYTE / 1e3);
    Ok(vec![
        resident("PID 1 resident, 2 services", rss).goal(Goal::AtMost(1.5, Measure::Units)),
        resident("PID 1 resident, 102 services", rss_of_many).goal(Goal::AtMost(1.5, Measure::Units)),
        resident("PID 1 resident, 1002 services", get(&very_many, "PID1")?)
            .goal(Goal::AtMost(3.2, Measure::Units)),
        Figure::new("M1", "PID 1 anonymous, 102 services", KILOBYTES, get(&many, "ANON")? * KIBIBYTE),
        Figure::new("M1", "idle container", KILOBYTES, container * KIBIBYTE)
            .floor(floor / containers * KIBIBYTE)
            .goal(Goal::AtMost(1.2, Measure::Floors)),
        Figure::new("M1", "idle container, beside a process", KILOBYTES, container * KIBIBYTE)
            .floor(process * KIBIBYTE)
            .goal(Goal::AtMost(1.2, Measure::Floors)),
    ])
}

/// The memory that is available, in KiB, beside so many idle containers of the floor's.
fn available_to_floor(bench: &Bench, idle: u32) -> Result<f64> {
    let name = format!("floor-idle-{idle}");
    let machine = Machine::build(bench, &name, Kernel::Own, &idle_services(bench, idle), Some(&bench.floor))?;
    let said = said(&mut Guest::run(bench, &machine)?)?;
    said.get("AVAILABLE").copied().ok_or_else(|| "the floor did not say how much memory it has".to_owned())
}

fn image(bench: &Bench) -> String {
    format!("image = \"oci:{}:busybox\"", bench.workspace.target("images/demo").display())
}

fn idle_services(bench: &Bench, count: u32) -> String {
    let image = image(bench);
    let one = |number| format!("[service.idle-{number}]\n{image}\ncommand = [\"/bin/sleep\", \"1000000\"]\n");
    (0..count).map(one).collect()
}

/// A machine with so many idle containers and the reading service, which may look at PID 1's pages.
fn machine(bench: &Bench, idle: u32) -> Result<Machine> {
    let image = image(bench);
    let mut services = idle_services(bench, idle);
    // Its own image's shell reads the script; TOML's literal text needs no escapes.
    services += &format!(
        "[service.reader]\n{image}\nvolumes = [\"/proc:/machine/proc\"]\nrestart = \"never\"\n\
         userns = \"host\"\ncap-add = [\"SYS_PTRACE\"]\n\
         command = [\"sh\", \"-euc\", '''{FUNCTIONS}\n{SCRIPT}''']\n"
    );
    Machine::build(bench, &format!("idle-{idle}"), Kernel::Own, &services, None)
}

/// What the services of a machine say, once one of them has said `MEASURED=1`.
pub fn said(guest: &mut Guest) -> Result<BTreeMap<String, f64>> {
    guest.wait_for("MEASURED=", 1)?;
    Ok(guest.wait_for("=", 1)?.iter().filter_map(|line| pair(line)).collect())
}

/// `reader | NAME=NUMBER`
fn pair(line: &str) -> Option<(String, f64)> {
    let (name, number) = line.rsplit_once(' ')?.1.split_once('=')?;
    Some((name.to_owned(), number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reading_services_lines_are_names_and_numbers() {
        assert_eq!(pair(" reader | PID1=1234"), Some(("PID1".to_owned(), 1234.0)));
        assert_eq!(pair("coracle | ready, 0.1 s after init began"), None);
        assert!(SCRIPT.contains(&format!("-lt {MORE}")));
    }
}
