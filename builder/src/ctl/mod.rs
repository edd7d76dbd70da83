//! `coracle ctl`: talking to a machine that runs.

mod address;
mod boot;
mod channel;
#[cfg(any(test, fuzzing))]
pub mod damage;
mod exec;
#[cfg(test)]
mod fake;
mod find;
mod metrics;
mod order;
mod power;
mod record;
mod status;
mod svg;
mod table;
mod terminal;
mod time;
mod top;

use std::io::Write;

use manifest::control::{Answer, Order, Power};

use crate::cli::{Control, Ctl};
use crate::error::{Context, Result};
use crate::output::{self, Output};
pub use address::Address;
use channel::Channel;
use status::Status;

/// Carries out what is wanted of a machine, and returns the exit code.
pub fn control(options: &Ctl) -> Result<u8> {
    if let Control::Ls { json } = options.command {
        return print(&find::list(json)?).map(|()| 0);
    }
    let place = find::find(options)?;
    let channel = &mut Channel::open(&place)?;
    match &options.command {
        Control::Ls { .. } => Ok(()),
        Control::Status { services, json } => {
            let status = Status::ask(channel)?.only(services)?;
            if *json { print_json(status.answers()) } else { print(&status.table()) }
        }
        Control::Logs(options) => record::logs(channel, options),
        Control::Events { follow, json } => record::events(channel, *follow, *json),
        Control::Start(wanted) => order::order(channel, &wanted.services, Order::Start, !wanted.no_wait),
        Control::Stop(wanted) => order::order(channel, &wanted.services, Order::Stop, !wanted.no_wait),
        Control::Restart(wanted) => order::order(channel, &wanted.services, Order::Restart, !wanted.no_wait),
        Control::Exec(options) => return exec::exec(channel, options),
        Control::Top(options) => top::top(channel, options),
        Control::Boot { svg, json } => boot::boot(channel, svg.as_deref(), *json),
        Control::Poweroff(end) => power::end(channel, Power::Off, !end.no_wait),
        Control::Reboot(end) => power::end(channel, Power::Reboot, !end.no_wait),
        Control::Halt(end) => power::end(channel, Power::Halt, !end.no_wait),
    }
    .map(|()| 0)
}

fn print(text: &str) -> Result<()> {
    output::write(|out| out.write_all(text.as_bytes()).doing(|| "write to stdout"))
}

fn print_json(answers: impl Iterator<Item = Answer>) -> Result<()> {
    output::write(|out| answers.into_iter().try_for_each(|answer| json_line(out, &answer)))
}

/// Writes a part of an answer as the machine has sent it.
fn json_line(out: &mut Output, answer: &Answer) -> Result<()> {
    serde_json::to_writer(&mut *out, answer).doing(|| "write to stdout")?;
    out.write_all(b"\n").doing(|| "write to stdout")
}
