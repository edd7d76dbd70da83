//! What happens to the machine, and what it does about it: the vocabulary of `step`.

use std::fmt;
use std::time::Duration;

pub use manifest::control::{Order, Power};
use manifest::{Then, signal};

/// A service, by its place in the boot manifest.
pub type Index = usize;

/// A process, by its number. While it is not reaped, nobody else has that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pid(pub i32);

/// How a run of a service ended, and why where the supervisor itself ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(i32),
    /// It never was: the parent could not even clone.
    NotStarted,
    /// It was not ready in time.
    NotReady,
    /// Too many health checks in a row failed.
    Unhealthy,
    /// It did not say that it was alive in time.
    Silent,
    /// It could not be killed, and is left behind.
    Stuck,
}

impl Outcome {
    /// Whether the restart policy `on-failure` applies.
    pub fn failed(self) -> bool {
        self != Self::Code(0)
    }

    /// One number for it all, as a shell has it.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(number) => u8::try_from(number).map_or(u8::MAX, |number| number.saturating_add(128)),
            Self::NotStarted => 126,
            // As timeout(1) has it.
            Self::NotReady | Self::Unhealthy | Self::Silent => 124,
            Self::Stuck => 137,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(0) => f.write_str("has ended"),
            Self::Code(code) => write!(f, "ended with code {code}"),
            Self::Signal(number) => match signal::name(number) {
                Some(name) => write!(f, "was ended by {name}"),
                None => write!(f, "was ended by signal {number}"),
            },
            Self::NotStarted => f.write_str("could not be started"),
            Self::NotReady => f.write_str("was not ready in time"),
            Self::Unhealthy => f.write_str("was unhealthy"),
            Self::Silent => f.write_str("gave no sign of life in time"),
            Self::Stuck => f.write_str("could not be killed"),
        }
    }
}

/// What the supervisor's loop has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The supervision begins, or a deadline has come.
    Tick,
    /// [`Action::Start`] was done.
    Started {
        /// Which.
        service: Index,
        /// Its first process.
        pid: Pid,
    },
    /// [`Action::Start`] could not be done.
    NotStarted {
        /// Which.
        service: Index,
    },
    /// The program of a service's first process runs, or never will.
    Executed {
        /// Which.
        service: Index,
    },
    /// A service says that it is ready.
    Ready {
        /// Which.
        service: Index,
    },
    /// A service says that it is alive.
    Alive {
        /// Which.
        service: Index,
    },
    /// A question that [`Action::Ask`] asked has its answer.
    Answered {
        /// Who was asked.
        service: Index,
        /// Whether the answer was yes.
        passed: bool,
    },
    /// A child was reaped. It may be no service: an orphan of the machine's own pid namespace.
    Exited {
        /// Which.
        pid: Pid,
        /// How.
        outcome: Outcome,
    },
    /// Somebody has looked at what services wait for of the machine: see [`State::awaited`](crate::State::awaited).
    Condition {
        /// Which, by its place in [`State::conditions`](crate::State::conditions).
        condition: Index,
        /// Whether it is so.
        holds: bool,
    },
    /// Somebody wants something of a service.
    Order {
        /// Of which.
        service: Index,
        /// What.
        order: Order,
    },
    /// Somebody wants the machine to end. Only the first time counts.
    Stop {
        /// And then?
        power: Power,
    },
}

/// What a service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Whether it is ready.
    Readiness,
    /// Whether it is healthy.
    Health,
}

/// What the supervisor's loop is to do. Each action can be done at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start it, and answer with [`Event::Started`] or [`Event::NotStarted`].
    Start(Index),
    /// Send its stop signal to this first process.
    Signal(Index, Pid),
    /// Kill all of its processes.
    Kill(Index),
    /// Ask it, and tell by [`Event::Answered`] what it said, unless [`Action::Forget`] comes first.
    Ask(Index, Question),
    /// The answer is of no use any more.
    Forget(Index),
    /// Take note of it, and say it if it is [news](crate::tell::is_news).
    Tell(Index, Fact),
    /// Say that the machine goes down.
    TellStop(Power),
    /// Report that every service has come as far as it should for the first time, or has failed.
    Ready,
    /// Nothing runs any more: report this code, and end the machine.
    End(Power, u8),
}

/// What there is to say of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// Its first process was cloned.
    Started(Pid),
    /// It has its stop signal.
    Stopping,
    /// Somebody wants it not to run, and it did not run anyway.
    Held,
    /// It ended.
    Ended(Outcome),
    /// It starts again after this time.
    Restarts(Duration),
    /// It is ready, because its program runs.
    ReadyAtOnce,
    /// It is ready, in another way, which took so long.
    Ready(Duration),
    /// It is healthy again.
    Healthy,
    /// Its health checks fail.
    Unhealthy,
    /// It was not ready in time, and is stopped.
    Late,
    /// It gave no sign of life in time, and is stopped.
    Silent,
    /// It has not stopped in time, and is killed.
    Killed,
    /// It was killed, and is there all the same.
    Lingers,
    /// It is not started, because this one has failed.
    Skipped(Index),
    /// It waits for this condition of the machine.
    Awaits(Index),
    /// It is not started, because this condition of the machine has not come in time.
    Unmet(Index),
    /// Its failure is the end of the boot.
    AbortsBoot,
    /// It has ended too often.
    GivenUp(Then),
    /// It is stopped, because this one has ended.
    RestartsWith(Index),
}
