//! What is to happen in a simulation, in words: `db crashes 3 times`, `web is unhealthy at 1m for 30s`.

use std::time::Duration;

use manifest::Awaited;
use supervision::{Index, Outcome, Power};

use crate::config::{duration, suggestion};
use crate::error::{Error, Result};

const SIGSEGV: i32 = 11;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// A service behaves in a way.
    Service(Index, Behaviour),
    /// Something that services may wait for is not there for some time.
    Absence(Awaited, Absence),
    /// Somebody ends the machine at a time.
    Stop(Power, Duration),
}

/// A time in which a condition of the machine does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absence {
    /// From then on.
    pub from: Duration,
    /// Until then, or for ever.
    pub until: Option<Duration>,
}

/// How a service behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Its runs end by themselves: so, after so long, and so often.
    Ends { outcome: Outcome, after: Option<Duration>, times: Option<u32> },
    /// It is ready so long after its start, or never.
    Ready(Option<Duration>),
    /// Its health checks fail from a time of the machine on, for so long.
    Unhealthy { at: Duration, during: Option<Duration> },
    /// It goes on after its stop signal.
    IgnoresStop,
}

const HINT: &str = "an event is one such as \"db crashes 3 times\", \"db crashes after 10s\", \"db exits with 1\", \"db is ready \
                    after 20s\", \"db is never ready\", \"migrate fails\", \"migrate takes 1m\", \"web is unhealthy at 1m for 30s\", \
                    \"web ignores its stop signal\", \"the network is down at 30s for 1m\", \"the network is up at 5s\", \
                    \"the clock is set at 3s\", \"/dev/vdb appears at 10s\" or \"the machine powers off at 2m\"";

impl Wish {
    /// Reads an event about one of `names`, or about the machine.
    pub fn parse(text: &str, names: &[&str]) -> Result<Self> {
        let wrong = || Error::new(format!("`{}` is no event", text.trim())).hint(HINT);
        let words: Vec<&str> = text.split_whitespace().collect();
        let time = |word: &str| {
            duration(word).map_err(|what| Error::new(format!("event `{}`: {what}", text.trim())))
        };
        let machine = words.strip_prefix(&["the"]).unwrap_or(&words).strip_prefix(&["machine"]);
        if let Some(rest) = machine {
            return match *rest {
                ["powers", "off", "at", at] => Ok(Self::Stop(Power::Off, time(at)?)),
                ["reboots", "at", at] => Ok(Self::Stop(Power::Reboot, time(at)?)),
                _ => Err(wrong()),
            };
        }
        if let Some(absence) = Absence::parse(words.strip_prefix(&["the"]).unwrap_or(&words), &time)? {
            return Ok(absence);
        }
        let (name, rest) = words.split_first().ok_or_else(wrong)?;
        let index = names.iter().position(|known| known == name).ok_or_else(|| {
            Error::new(format!("no service is called `{name}`{}", suggestion(name, names.iter().copied())))
                .hint(HINT)
        })?;
        Behaviour::parse(rest, &time)?.map(|behaviour| Self::Service(index, behaviour)).ok_or_else(wrong)
    }
}

impl Absence {
    /// Whether the condition does not hold at this time.
    pub fn covers(self, now: Duration) -> bool {
        self.from <= now && self.until.is_none_or(|until| now < until)
    }

    fn parse(words: &[&str], time: &dyn Fn(&str) -> Result<Duration>) -> Result<Option<Wish>> {
        // Without `is` as well: "network down 60s".
        let words: Vec<&str> = words.iter().copied().filter(|word| *word != "is").collect();
        let [what, verb, ref rest @ ..] = *words else { return Ok(None) };
        let (awaited, goes) = match (what, verb) {
            ("network", "up" | "down") => (Awaited::Network, verb == "down"),
            ("clock", "set") => (Awaited::Clock, false),
            (path, "appears" | "gone") if path.starts_with('/') => {
                (Awaited::Path(path.to_owned()), verb == "gone")
            }
            _ => return Ok(None),
        };
        let absence = match (goes, rest) {
            (false, ["at" | "after", until]) => Self { from: Duration::ZERO, until: Some(time(until)?) },
            (true, []) => Self { from: Duration::ZERO, until: None },
            (true, ["for", length] | [length]) => Self { from: Duration::ZERO, until: Some(time(length)?) },
            (true, ["at" | "after", from]) => Self { from: time(from)?, until: None },
            (true, ["at" | "after", from, "for", length]) => {
                let from = time(from)?;
                Self { from, until: Some(from.saturating_add(time(length)?)) }
            }
            _ => return Ok(None),
        };
        Ok(Some(Wish::Absence(awaited, absence)))
    }
}

impl Behaviour {
    fn parse(words: &[&str], time: &dyn Fn(&str) -> Result<Duration>) -> Result<Option<Self>> {
        let ends = |outcome, after, times| Self::Ends { outcome, after, times };
        Ok(Some(match *words {
            ["is", "ready", "after", after] => Self::Ready(Some(time(after)?)),
            ["is", "never", "ready"] => Self::Ready(None),
            ["is", "unhealthy", "at", at] => Self::Unhealthy { at: time(at)?, during: None },
            ["is", "unhealthy", "at", at, "for", during] => {
                Self::Unhealthy { at: time(at)?, during: Some(time(during)?) }
            }
            ["ignores", "its", "stop", "signal"] => Self::IgnoresStop,
            ["takes", after] => ends(Outcome::Code(0), Some(time(after)?), None),
            [verb, ref rest @ ..] => {
                let (outcome, rest) = match (verb, rest) {
                    ("crashes", rest) => (Outcome::Signal(SIGSEGV), rest),
                    ("fails", rest) => (Outcome::Code(1), rest),
                    ("exits", ["with", code, rest @ ..]) => match code.parse() {
                        Ok(code) => (Outcome::Code(code), rest),
                        Err(_) => return Ok(None),
                    },
                    _ => return Ok(None),
                };
                let (after, rest) = match rest {
                    ["after", after, rest @ ..] => (Some(time(after)?), rest),
                    rest => (None, rest),
                };
                let times = match rest {
                    [] => None,
                    ["once"] => Some(1),
                    [times, "times"] => match times.parse() {
                        Ok(times) => Some(times),
                        Err(_) => return Ok(None),
                    },
                    _ => return Ok(None),
                };
                ends(outcome, after, times)
            }
            [] => return Ok(None),
        }))
    }
}
