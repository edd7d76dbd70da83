//! `coracle ctl top`: what the machine and its services use.

use std::io::Write;
use std::thread;
use std::time::Duration;

use manifest::control::{Answer, Ask, Load, Usage};

use super::channel::Channel;
use super::metrics;
use super::status::Status;
use super::table::Table;
use super::terminal;
use super::{print, print_json};
use crate::cli;
use crate::error::{Context, Error, Result};
use crate::output;
use crate::plan::bytes;

/// From one table to the next.
const PERIOD: Duration = Duration::from_secs(2);
/// From the first look to the second, which make the first table.
const FIRST: Duration = Duration::from_secs(1);
/// Of a terminal: the cursor goes to the first character, and all from there on is empty.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// What is used, as far as it can be told at one moment.
#[derive(Debug, Clone)]
pub struct Sample {
    /// By the machine.
    pub load: Load,
    /// By its services.
    pub usages: Vec<Usage>,
}

impl Sample {
    fn ask(channel: &mut Channel) -> Result<Self> {
        let (mut load, mut usages) = (None, Vec::new());
        for answer in channel.all(Ask::Usage)? {
            match answer {
                Answer::Load(found) => load = Some(found),
                Answer::Usage(usage) => usages.push(usage),
                _ => {}
            }
        }
        let load = load.ok_or_else(|| Error::new("the machine does not say what it uses"))?;
        Ok(Self { load, usages })
    }

    fn answers(self) -> impl Iterator<Item = Answer> {
        std::iter::once(Answer::Load(self.load)).chain(self.usages.into_iter().map(Answer::Usage))
    }
}

/// Prints what is used: once, or again and again for a person.
pub fn top(channel: &mut Channel, options: &cli::Top) -> Result<()> {
    if options.json {
        return print_json(Sample::ask(channel)?.answers());
    }
    if options.metrics {
        let status = Status::ask(channel)?;
        return print(&metrics::text(&Sample::ask(channel)?, &status));
    }
    let mut before = Sample::ask(channel)?;
    thread::sleep(FIRST);
    if options.once || !terminal::is_read() {
        return print(&table(&before, &Sample::ask(channel)?));
    }
    output::write(|out| {
        loop {
            let now = Sample::ask(channel)?;
            write!(out, "{CLEAR}{}", table(&before, &now)).doing(|| "write to stdout")?;
            out.flush().doing(|| "write to stdout")?;
            before = now;
            thread::sleep(PERIOD);
        }
    })
}

/// What was used between two moments, for a person.
fn table(before: &Sample, now: &Sample) -> String {
    let period = now.load.now.monotonic_ns.saturating_sub(before.load.now.monotonic_ns) / 1000;
    let mut table =
        Table::new(&["NAME", "CPU", "MEMORY", "LIMIT", "OF LIMIT", "PROCESSES", "READ", "WRITTEN"]);
    for usage in &now.usages {
        let spent = |usage: &Usage| usage.user_us.saturating_add(usage.system_us);
        // One that was not there before has used it all since.
        let earlier = before.usages.iter().find(|other| other.name == usage.name).map_or(0, spent);
        let limit = usage.memory_limit.min(now.load.memory_total);
        table.row([
            usage.name.to_string(),
            share(spent(usage).saturating_sub(earlier), period),
            bytes(usage.memory),
            bytes(limit),
            share(usage.memory, limit),
            usage.processes.to_string(),
            bytes(usage.read_bytes),
            bytes(usage.written_bytes),
        ]);
    }
    format!("{}\n\n{table}", machine(&before.load, &now.load))
}

fn machine(before: &Load, now: &Load) -> String {
    let busy = |load: &Load| load.user_us.saturating_add(load.system_us);
    let all = |load: &Load| busy(load).saturating_add(load.idle_us).saturating_add(load.iowait_us);
    let [one, five, fifteen] = now.load_percent.map(|load| f64::from(load) / 100.0);
    let processors = if now.processors == 1 { "processor is" } else { "processors are" };
    format!(
        "{} {processors} {} busy, load {one:.2} {five:.2} {fifteen:.2}, memory {} of {}, PID 1 has {}",
        now.processors,
        share(busy(now).saturating_sub(busy(before)), all(now).saturating_sub(all(before))),
        bytes(now.memory_total.saturating_sub(now.memory_available)),
        bytes(now.memory_total),
        bytes(now.init_memory),
    )
}

/// In percent, with a digit behind the point.
fn share(part: u64, whole: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(whole.max(1));
    format!("{}.{} %", tenths / 10, tenths % 10)
}

#[cfg(test)]
pub mod tests {
    use super::super::fake::{at, name};
    use super::*;

    fn usage(text: &str, user_us: u64) -> Usage {
        Usage {
            name: name(text),
            user_us,
            system_us: 250_000,
            memory: 24 << 20,
            memory_peak: 30 << 20,
            memory_limit: if text == "db" { u64::MAX } else { 96 << 20 },
            processes: 3,
            memory_kills: 1,
            read_bytes: 4096,
            written_bytes: 123 << 20,
        }
    }

    /// A moment in the life of a machine with two services.
    pub fn sample(milliseconds: u64, user_us: u64) -> Sample {
        let load = Load {
            now: at(milliseconds),
            memory_total: 480 << 20,
            memory_available: 300 << 20,
            processors: 2,
            user_us: user_us + 1_000_000,
            system_us: 2_000_000,
            idle_us: 2 * milliseconds * 1000,
            iowait_us: 0,
            load_percent: [50, 25, 12],
            init_memory: 1_300_000,
        };
        Sample { load, usages: vec![usage("web", user_us), usage("db", 500_000)] }
    }

    #[test]
    fn a_table_says_what_was_used_between_two_moments() {
        insta::assert_snapshot!(table(&sample(10_000, 1_000_000), &sample(12_000, 2_500_000)), @r"
        2 processors are 27.2 % busy, load 0.50 0.25 0.12, memory 180.0 MiB of 480.0 MiB, PID 1 has 1.2 MiB

        NAME  CPU     MEMORY    LIMIT      OF LIMIT  PROCESSES  READ     WRITTEN
        web   75.0 %  24.0 MiB  96.0 MiB   25.0 %    3          4.0 KiB  123.0 MiB
        db    0.0 %   24.0 MiB  480.0 MiB  5.0 %     3          4.0 KiB  123.0 MiB
        ");
    }
}
