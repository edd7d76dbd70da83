//! What has happened: the last events of the whole machine, and of each service how it came up and how it ended.

use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use manifest::Awaited;
use manifest::control::{self, Cause};
use nix::libc;
use supervision::{Fact, Index, Outcome, Power, tell};

use crate::container::Shortage;

/// How many events are kept.
const KEPT: usize = 4096;

/// The last events, each with a number.
#[derive(Debug, Default)]
pub struct History {
    records: VecDeque<Record>,
    /// How many there were before the first one that is kept.
    forgotten: u64,
}

/// One event.
#[derive(Debug, Clone)]
pub struct Record {
    /// When.
    pub time: Duration,
    /// To whom; nobody when it is the machine.
    pub service: Option<Index>,
    /// What.
    pub entry: Entry,
}

/// What has happened.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A service's run has ended.
    Ended(End),
    /// Something else about a service.
    Fact(Fact),
    /// The machine is ready.
    Ready,
    /// The machine goes down.
    Stops(Power),
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct End {
    outcome: Outcome,
    /// What the outcome does not tell. Of most ends it tells all, and there are thousands.
    why: Option<Rc<Why>>,
}

#[derive(Debug)]
enum Why {
    Memory(Shortage),
    /// Its program was never run.
    Start(Box<str>),
}

/// How a service came up: the moments of its first run.
#[derive(Debug, Clone, Default)]
pub struct Story {
    /// When its first process was cloned.
    pub started: Option<Duration>,
    /// When its program ran.
    pub executed: Option<Duration>,
    /// When it was ready.
    pub ready: Option<Duration>,
    /// When that run ended, and how.
    pub ended: Option<(Duration, End)>,
}

impl History {
    /// Keeps an event.
    pub fn note(&mut self, record: Record) {
        if self.records.len() == KEPT {
            self.records.pop_front();
            self.forgotten += 1;
        }
        self.records.push_back(record);
    }

    /// The number of the last event; they count from 1.
    pub fn last(&self) -> u64 {
        self.forgotten + self.records.len() as u64
    }

    /// The event with this number, or the first later one that is kept, with its own.
    pub fn get(&self, number: u64) -> Option<(u64, &Record)> {
        let number = number.max(self.forgotten + 1);
        let place = usize::try_from(number - self.forgotten - 1).ok()?;
        Some((number, self.records.get(place)?))
    }
}

impl Story {
    /// Takes note of what belongs to the first run.
    pub fn note(&mut self, entry: &Entry, now: Duration) {
        if self.ended.is_some() {
            return;
        }
        match entry {
            Entry::Fact(Fact::Started(_)) => self.started = Some(now),
            Entry::Fact(Fact::ReadyAtOnce | Fact::Ready(_)) => self.ready = Some(now),
            Entry::Ended(end) => self.ended = Some((now, end.clone())),
            _ => {}
        }
    }
}

impl End {
    /// An end by itself, by a signal or by the supervisor.
    pub fn new(outcome: Outcome) -> Self {
        Self { outcome, why: None }
    }

    /// One for a lack of memory.
    pub fn of_memory(outcome: Outcome, shortage: Shortage) -> Self {
        Self { outcome, why: Some(Rc::new(Why::Memory(shortage))) }
    }

    /// One before the program ran. `why` goes on after "cannot".
    pub fn of_start(outcome: Outcome, why: Box<str>) -> Self {
        Self { outcome, why: Some(Rc::new(Why::Start(why))) }
    }

    /// As the control channel has it.
    pub fn told(&self) -> control::End {
        let (code, signal) = match self.outcome {
            Outcome::Code(code) => (Some(code), None),
            Outcome::Signal(number) => (None, Some(number)),
            _ => (None, None),
        };
        control::End { cause: self.cause(), code, signal, text: self.to_string() }
    }

    /// Likewise, without why its program was never run.
    pub fn in_short(&self) -> String {
        match self.why.as_deref() {
            Some(Why::Start(_)) => self.outcome.to_string(),
            Some(Why::Memory(_)) | None => self.to_string(),
        }
    }

    fn cause(&self) -> Cause {
        match (self.why.as_deref(), self.outcome) {
            (Some(Why::Start(_)), _) | (_, Outcome::NotStarted) => Cause::Start,
            (Some(Why::Memory(_)), _) => Cause::Memory,
            (_, Outcome::Code(_)) => Cause::Exit,
            (_, Outcome::Signal(libc::SIGSYS)) => Cause::Seccomp,
            (_, Outcome::Signal(_)) => Cause::Signal,
            (_, Outcome::NotReady) => Cause::NotReady,
            (_, Outcome::Unhealthy) => Cause::Unhealthy,
            (_, Outcome::Silent) => Cause::Silent,
            (_, Outcome::Stuck) => Cause::Stuck,
        }
    }
}

