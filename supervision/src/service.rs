//! One service: where it stands.

use std::rc::Rc;
use std::time::Duration;

use manifest::{Kind, OnFailure, Probe, ReadyBy};

use crate::conditions::{Conditions, Wait};
use crate::event::{Outcome, Pid, Question};
use crate::rules::Rules;

/// How long the kernel may take to end what was killed.
pub const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// From one question about readiness to the next.
pub const READINESS_INTERVAL: Duration = Duration::from_millis(100);
/// How long such a question may take.
pub const READINESS_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// It starts when everything that it depends on has come far enough.
    Waiting,
    /// It waits for nothing but what it wants of the machine.
    Awaiting {
        /// Since then.
        since: Duration,
        /// Not for all of it any longer than until then.
        until: Option<Duration>,
    },
    /// To be started at once; the answer is outstanding.
    Starting,
    /// Its first process lives.
    Running(Life),
    /// It ended, and starts again.
    Backoff {
        /// Then.
        until: Duration,
    },
    /// The machine ends, and this one's turn has not come.
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
        /// What follows its end.
        next: Next,
    },
    /// Killed, but not yet reaped.
    Killed {
        /// The first process.
        pid: Pid,
        /// No longer waited for then. None: it was told that it lingers, and is waited for until the machine ends.
        give_up_at: Option<Duration>,
        /// What follows its end.
        next: Next,
    },
    /// Somebody has stopped it.
    Held,
    /// It ended for good.
    Ended(Outcome),
    /// It is not started, because something that it depends on has failed.
    Skipped,
}

/// What follows the end of a service that was asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It starts again at once.
    Again,
    /// It has failed, in this way; the restart policy decides.
    Fail(Outcome),
    /// It waits for somebody to start it.
    Hold,
    /// Nothing: the machine ends.
    End,
}

/// A run of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// The first process.
    pub pid: Pid,
    /// When it was cloned.
    pub since: Duration,
    /// How far it has come.
    pub stage: Stage,
    /// Whether it is healthy, once that is known.
    pub healthy: Option<bool>,
    /// Failed checks in a row.
    pub failed_checks: u32,
    /// Ready until then, or it has failed.
    pub ready_by: Option<Duration>,
    /// A sign of life until then, or it has failed.
    pub alive_by: Option<Duration>,
    /// It has to have ended until then.
    pub end_by: Option<Duration>,
    /// What it is asked.
    pub asking: Asking,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The child prepares its container.
    Cloned,
    /// Its program runs.
    Executed,
    /// It is ready.
    Ready,
}

/// When it is asked whether it is ready or healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// Not.
    Never,
    /// Then.
    At(Duration),
    /// Now, and the answer has to be there until then.
    Until(Duration),
}

impl Run {
    /// The first process, while there is one.
    pub fn pid(&self) -> Option<Pid> {
        match self {
            Self::Running(Life { pid, .. })
            | Self::Leaving { pid, .. }
            | Self::Stopping { pid, .. }
            | Self::Killed { pid, .. } => Some(*pid),
            Self::Waiting
            | Self::Awaiting { .. }
            | Self::Starting
            | Self::Backoff { .. }
            | Self::Held
            | Self::Ended(_)
            | Self::Skipped => None,
        }
    }

    /// Whether it has a process, or is about to have one.
    pub fn is_alive(&self) -> bool {
        self.pid().is_some() || *self == Self::Starting
    }

    /// Whether nothing but an order starts it again.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Ended(_) | Self::Skipped)
    }

    /// When something must happen even if nothing else does.
    pub fn deadline(&self) -> Option<Duration> {
        match self {
            Self::Backoff { until } => Some(*until),
            Self::Awaiting { until, .. } => *until,
            Self::Running(life) => {
                let asking = match life.asking {
                    Asking::Never => None,
                    Asking::At(at) | Asking::Until(at) => Some(at),
                };
                [life.ready_by, life.alive_by, life.end_by, asking].into_iter().flatten().min()
            }
            Self::Leaving { signal_at, kill_at, .. } => Some(*signal_at.min(kill_at)),
            Self::Stopping { kill_at, .. } => Some(*kill_at),
            Self::Killed { give_up_at, .. } => *give_up_at,
            Self::Waiting | Self::Starting | Self::Held | Self::Ended(_) | Self::Skipped => None,
        }
    }
}

