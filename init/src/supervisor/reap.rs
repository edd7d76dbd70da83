//! The one place that reaps: services' first processes, and whatever else has become a child of PID 1.

use nix::unistd::Pid;
use rustix::process::{WaitOptions, wait};

use supervision::Outcome;

/// The next child that has ended, if there is one, and how. Called until there is none, because signals of the same
/// number that come together are one.
pub fn next() -> Option<(Pid, Outcome)> {
    loop {
        // rustix, because nix's WaitStatus has no room for a real-time signal.
        let (pid, status) = match wait(WaitOptions::NOHANG) {
            Ok(Some(child)) => child,
            Err(rustix::io::Errno::INTR) => continue,
            // ECHILD: no children at all.
            Ok(None) | Err(_) => return None,
        };
        let outcome = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Outcome::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
            (None, Some(signal)) => Outcome::Signal(signal),
            // Stopped or continued: not asked for, and no end.
            (None, None) => continue,
        };
        return Some((Pid::from_raw(pid.as_raw_nonzero().get()), outcome));
    }
}
