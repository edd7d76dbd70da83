//! What a client asked for, and how far the answer has come. An answer is made line by line, when there is room for it: a slow
//! client costs no memory, and misses nothing but what is not kept any more.

use manifest::control::{Answer, Ask, Log};
use supervision::Index;

use super::answer::{self, View};
use super::exec::Slot;
use crate::log::Line;
use crate::log::ring::Cursor;

/// One answer that is underway.
pub struct Session {
    /// As the client numbers it.
    pub id: u64,
    /// What it is about.
    pub work: Work,
}

/// What a session does.
pub enum Work {
    /// How the machine and its services are, from this service on; nothing for the machine itself.
    Status(Option<Index>),
    /// What they use, likewise.
    Usage(Option<Index>),
    /// How they came up, likewise.
    Boot(Option<Index>),
    /// What some of them have written.
    Logs {
        /// Whose.
        parts: Vec<Part>,
        /// Whether it goes on at the end.
        follow: bool,
    },
    /// What has happened.
    Events {
        /// The number of the next event.
        next: u64,
        /// The number of the last one; none for one that goes on.
        last: Option<u64>,
    },
    /// A program runs: it answers for itself.
    Exec(Slot),
    /// All but the last word is said.
    Over(Answer),
}

/// Where a session stands in a service's log.
pub struct Part {
    service: Index,
    cursor: Cursor,
    /// Where it ends unless it goes on.
    end: Cursor,
}

/// What comes next.
pub enum Next {
    /// A part of the answer.
    Part(Answer),
    /// Nothing for now.
    Nothing,
    /// The last word.
    End(Answer),
}

impl Work {
    /// What begins with a question that only needs answers. None for the others.
    pub fn begin(ask: Ask, view: &View<'_>) -> Option<Self> {
        Some(match ask {
            Ask::Status => Self::Status(None),
            Ask::Usage => Self::Usage(None),
            Ask::Boot => Self::Boot(None),
            Ask::Events { since, follow } => {
                let last = view.history.last();
                Self::Events { next: since.max(1), last: if follow { None } else { Some(last) } }
            }
            Ask::Logs { services, tail, follow } => {
                let mut parts = Vec::new();
                for name in &services {
                    match view.find(name) {
                        Ok(service) => parts.push(service),
                        Err(why) => return Some(Self::Over(Answer::Error { why })),
                    }
                }
                if services.is_empty() {
                    parts = (0..view.services.len()).collect();
                }
                Self::Logs {
                    parts: parts.into_iter().filter_map(|part| view.part(part, tail)).collect(),
                    follow,
                }
            }
            _ => return None,
        })
    }

    /// The next part of the answer.
    pub fn next(&mut self, view: &View<'_>) -> Next {
        let part = match self {
            Self::Status(at) => step(at, || answer::machine(view), |index| answer::service(view, index)),
            Self::Usage(at) => step(at, || answer::load(view), |index| answer::usage(view, index)),
            Self::Boot(at) => step(
                at,
                || Answer::Boot(answer::boot(view)),
                |index| answer::node(view, index).map(Answer::Node),
            ),
            Self::Logs { parts, follow } => match next_line(parts, *follow, view) {
                Some(log) => return Next::Part(Answer::Log(log)),
                None if *follow => return Next::Nothing,
                None => None,
            },
            Self::Events { next, last } => {
                let found =
                    view.history.get(*next).filter(|(number, _)| last.is_none_or(|last| *number <= last));
                match (found, &last) {
                    (Some((number, record)), _) => {
                        *next = number + 1;
                        return Next::Part(answer::event(view, number, record));
                    }
                    (None, None) => return Next::Nothing,
                    (None, Some(_)) => None,
                }
            }
            Self::Exec(_) => return Next::Nothing,
            Self::Over(answer) => return Next::End(answer.clone()),
        };
        part.map_or(Next::End(Answer::Done), Next::Part)
    }
}

/// The machine first, then service by service.
fn step(
    at: &mut Option<Index>,
    machine: impl FnOnce() -> Answer,
    service: impl Fn(Index) -> Option<Answer>,
) -> Option<Answer> {
    let Some(index) = at else {
        *at = Some(0);
        return Some(machine());
    };
    let answer = service(*index);
    *index += 1;
    answer
}

/// The earliest line of all.
fn next_line(parts: &mut [Part], follow: bool, view: &View<'_>) -> Option<Log> {
    let time = |part: &Part| {
        let service = view.services.get(part.service)?;
        let is_there = follow || part.cursor < part.end;
        is_there.then(|| service.ring.peek(part.cursor, !follow)).flatten()
    };
    let (_, part) =
        parts.iter_mut().filter_map(|part| Some((time(part)?, part))).min_by_key(|(time, _)| *time)?;
    let service = view.services.get(part.service)?;
    let entry = service.ring.next(&mut part.cursor, !follow)?;
    Some(Log {
        service: service.name.clone(),
        now: view.moment(entry.time),
        dropped: entry.dropped,
        text: Line(&entry.text).to_string(),
    })
}

impl View<'_> {
    /// The log of a service, from its last lines on.
    fn part(&self, service: Index, tail: Option<u32>) -> Option<Part> {
        let ring = &self.services.get(service)?.ring;
        let cursor = tail.map_or_else(|| ring.begin(), |count| ring.tail(count));
        Some(Part { service, cursor, end: ring.end() })
    }
}
