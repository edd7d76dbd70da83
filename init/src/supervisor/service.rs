//! One service: where it stands, and the rules of its restarts.

use std::time::Duration;

use manifest::{Kind, OnFailure, Restart};
use nix::unistd::Pid;

use super::event::Outcome;

/// The first pause before a restart.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
pub const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// A run of this length was a healthy one: the next pause is the first again.
pub const HEALTHY: Duration = Duration::from_secs(60);
/// How long the kernel may take to end what was killed.
pub const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// What the boot manifest says about a service, as far as supervision goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Service or oneshot.
    pub kind: Kind,
    /// What follows its end.
    pub restart: Restart,
    /// From the stop signal, or from the beginning of the machine's end, to the kill.
    pub grace: Duration,
}

/// Where a service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Its turn has not come, or will not come any more.
    Idle,
    /// To be started at once; the answer is outstanding.
    Starting,
    /// Its first process lives.
    Running {
        /// The first process.
        pid: Pid,
        /// When it was cloned.
        since: Duration,
    },
    /// It ended, and starts again.
    Backoff {
        /// Then.
        until: Duration,
    },
    /// The machine ends, and this one's turn is near.
    Leaving {
        /// The first process.
        pid: Pid,
        /// Signalled at the latest then.
        signal_at: Duration,
        /// Killed then.
        kill_at: Duration,
    },
    /// It has its stop signal.
    Stopping {
        /// The first process.
        pid: Pid,
        /// Killed then.
        kill_at: Duration,
    },
    /// Killed, but not yet reaped.
    Killed {
        /// The first process.
        pid: Pid,
        /// No longer waited for then.
        give_up_at: Duration,
    },
    /// It ended for good.
    Ended(Outcome),
}

impl Run {
    /// The first process, while there is one.
    pub fn pid(&self) -> Option<Pid> {
        match self {
            Self::Running { pid, .. }
            | Self::Leaving { pid, .. }
            | Self::Stopping { pid, .. }
            | Self::Killed { pid, .. } => Some(*pid),
            Self::Idle | Self::Starting | Self::Backoff { .. } | Self::Ended(_) => None,
        }
    }

    /// Whether it has a process, or is about to have one.
    pub fn is_alive(&self) -> bool {
        self.pid().is_some() || *self == Self::Starting
    }

    /// When something must happen even if nothing else does.
    pub fn deadline(&self) -> Option<Duration> {
        match self {
            Self::Backoff { until } => Some(*until),
            Self::Leaving { signal_at, kill_at, .. } => Some(*signal_at.min(kill_at)),
            Self::Stopping { kill_at, .. } => Some(*kill_at),
            Self::Killed { give_up_at, .. } => Some(*give_up_at),
            Self::Idle | Self::Starting | Self::Running { .. } | Self::Ended(_) => None,
        }
    }
}

/// A service with its history, as far as that decides anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What it is.
    pub rules: Rules,
    /// Where it stands.
    pub run: Run,
    /// Ends in a row without a healthy run between them.
    pub failures: u32,
    /// Whether its first start has come to something, good or bad.
    pub settled: bool,
}

impl Service {
    /// One that was never started.
    pub fn new(rules: Rules) -> Self {
        Self { rules, run: Run::Idle, failures: 0, settled: false }
    }

    /// Applies the restart policy to an end. Returns the pause before the next start, if there is one.
    pub fn restart_after(&mut self, outcome: Outcome, now: Duration) -> Option<Duration> {
        if let Run::Running { since, .. } = self.run
            && now.saturating_sub(since) >= HEALTHY
        {
            self.failures = 0;
        }
        let again = match (self.rules.restart, self.rules.kind) {
            (Restart::Never, _) => false,
            (Restart::Always, Kind::Service) => true,
            // A oneshot that has done its work has done it.
            (Restart::Always, Kind::Oneshot { .. }) | (Restart::OnFailure, _) => outcome.failed(),
        };
        if !again {
            self.run = Run::Ended(outcome);
            return None;
        }
        let pause = backoff(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.run = Run::Backoff { until: now + pause };
        Some(pause)
    }

    /// Whether its end, with this outcome, is the end of the boot.
    pub fn aborts_boot(&self, outcome: Outcome) -> bool {
        outcome.failed() && self.rules.kind == Kind::Oneshot { on_failure: OnFailure::AbortBoot }
    }

    /// Whether it is a oneshot that the boot waits for.
    pub fn holds_boot(&self) -> bool {
        matches!(self.rules.kind, Kind::Oneshot { .. }) && !matches!(self.run, Run::Ended(_))
    }
}

/// The pause before a restart after so many earlier ones in a row.
pub fn backoff(failures: u32) -> Duration {
    let factor = 1u32.checked_shl(failures).unwrap_or(u32::MAX);
    BACKOFF_FIRST.saturating_mul(factor).min(BACKOFF_LAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn service(restart: Restart) -> Service {
        Service::new(Rules { kind: Kind::Service, restart, grace: SECOND })
    }

    #[test]
    fn the_backoff_doubles_from_a_tenth_of_a_second_to_half_a_minute() {
        let pauses: Vec<u128> = (0..11).map(|failures| backoff(failures).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(backoff(u32::MAX), BACKOFF_LAST);
    }

    #[test]
    fn the_policy_decides_by_the_outcome() {
        let pid = Pid::from_raw(2);
        for (restart, outcome, again) in [
            (Restart::Never, Outcome::Code(1), false),
            (Restart::OnFailure, Outcome::Code(0), false),
            (Restart::OnFailure, Outcome::Code(1), true),
            (Restart::OnFailure, Outcome::Signal(9), true),
            (Restart::OnFailure, Outcome::NotStarted, true),
            (Restart::Always, Outcome::Code(0), true),
        ] {
            let mut service = service(restart);
            service.run = Run::Running { pid, since: SECOND };
            assert_eq!(
                service.restart_after(outcome, SECOND * 2).is_some(),
                again,
                "{restart:?} {outcome:?}"
            );
        }
    }

    #[test]
    fn a_healthy_minute_forgets_the_failures_before_it() {
        let mut service = service(Restart::Always);
        service.failures = 7;
        service.run = Run::Running { pid: Pid::from_raw(2), since: SECOND };
        assert_eq!(service.restart_after(Outcome::Code(1), SECOND + HEALTHY), Some(BACKOFF_FIRST));
        service.run = Run::Running { pid: Pid::from_raw(2), since: SECOND };
        assert_eq!(service.restart_after(Outcome::Code(1), HEALTHY), Some(BACKOFF_FIRST * 2));
    }
}
