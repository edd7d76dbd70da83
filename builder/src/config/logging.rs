//! What becomes of what a service writes.

use manifest::Logging;

use super::check::Check;
use super::raw::{At, Fields};
use super::value;

/// As much as an hour of a service that says something every ten seconds.
const DEFAULT_SIZE: u64 = 64 << 10;

/// Less would not hold one long line, and PID 1's memory is the machine's.
const SIZES: std::ops::RangeInclusive<u64> = 16 << 10..=64 << 20;

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

/// What is meant; `path` is that of the service's table.
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
