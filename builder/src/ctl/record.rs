//! `coracle ctl logs` and `events`: what was written and what has happened, line by line.

use std::io::Write;

use anstream::ColorChoice;
use manifest::Name;
use manifest::control::{Answer, Ask, Event, Log};

use super::channel::{Channel, PATIENCE};
use super::json_line;
use super::status::Status;
use super::table::plain;
use super::terminal;
use super::time;
use crate::cli::Logs;
use crate::error::{Context, Result};
use crate::output;
use crate::progress::say;

/// The colours of names, as the numbers of SGR: those that can be read on dark and on light.
const COLOURS: &[u8] = &[36, 33, 32, 35, 34, 96, 93, 92, 95, 94];

/// How lines of logs are shown.
#[derive(Debug)]
struct Style {
    /// The services, in whose order colours are given.
    names: Vec<Name>,
    /// Whether names are shown, and coloured.
    is_named: bool,
    is_coloured: bool,
    with_timestamps: bool,
}

/// Prints what services have written, and what they write if that is asked for.
pub fn logs(channel: &mut Channel, options: &Logs) -> Result<()> {
    let status = Status::ask(channel)?.only(&options.services)?;
    let names: Vec<Name> = status.services.into_iter().map(|service| service.name).collect();
    let services = if options.services.is_empty() { Vec::new() } else { names.clone() };
    let style = Style {
        is_named: names.len() > 1 || options.services.is_empty(),
        is_coloured: is_terminal_with_colours(),
        with_timestamps: options.timestamps,
        names,
    };
    let ask = Ask::Logs { services, tail: options.tail, follow: options.follow };
    let patience = if options.follow { None } else { Some(PATIENCE) };
    output::write(|out| {
        channel.each(ask, patience, |answer| {
            let Answer::Log(log) = &answer else { return Ok(()) };
            match options.json {
                true => json_line(out, &answer)?,
                false => write_log(out, log, &style)?,
            }
            if options.follow { out.flush().doing(|| "write to stdout") } else { Ok(()) }
        })
    })
}

fn is_terminal_with_colours() -> bool {
    terminal::is_read()
        && ColorChoice::global() != ColorChoice::Never
        && std::env::var_os("NO_COLOR").is_none()
}

fn write_log(out: &mut impl Write, log: &Log, style: &Style) -> Result<()> {
    if log.dropped > 0 {
        let lines = if log.dropped == 1 { "line" } else { "lines" };
        say(format_args!(
            "`{}`: {} {lines} before the next one are not kept any more",
            log.service, log.dropped
        ));
    }
    writeln!(out, "{}", line(log, style)).doing(|| "write to stdout")
}

/// A line of a log, after its service's name and its time where those are wanted.
fn line(log: &Log, style: &Style) -> String {
    let mut line = String::new();
    if style.is_named {
        let width = style.names.iter().map(|name| name.as_str().len()).max().unwrap_or(0);
        let name = format!("{:>width$}", log.service.as_str());
        let place = style.names.iter().position(|name| *name == log.service).unwrap_or(0);
        line += &match style.is_coloured {
            true => format!("\u{1b}[{}m{name}\u{1b}[0m | ", COLOURS[place % COLOURS.len()]),
            false => format!("{name} | "),
        };
    }
    if style.with_timestamps {
        line += &time::utc(log.now.unix_ms, true);
        line.push(' ');
    }
    line + &plain(&log.text)
}

/// Prints what has happened, and what happens if that is asked for.
pub fn events(channel: &mut Channel, follow: bool, is_json: bool) -> Result<()> {
    let mut next = 1;
    output::write(|out| {
        let patience = if follow { None } else { Some(PATIENCE) };
        channel.each(Ask::Events { since: 0, follow }, patience, |answer| {
            let Answer::Event(event) = &answer else { return Ok(()) };
            if event.sequence > next {
                say(format_args!(
                    "{} events before the next one are not kept any more",
                    event.sequence - next
                ));
            }
            next = event.sequence + 1;
            match is_json {
                true => json_line(out, &answer)?,
                false => writeln!(out, "{}", sentence(event)).doing(|| "write to stdout")?,
            }
            if follow { out.flush().doing(|| "write to stdout") } else { Ok(()) }
        })
    })
}

/// An event as a sentence, with its time.
fn sentence(event: &Event) -> String {
    let who = match &event.service {
        Some(service) => format!("`{service}`"),
        None => "the machine".to_owned(),
    };
    format!("{} {who} {}", time::utc(event.now.unix_ms, true), plain(&event.text))
}

#[cfg(test)]
mod tests {
    use manifest::control::What;

    use super::super::fake::{at, name};
    use super::*;

    fn log() -> Log {
        Log { service: name("db"), now: at(1_250), dropped: 0, text: "ready\u{1b}c".to_owned() }
    }

    fn style() -> Style {
        let names = ["migrate", "db"].map(name).to_vec();
        Style { names, is_named: true, is_coloured: false, with_timestamps: false }
    }

    #[test]
    fn a_line_has_its_services_name_and_time_where_they_are_wanted() {
        assert_eq!(line(&log(), &style()), "     db | ready\\u{1b}c");
        let bare = Style { is_named: false, with_timestamps: true, ..style() };
        assert_eq!(line(&log(), &bare), "2026-11-28T12:00:01.250Z ready\\u{1b}c");
        let coloured = Style { is_coloured: true, ..style() };
        assert_eq!(line(&log(), &coloured), "\u{1b}[33m     db\u{1b}[0m | ready\\u{1b}c");
    }

    #[test]
    fn an_event_is_a_sentence() {
        let event = |service: Option<&str>, text: &str| {
            let service = service.map(name);
            sentence(&Event { sequence: 3, now: at(0), service, what: What::Note, text: text.to_owned() })
        };
        assert_eq!(event(Some("db"), "ended with code 3"), "2026-11-28T12:00:00.000Z `db` ended with code 3");
        assert_eq!(event(None, "is ready"), "2026-11-28T12:00:00.000Z the machine is ready");
    }
}