impl Life {
    /// A run that begins `now`.
    pub(crate) fn new(pid: Pid, rules: &Rules, now: Duration) -> Self {
        let within = |limit: Option<Duration>| limit.map(|limit| now + limit);
        let ready_within = if rules.ready == ReadyBy::Started { None } else { rules.ready_within };
        let end_within = match rules.kind {
            Kind::Shutdown { timeout_ms } => Some(Duration::from_millis(timeout_ms)),
            Kind::Service | Kind::Oneshot { .. } => None,
        };
        Self {
            pid,
            since: now,
            stage: Stage::Cloned,
            healthy: None,
            failed_checks: 0,
            ready_by: within(ready_within),
            alive_by: None,
            end_by: within(end_within),
            asking: Asking::Never,
        }
    }

    /// What it is asked at this stage.
    pub(crate) fn question(&self, rules: &Rules) -> Question {
        match rules.ready {
            ReadyBy::Probe(_) if self.stage < Stage::Ready => Question::Readiness,
            _ => Question::Health,
        }
    }

    /// When the next question about its health is due, if its health is asked for.
    pub(crate) fn next_check(&self, rules: &Rules, now: Duration) -> Asking {
        let Some(health) = &rules.health else { return Asking::Never };
        let is_starting = self.healthy.is_none()
            && (self.stage < Stage::Ready || now.saturating_sub(self.since) < ms(health.start_period_ms));
        let interval =
            if is_starting { health.start_interval_ms.min(health.interval_ms) } else { health.interval_ms };
        Asking::At(now + ms(interval))
    }
}

/// A service with its history, as far as that decides anything or is worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What it is.
    pub rules: Rc<Rules>,
    /// Where it stands.
    pub run: Run,
    /// How often it was started.
    pub starts: u32,
    /// How its last run ended.
    pub last: Option<Outcome>,
    /// Ends in a row without a healthy run between them.
    pub(crate) failures: u32,
    /// When the last runs ended, as many as it takes to give up.
    pub(crate) ends: Vec<Duration>,
    /// Whether it has come as far as the machine's readiness asks.
    pub(crate) settled: bool,
    /// Whether its program has ever run.
    pub(crate) was_executed: bool,
    /// What it waits for of the machine.
    pub(crate) waits: Box<[Wait]>,
}

impl Service {
    /// One that was never started. What it waits for of the machine becomes one of `conditions`.
    pub(crate) fn new(rules: Rc<Rules>, conditions: &mut Conditions) -> Self {
        let run = if matches!(rules.kind, Kind::Shutdown { .. }) { Run::Held } else { Run::Waiting };
        let settled = run == Run::Held;
        let ends = Vec::with_capacity(rules.give_up().map_or(0, |limit| limit.after as usize));
        let waits = conditions.waits(&rules);
        Self { rules, run, starts: 0, last: None, failures: 0, ends, settled, was_executed: false, waits }
    }

    /// Whether it runs in the machine's last moments only.
    pub fn is_of_shutdown(&self) -> bool {
        matches!(self.rules.kind, Kind::Shutdown { .. })
    }

    /// Whether its end, with this outcome, is the end of the boot.
    pub(crate) fn aborts_boot(&self, outcome: Outcome) -> bool {
        outcome.failed() && self.rules.kind == Kind::Oneshot { on_failure: OnFailure::AbortBoot }
    }

    /// Notes an end, and says whether it was one too many.
    pub(crate) fn has_ended_too_often(&mut self, now: Duration) -> bool {
        let Some(limit) = self.rules.give_up() else { return false };
        let within = ms(limit.within_ms);
        self.ends.retain(|&end| now.saturating_sub(end) < within);
        self.ends.push(now);
        self.ends.len() >= limit.after as usize
    }

    /// How long a question that is asked now may take.
    pub(crate) fn patience(&self, question: Question) -> Duration {
        match (question, &self.rules.health) {
            (Question::Health, Some(health)) => ms(health.timeout_ms),
            _ => READINESS_TIMEOUT,
        }
    }

    /// What is asked.
    pub fn probe(&self, question: Question) -> Option<&Probe> {
        match question {
            Question::Readiness => match &self.rules.ready {
                ReadyBy::Probe(probe) => Some(probe),
                _ => None,
            },
            Question::Health => self.rules.health.as_ref().map(|health| &health.probe),
        }
    }
}

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