/// The end of a sentence that begins with the service's name.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.why.as_deref(), self.cause()) {
            (Some(Why::Start(why)), _) => write!(f, "could not be started: cannot {why}"),
            (Some(Why::Memory(shortage)), _) => write!(f, "{}: {shortage}", self.outcome),
            (None, Cause::Seccomp) => {
                write!(f, "{}: it made a system call that it may not make", self.outcome)
            }
            (None, _) => self.outcome.fmt(f),
        }
    }
}

impl Entry {
    /// As the control channel has it.
    pub fn what(&self) -> control::What {
        use control::What;
        match self {
            Self::Ended(end) => What::Ended(end.told()),
            Self::Ready => What::MachineReady,
            Self::Stops(power) => What::MachineStops { power: *power },
            Self::Fact(fact) => match *fact {
                Fact::Started(pid) => What::Started { pid: pid.0 },
                Fact::Stopping => What::Stopping,
                Fact::ReadyAtOnce | Fact::Ready(_) => What::Ready,
                Fact::Restarts(pause) => What::Restarts { pause_ns: crate::clock::nanoseconds(pause) },
                Fact::Healthy => What::Healthy,
                Fact::Unhealthy => What::Unhealthy,
                Fact::Killed => What::Killed,
                Fact::Skipped(_) | Fact::Unmet(_) => What::Skipped,
                Fact::GivenUp(_) => What::GivenUp,
                Fact::Held
                | Fact::Awaits(_)
                | Fact::Ended(_)
                | Fact::Late
                | Fact::Silent
                | Fact::Lingers
                | Fact::AbortsBoot
                | Fact::RestartsWith(_) => What::Note,
            },
        }
    }

    /// The end of a sentence that begins with the service's name, or with "the machine". `name` is for others.
    /// `conditions` are those of the machine.
    pub fn predicate(&self, name: impl Fn(Index) -> String, conditions: &[Awaited]) -> String {
        match self {
            Self::Ended(end) => end.to_string(),
            Self::Ready => "is ready".to_owned(),
            Self::Stops(power) => tell::power(*power).to_owned(),
            Self::Fact(fact) => tell::predicate(*fact, name, conditions),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use supervision::Pid;

    fn started(number: i32) -> Record {
        Record { time: Duration::ZERO, service: Some(0), entry: Entry::Fact(Fact::Started(Pid(number))) }
    }

    #[test]
    fn numbers_go_on_when_the_first_events_are_forgotten() {
        let mut history = History::default();
        assert!(history.get(0).is_none());
        let count = i32::try_from(KEPT).unwrap() + 10;
        (1..=count).for_each(|number| history.note(started(number)));
        assert_eq!(history.last(), u64::try_from(count).unwrap());
        let number =
            |asked| history.get(asked).map(|(number, record)| (number, format!("{:?}", record.entry)));
        assert_eq!(number(0), Some((11, "Fact(Started(Pid(11)))".to_owned())));
        assert_eq!(number(12), Some((12, "Fact(Started(Pid(12)))".to_owned())));
        assert_eq!(number(history.last() + 1), None);
    }

    #[test]
    fn an_end_says_what_ended_it_and_why() {
        let memory = Shortage::Own(64 << 20);
        for (end, cause, text) in [
            (End::new(Outcome::Code(3)), Cause::Exit, "ended with code 3"),
            (End::new(Outcome::Signal(11)), Cause::Signal, "was ended by SIGSEGV"),
            (
                End::new(Outcome::Signal(31)),
                Cause::Seccomp,
                "was ended by SIGSYS: it made a system call that it may not make",
            ),
            (
                End::of_memory(Outcome::Signal(9), memory),
                Cause::Memory,
                "was ended by SIGKILL: it needed more than its 64 MiB of memory",
            ),
            (
                End::of_start(Outcome::Code(127), "run `x`: No such file or directory".into()),
                Cause::Start,
                "could not be started: cannot run `x`: No such file or directory",
            ),
            (End::new(Outcome::NotReady), Cause::NotReady, "was not ready in time"),
        ] {
            let told = end.told();
            assert_eq!((told.cause, told.text.as_str()), (cause, text));
        }
    }

    #[test]
    fn a_story_is_that_of_the_first_run() {
        let mut story = Story::default();
        let seconds = Duration::from_secs;
        story.note(&Entry::Fact(Fact::Started(Pid(7))), seconds(1));
        story.note(&Entry::Fact(Fact::ReadyAtOnce), seconds(2));
        story.note(&Entry::Ended(End::new(Outcome::Code(1))), seconds(3));
        story.note(&Entry::Fact(Fact::Started(Pid(8))), seconds(4));
        assert_eq!((story.started, story.ready), (Some(seconds(1)), Some(seconds(2))));
        assert_eq!(story.ended.map(|(time, _)| time), Some(seconds(3)));
    }
}
