//! L1: what it takes to log.

use std::path::Path;

use super::Bench;
use super::boot::millions;
use super::figure::{Figure, Goal, MEGABYTES_PER_SECOND, MILLION_INSTRUCTIONS, Measure};
use super::guest::Guest;
use super::machine::{Kernel, Machine, image_of};
use super::sample::{interleave, median};
use super::systemd;
use crate::process::{Result, because};
use crate::workspace::{make_folder, write_file};

/// For the document.
pub const METHOD: &str = "\
The time that a service takes to write lines of 100 bytes, as it sees it: 8.4 MB in pieces of 64 KiB, and 20,000 lines
in a write each; in instructions of the whole machine on one processor, and in MB/s on two emulated ones, there 268 MB for all but journald. Ours: PID 1
reads them into the service's ring, with `console = \"none\"`, and once more with the console, which is a serial port and
takes what it can. Floor: in the same machine, the same into a pipe that another process reads as cat(1) does, pieces of 128
KiB written to `/dev/null`. Peer: systemd-journald of the host's Debian in a privileged container of the same
machine, its output connected by systemd-cat, with storage in memory and without a limit of its rate.";

/// Where the service says how long it took.
const TERMINAL: &str = "devices = [\"/dev/ttyS0:/dev/terminal\"]\nrestart = \"never\"\n";

/// How often the times are measured. Instructions repeat.
const ROUNDS: usize = 3;

/// What is written: the number of writes, and how many bytes each has.
#[derive(Clone, Copy)]
struct Load(u32, u32);

const BULK: Load = Load(128, 65_536);
const LINES: Load = Load(20_000, 100);
/// Long enough to be timed, where the reader is no journald.
const MUCH: Load = Load(4096, 65_536);

impl Load {
    fn megabytes(self) -> f64 {
        f64::from(self.0) * f64::from(self.1) / 1e6
    }
}

/// Who reads it.
#[derive(Clone, Copy)]
enum Reader {
    Ours,
    OursWithConsole,
    Cat,
    Journald,
}

/// Measures L1.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let images = Images {
        probe: image_of(bench, "probe", &bench.workspace.target("dist-test/probe"))?,
        journald: journald(bench)?,
    };
    let machine = |name: &str, reader, load| images.machine(bench, &format!("logs-{name}"), reader, load);
    let machines = [
        machine("bulk", Reader::Ours, BULK)?,
        machine("bulk-cat", Reader::Cat, BULK)?,
        machine("bulk-journald", Reader::Journald, BULK)?,
    ];
    let by_line = [
        machine("lines", Reader::Ours, LINES)?,
        machine("lines-cat", Reader::Cat, LINES)?,
        machine("lines-journald", Reader::Journald, LINES)?,
    ];
    let shown = machine("bulk-console", Reader::OursWithConsole, BULK)?;

    let counted = |machine: &Machine| Guest::counted(machine)?.moment("POUR_NS").map(millions);
    let row = |what: &str, [ours, cat, journald]: &[Machine; 3]| -> Result<Figure> {
        Ok(Figure::new("L1", what, MILLION_INSTRUCTIONS, counted(ours)?)
            .floor(counted(cat)?)
            .peer(counted(journald)?))
    };
    let bulk = row("8.4 MB in bulk", &machines)?.goal(Goal::AtMost(1.0 / 0.8, Measure::Floors));
    let cat = bulk.floor;
    let lines = row("20,000 lines, a write each", &by_line)?;
    let mut console = Figure::new("L1", "8.4 MB in bulk, console on", MILLION_INSTRUCTIONS, counted(&shown)?);
    console.floor = cat;

    let rate = |machine: &Machine, load: Load| {
        let milliseconds = millions(Guest::run_without_strings(bench, machine)?.moment("POUR_NS")?);
        Ok(load.megabytes() / (milliseconds / 1e3))
    };
    let much = machine("much", Reader::Ours, MUCH)?;
    let much_cat = machine("much-cat", Reader::Cat, MUCH)?;
    let [_, _, journald] = &machines;
    let [ours, cat, journald] =
        interleave(ROUNDS, [&|| rate(&much, MUCH), &|| rate(&much_cat, MUCH), &|| rate(journald, BULK)])?;
    let rates = Figure::new("L1", "in bulk, two processors", MEGABYTES_PER_SECOND, median(ours)?)
        .floor(median(cat)?)
        .peer(median(journald)?)
        .goal(Goal::AtLeast(0.8, Measure::Floors));
    Ok(vec![bulk, lines, console, rates])
}

struct Images {
    probe: String,
    journald: String,
}

impl Images {
    fn machine(&self, bench: &Bench, name: &str, reader: Reader, Load(count, size): Load) -> Result<Machine> {
        let console = if matches!(reader, Reader::OursWithConsole) { "text" } else { "none" };
        let pour = format!("talk pour {count} {size} /dev/terminal");
        let words =
            |text: &str| text.split(' ').map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        let (image, keys) = match reader {
            Reader::Ours | Reader::OursWithConsole => {
                (&self.probe, format!("command = [\"/probe\", {}]\n", words(&pour)))
            }
            Reader::Cat => (&self.probe, format!("command = [\"/probe\", {}, \"cat\"]\n", words(&pour))),
            Reader::Journald => {
                let script = format!("{JOURNALD} systemd-cat /probe {pour}");
                (
                    &self.journald,
                    format!(
                        "privileged = true\nvolumes = [\"/sys/fs/cgroup:/cgroup\"]\ncommand = [\"/bin/dash\", \"-euc\", '''{script}''']\n"
                    ),
                )
            }
        };
        let text =
            format!("[log]\nconsole = \"{console}\"\n[service.pour]\nimage = \"{image}\"\n{TERMINAL}{keys}");
        Machine::build(bench, name, Kernel::Own, &text, None)
    }
}

/// Starts journald, which looks for the cgroups of whoever writes, and waits until its socket is there.
const JOURNALD: &str = "\
    mount --bind /cgroup /sys/fs/cgroup
    /usr/lib/systemd/systemd-journald &
    until [ -S /run/systemd/journal/stdout ]; do :; done
    exec";

/// Does what journald does by default, without what would make the comparison unfair to it: no disk, and no line left out.
const JOURNALD_CONF: &str = "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nRateLimitBurst=0\nForwardToConsole=no\n\
                             ForwardToKMsg=no\nForwardToSyslog=no\nForwardToWall=no\nReadKMsg=no\nAudit=no\n";

/// journald of the host's Debian with all that it needs, as an image.
fn journald(bench: &Bench) -> Result<String> {
    let folder = bench.folder("images")?.join("journald");
    for program in
        ["/usr/lib/systemd/systemd-journald", "/usr/bin/systemd-cat", "/usr/bin/mount", "/usr/bin/dash"]
    {
        systemd::install(program, &folder)?;
    }
    let copy = |from: &Path, to: &str| -> Result<()> {
        let copied = std::fs::copy(from, folder.join(to));
        copied.map(drop).map_err(because(format!("cannot copy `{}`", from.display())))
    };
    make_folder(&folder.join("bin"))?;
    copy(Path::new("/usr/bin/dash"), "bin/dash")?;
    copy(&bench.workspace.target("dist-test/probe"), "probe")?;
    make_folder(&folder.join("etc/systemd"))?;
    write_file(&folder.join("etc/machine-id"), systemd::MACHINE_ID)?;
    write_file(&folder.join("etc/systemd/journald.conf"), JOURNALD_CONF)?;
    Ok(format!("dir:{}", folder.display()))
}
