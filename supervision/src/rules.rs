//! What the boot manifest says about a service, as far as supervision goes.

use std::time::Duration;

use manifest::{Dependency, GiveUp, Health, Kind, ReadyBy, Restart, RestartPolicy, Wait};

use crate::event::Outcome;

/// The rules of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// What it is.
    pub kind: Kind,
    /// What it waits for.
    pub depends_on: Box<[Dependency]>,
    /// What it waits for of the machine.
    pub wait_for: Box<[Wait]>,
    /// What says that it is ready.
    pub ready: ReadyBy,
    /// From its start until it has to be. None: as long as it takes.
    pub ready_within: Option<Duration>,
    /// How its health is found out, if it is. Most say nothing of it, and it is large.
    pub health: Option<Box<Health>>,
    /// The longest time between two of its signs of life, if it gives any.
    pub watchdog: Option<Duration>,
    /// What follows its end.
    pub restart: Restart,
    /// From the stop signal to the kill.
    pub grace: Duration,
}

impl Rules {
    /// Those of a service of the boot manifest.
    pub fn of(service: &manifest::Service) -> Self {
        Self {
            kind: service.kind,
            depends_on: service.depends_on.as_slice().into(),
            wait_for: service.wait_for.as_slice().into(),
            ready: service.ready.by.clone(),
            ready_within: some(service.ready.timeout_ms),
            health: service.health.clone().map(Box::new),
            watchdog: some(service.watchdog_ms),
            restart: service.restart.clone(),
            grace: Duration::from_millis(service.stop.grace_ms),
        }
    }

    /// Whether it is started again after such an end.
    pub(crate) fn starts_again_after(&self, outcome: Outcome) -> bool {
        if matches!(outcome, Outcome::Code(code) if self.restart.prevented_by.contains(&code)) {
            return false;
        }
        match (self.restart.policy, self.kind) {
            (RestartPolicy::Never, _) => false,
            (RestartPolicy::Always, Kind::Service) => true,
            // What runs to its end once has done its work when it ends well.
            (RestartPolicy::Always, _) | (RestartPolicy::OnFailure, _) => outcome.failed(),
        }
    }

    /// The pause before a restart after so many others in a row, before chance has its part in it.
    pub(crate) fn backoff(&self, failures: u32) -> Duration {
        let backoff = self.restart.backoff;
        let factor = u64::from(backoff.factor).saturating_pow(failures);
        Duration::from_millis(backoff.first_ms.saturating_mul(factor).min(backoff.cap_ms))
    }

    /// A run of this length was a healthy one.
    pub(crate) fn reset(&self) -> Duration {
        Duration::from_millis(self.restart.backoff.reset_ms)
    }

    pub(crate) fn give_up(&self) -> Option<GiveUp> {
        self.restart.give_up
    }
}

/// 0 stands for none.
fn some(milliseconds: u64) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}
