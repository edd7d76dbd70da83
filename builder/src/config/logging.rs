//! What becomes of what services and init say.

use manifest::{ConsoleFormat, Log, Logging};

use super::check::Check;
use super::problem::suggestion;
use super::raw::{At, Fields};
use super::value;

/// As much as an hour of a service that says something every ten seconds.
const DEFAULT_SIZE: u64 = 64 << 10;

/// Less would not hold one long line, and PID 1's memory is the machine's.
const SIZES: std::ops::RangeInclusive<u64> = 16 << 10..=64 << 20;

/// How lines can appear on the console.
const FORMATS: &[(&str, ConsoleFormat)] =
    &[("text", ConsoleFormat::Text), ("json", ConsoleFormat::Json), ("none", ConsoleFormat::None)];

/// `[log]`.
#[derive(Debug, Default)]
pub struct RawLog {
    console: Option<At<String>>,
}

impl RawLog {
    pub fn read(fields: &mut Fields<'_>) -> Self {
        Self { console: fields.take("console") }
    }
}

/// What is meant for the whole machine.
pub(super) fn check_machine(raw: RawLog, check: &mut Check<'_>) -> Log {
    let console = raw.console.and_then(|written| {
        let found = FORMATS.iter().find(|(name, _)| *name == written.value);
        if found.is_none() {
            let known = FORMATS.iter().map(|(name, _)| *name);
            let what = format!("`{}` is no way to show lines: there are text, json and none", written.value);
            check.at(&written.span, "log.console", what + &suggestion(&written.value, known));
        }
        found.map(|(_, format)| *format)
    });
    Log { console: console.unwrap_or(ConsoleFormat::Text) }
}

/// `logging = { … }`.
#[derive(Debug, Default)]
pub struct RawLogging {
    size: Option<At<String>>,
}

impl RawLogging {
    pub fn read(fields: &mut Fields<'_>) -> Self {
        Self { size: fields.take("size") }
    }
}

/// What is meant for a service; `path` is that of the service's table.
pub(super) fn check(raw: RawLogging, path: &str, check: &mut Check<'_>) -> Logging {
    let size = raw.size.and_then(|written| {
        let size = value::size(&written.value).and_then(|size| {
            let fits = SIZES.contains(&size).then_some(size);
            fits.ok_or_else(|| "a log in memory has 16KiB to 64MiB".to_owned())
        });
        check.value(&written.span, format!("{path}.logging.size"), size)
    });
    Logging { size: size.unwrap_or(DEFAULT_SIZE) }
}
