//! The watchdog: a timer of the machine, or of its kernel, that reboots it when PID 1 has not been heard of for too
//! long. It is armed before the first thing that can hang, and from then on for good.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::Duration;

use nix::libc::c_int;

use crate::error::{Error, Result};
use crate::log::Console;
use crate::{clock, sys};

/// The one whose driver was loaded first: the hardware's, where there is one.
const DEVICE: &str = "/dev/watchdog0";

/// Every driver allows that much without being told, and some cannot be told.
const LEAST: Duration = Duration::from_secs(10);

/// An armed watchdog. It is never closed: when PID 1 ends, the machine does.
pub struct Watchdog {
    device: File,
    rhythm: Rhythm,
}

/// When PID 1 has to show itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rhythm {
    timeout: Duration,
    fed: Duration,
}

impl Rhythm {
    /// PID 1 wakes for this alone, where nothing else wakes it: twice in a time-out, so that a machine that is slow
    /// once is not reset.
    fn deadline(self) -> Duration {
        self.fed + self.timeout / 2
    }

    /// Whoever is awake anyway feeds early, and need not wake so soon.
    fn is_due(self, now: Duration) -> bool {
        now >= self.fed + self.timeout / 4
    }
}

impl Watchdog {
    /// Arms the first one that there is. Where there is none, or it does not do as it is told, that is said: the
    /// machine runs all the same.
    pub fn arm(wanted: manifest::Watchdog, console: &mut Console) -> Option<Self> {
        let manifest::Watchdog::Armed { timeout } = wanted else { return None };
        let armed = Self::open(timeout);
        match armed {
            Ok((watchdog, None)) => Some(watchdog),
            Ok((watchdog, Some(problem))) => {
                console.say(format_args!("{problem}"));
                Some(watchdog)
            }
            Err(problem) => {
                console.say(format_args!("{problem}: a machine whose PID 1 is stuck stays as it is"));
                None
            }
        }
    }

    /// Opening it is what starts it.
    fn open(seconds: u16) -> Result<(Self, Option<Error>)> {
        let device = OpenOptions::new()
            .write(true)
            .open(DEVICE)
            .map_err(|error| Error::io("arm the watchdog", DEVICE, &error))?;
        let (timeout, problem) = match sys::set_watchdog_timeout(&device, c_int::from(seconds)) {
            // A driver rounds to what its timer can count.
            Ok(set) => (Duration::from_secs(u64::try_from(set).unwrap_or_default()).max(LEAST), None),
            Err(errno) => (LEAST, Some(Error::new("set the time-out of", DEVICE, errno))),
        };
        let rhythm = Rhythm { timeout, fed: clock::now() };
        Ok((Self { device, rhythm }, problem))
    }

    /// When it has to be fed at the latest.
    pub fn deadline(&self) -> Duration {
        self.rhythm.deadline()
    }

    /// Feeds it, unless it was fed a moment ago.
    pub fn attend(&mut self, now: Duration, console: &mut Console) {
        if self.rhythm.is_due(now) {
            self.feed(now, console);
        }
    }

    /// Feeds it: what comes next has the whole time-out.
    pub fn feed(&mut self, now: Duration, console: &mut Console) {
        // Counted as fed also when it failed: without, the loop would never sleep again.
        self.rhythm.fed = now;
        // Anything but a `V`, which would let it be closed.
        if let Err(error) = self.device.write_all(b"1") {
            console.say(format_args!("{}", Error::io("feed", DEVICE, &error)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_idle_machine_wakes_twice_in_a_timeout_and_a_busy_one_never_for_this() {
        let mut rhythm = Rhythm { timeout: s(60), fed: s(100) };
        assert_eq!(rhythm.deadline(), s(130));
        assert!(!rhythm.is_due(s(114)) && rhythm.is_due(s(115)) && rhythm.is_due(rhythm.deadline()));
        // Something happens every 20 s.
        for now in (120..1000).step_by(20).map(s) {
            assert!(rhythm.deadline() >= now, "it would have woken before {now:?}");
            assert!(rhythm.is_due(now));
            rhythm.fed = now;
        }
    }
}
