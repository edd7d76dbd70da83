//! The machine's clocks: the monotonic one, by which init does everything, and the time of day, which it only tells.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The time since the kernel started counting. Zero, should the clock fail, which Linux rules out.
pub fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// The time since 1970, by what the machine takes for the time. It can jump.
pub fn of_day() -> Duration {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from)
}

/// The same as whole nanoseconds, as the report has them.
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
