//! What happens to the machine, and what it does about it: the vocabulary of `step`.

use std::fmt;
use std::time::Duration;

use nix::unistd::Pid;

use crate::shutdown::Power;

/// A service, by its place in the boot manifest.
pub type Index = usize;

/// How a container's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(i32),
    /// It never was: the parent could not even clone.
    NotStarted,
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
            Self::Stuck => 137,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(0) => f.write_str("has ended"),
            Self::Code(code) => write!(f, "ended with code {code}"),
            Self::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(f, "was ended by {signal}"),
                Err(_) => write!(f, "was ended by signal {number}"),
            },
            Self::NotStarted => f.write_str("could not be started"),
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
    /// A child was reaped. It may be no service: an orphan of the machine's own pid namespace.
    Exited {
        /// Which.
        pid: Pid,
        /// How.
        outcome: Outcome,
    },
    /// Somebody wants the machine to end. Only the first time counts.
    Stop {
        /// And then?
        power: Power,
    },
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
    /// Say that it ended.
    TellEnd(Index, Outcome),
    /// Say that it starts again after this time.
    TellRestart(Index, Duration),
    /// Say that its failure is the end of the boot.
    TellAbort(Index),
    /// Say that the machine goes down.
    TellStop(Power),
    /// Report that every oneshot has completed and every service was started.
    Ready,
    /// Nothing runs any more: report this code, and end the machine.
    End(Power, u8),
}
