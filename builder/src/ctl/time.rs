//! Times, as a person reads them.

use std::time::Duration;

/// A duration in its two largest units: `4d 3h`, `12m 5s`, `7s`.
pub fn span(nanoseconds: u64) -> String {
    let seconds = Duration::from_nanos(nanoseconds).as_secs();
    match (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, _, _) => format!("{d}d {h}h"),
    }
}

/// Seconds with milliseconds: `1.234 s`.
pub fn seconds(nanoseconds: u64) -> String {
    format!("{:.3} s", Duration::from_nanos(nanoseconds).as_secs_f64())
}

/// A moment in UTC, by the calendar that is in force: from milliseconds since 1970, which are shown if wanted.
pub fn utc(milliseconds: u64, with_milliseconds: bool) -> String {
    let seconds = milliseconds / 1000;
    let (mut year, mut day) = (1970, seconds / 86400);
    // A time from a machine may be any: the calendar repeats itself every 400 years of 146097 days.
    year += day / 146_097 * 400;
    day %= 146_097;
    while day >= days_of(year) {
        day -= days_of(year);
        year += 1;
    }
    let february = if days_of(year) == 366 { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let fraction = if with_milliseconds { format!(".{:03}", milliseconds % 1000) } else { String::new() };
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z", day + 1)
}

fn days_of(year: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if is_leap { 366 } else { 365 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_what_date_prints() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_855_530, "2026-11-28T08:45:30Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(utc(seconds * 1000, false), text);
        }
        assert_eq!(utc(1_795_855_530_042, true), "2026-11-28T08:45:30.042Z");
        assert!(utc(u64::MAX, true).ends_with('Z'));
    }

    #[test]
    fn a_span_has_its_two_largest_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (725, "12m 5s"), (7_380, "2h 3m"), (356_400, "4d 3h")]
        {
            assert_eq!(span(seconds * 1_000_000_000 + 999_999_999), text);
        }
    }
}
