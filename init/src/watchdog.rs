//! The watchdogs: timers of the machine and of its kernel that reboot it when PID 1 has not been heard of for too long.
//! They are armed before the first thing that can hang, and from then on for good.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::Duration;

use nix::libc::c_int;

use crate::error::Error;
use crate::log::Console;
use crate::{clock, sys};

/// Every driver allows that much without being told, and some cannot be told.
const LEAST: Duration = Duration::from_secs(10);

/// All armed watchdogs. They are never closed: when PID 1 ends, the machine does.
///
/// All, and not only the first, because hardware can be there and do nothing: QEMU before 8.0 has an iTCO that its
/// machine is not wired to, and firmware can do the same.
pub struct Watchdog {
    devices: Vec<File>,
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
    /// Arms all that there are, those of the hardware first. Where there is none, or one does not do as it is told, that
    /// is said: the machine runs all the same.
    pub fn arm(wanted: manifest::Watchdog, console: &mut Console) -> Option<Self> {
        let manifest::Watchdog::Armed { timeout: seconds } = wanted else { return None };
        let mut devices = Vec::new();
        let mut timeout = Duration::from_secs(u64::from(seconds)).max(LEAST);
        loop {
            let path = format!("/dev/watchdog{}", devices.len());
            // Opening it is what starts it.
            let device = match OpenOptions::new().write(true).open(&path) {
                Ok(device) => device,
                Err(error) if devices.is_empty() => {
                    let problem = Error::io("arm the watchdog", path, &error);
                    console.say(format_args!("{problem}: a machine whose PID 1 is stuck stays as it is"));
                    return None;
                }
                // There are no more.
                Err(_) => break,
            };
            // The first acts first, and the others where it does not.
            let own = if devices.is_empty() { c_int::from(seconds) } else { c_int::from(seconds) * 3 / 2 };
            let set = sys::set_watchdog_timeout(&device, own).unwrap_or_else(|errno| {
                console.say(format_args!("{}", Error::new("set the time-out of", path, errno)));
                0
            });
            // A driver rounds to what its timer can count.
            timeout = timeout.min(Duration::from_secs(u64::try_from(set).unwrap_or_default()).max(LEAST));
            devices.push(device);
        }
        Some(Self { devices, rhythm: Rhythm { timeout, fed: clock::now() } })
    }

    /// When they have to be fed at the latest.
    pub fn deadline(&self) -> Duration {
        self.rhythm.deadline()
    }

    /// Feeds them, unless they were fed a moment ago.
    pub fn attend(&mut self, now: Duration, console: &mut Console) {
        if self.rhythm.is_due(now) {
            self.feed(now, console);
        }
    }

    /// Feeds them: what comes next has the whole time-out.
    pub fn feed(&mut self, now: Duration, console: &mut Console) {
        // Counted as fed also when it failed: without, the loop would never sleep again.
        self.rhythm.fed = now;
        // Anything but a `V`, which would let it be closed.
        for (index, device) in self.devices.iter_mut().enumerate() {
            if let Err(error) = device.write_all(b"1") {
                console.say(format_args!("{}", Error::io("feed", format!("/dev/watchdog{index}"), &error)));
            }
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
