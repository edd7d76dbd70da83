//! The time of day as it is written: `2026-11-28T08:44:41.123456Z`, as RFC 3339 has it.

use std::fmt;
use std::time::Duration;

/// A time since 1970, by what the machine takes for the time.
pub struct Timestamp(pub Duration);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let micros = self.0.subsec_micros();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

/// Year, month and day, so many days after 1970-01-01.
///
/// Years are counted from March on, so that a leap day is the last one of its year: then the days before a month are
/// the same in all of them, 30.6 for each on average.
fn date(days: u64) -> (u64, u64, u64) {
    /// From 0000-03-01 to 1970-01-01.
    const BEFORE_1970: u64 = 719_468;
    const IN_400_YEARS: u64 = 146_097;
    let days = days + BEFORE_1970;
    let (cycle, of_cycle) = (days / IN_400_YEARS, days % IN_400_YEARS);
    let leap_days = of_cycle / 1460 - of_cycle / 36_524 + of_cycle / (IN_400_YEARS - 1);
    let year = (of_cycle - leap_days) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    // January and February are the last two months.
    let month = if month < 10 { month + 3 } else { month - 9 };
    (cycle * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_everybody_writes_it() {
        for (seconds, micros, written) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, 999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400, 7, "2000-02-29T00:00:00.000007Z"),
            (951_868_800, 0, "2000-03-01T00:00:00.000000Z"),
            (1_764_319_481, 123_456, "2025-11-28T08:44:41.123456Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000Z"),
            (253_402_300_799, 0, "9999-12-31T23:59:59.000000Z"),
        ] {
            let time = Duration::from_secs(seconds) + Duration::from_micros(micros);
            assert_eq!(Timestamp(time).to_string(), written);
        }
    }

    #[test]
    fn each_day_follows_the_one_before() {
        let mut before = date(0);
        for days in 1..200_000 {
            let now = date(days);
            let is_next = now == (before.0, before.1, before.2 + 1);
            let is_first = now.2 == 1 && before.2 >= 28;
            assert!(is_next || is_first, "{before:?} {now:?}");
            before = now;
        }
    }
}
