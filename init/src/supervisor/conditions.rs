//! What services wait for of the machine: found out while somebody waits for it, and only then.
//!
//! A change of the network wakes the loop anyway. The kernel tells nobody that it takes the clock for synchronised, nor
//! that something has come at a path which may not even have a folder yet, or stands for a port whose name comes after
//! its node: these are looked at again and again, ever more seldom.

use std::time::Duration;

use manifest::Awaited;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use supervision::{Event, State};

use crate::net::Network;
use crate::{ports, sys};

/// The first pause between two looks, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// By which part a wait may take longer than it has to, until the longest pause is reached.
const DELAY: u32 = 8;

/// An error of the wall clock that is not smaller is the kernel's word for one that nobody sets (`NTP_PHASE_LIMIT` of
/// linux/timex.h). The flag STA_UNSYNC says less: chrony sets it to keep the kernel's hands off the hardware's clock.
const UNKNOWN_MICROSECONDS: i64 = 16_000_000;

/// When to look.
#[derive(Debug, Default)]
pub struct Conditions {
    next: Option<Duration>,
    /// What the network was at the last look.
    network_was_up: bool,
}

impl Conditions {
    /// When [`look`](Self::look) is due even if nothing comes.
    pub fn deadline(&self) -> Option<Duration> {
        self.next
    }

    /// Whether it is due now.
    pub fn are_due(&self, state: &State, network: &Network, now: Duration) -> bool {
        let has_time_come = self.next.is_some_and(|next| next <= now);
        let is_in_use = !state.conditions().is_empty();
        is_in_use && (has_time_come || network.is_up() != self.network_was_up || state.is_uncertain())
    }

    /// Looks at all that is waited for, and tells what there is to see: first what does not hold, so that nobody starts by
    /// what was seen before.
    pub fn look(&mut self, state: &State, network: &Network, now: Duration) -> Vec<Event> {
        self.next = None;
        self.network_was_up = network.is_up();
        let mut events = Vec::new();
        for condition in state.awaited() {
            let Some(awaited) = state.conditions().get(condition) else { continue };
            let holds = match awaited {
                Awaited::Network => network.is_up(),
                Awaited::Clock => clock_is_set(),
                Awaited::Path(path) => exists(path),
            };
            if !holds && *awaited != Awaited::Network {
                let waited = state.awaits_since().map_or(Duration::ZERO, |since| now.saturating_sub(since));
                self.next = Some(now + pause(waited));
            }
            events.push(Event::Condition { condition, holds });
        }
        events.sort_by_key(|event| matches!(event, Event::Condition { holds: true, .. }));
        events
    }
}

/// From a look that was in vain to the next, after so long a time of waiting.
fn pause(waited: Duration) -> Duration {
    (waited / DELAY).clamp(PAUSES.0, PAUSES.1)
}

fn clock_is_set() -> bool {
    sys::clock_error_microseconds().is_ok_and(|error| error < UNKNOWN_MICROSECONDS)
}

/// Whether there is anything at `path`. No link leads anywhere: a service may have made it, in a volume. What is there is
/// not opened, so that neither a device nor a pipe takes notice.
fn exists(path: &str) -> bool {
    let Some(path) = ports::resolve(path) else { return false };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_longer_is_looked_at_more_seldom() {
        let ms = Duration::from_millis;
        for (waited, expected) in
            [(0, 10), (80, 10), (160, 20), (4000, 500), (8000, 1000), (u64::MAX / 2, 1000)]
        {
            assert_eq!(pause(ms(waited)), ms(expected), "{waited}");
        }
    }

    #[test]
    fn what_is_there_is_there_unless_a_link_leads_to_it() {
        for (path, expected) in [
            ("/dev/null", true),
            ("/proc/1/status", true),
            ("/proc/1/no-such-file", false),
            ("/dev/null/below", false),
            // Links are there, and lead nowhere.
            ("/proc/self", true),
            ("/proc/self/status", false),
            ("/proc/1/../self/status", false),
            ("/dev/virtio-ports/no-such-port", false),
        ] {
            assert_eq!(exists(path), expected, "{path}");
        }
    }

    #[test]
    fn the_kernel_says_how_wrong_the_clock_may_be() {
        let error = sys::clock_error_microseconds().unwrap();
        assert!((0..=UNKNOWN_MICROSECONDS).contains(&error), "{error}");
    }
}
