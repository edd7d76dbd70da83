//! What services wait for of the machine: what was last seen of it, and whether that is enough for a service to start.
//!
//! Whoever runs the machine looks at what is awaited, and at nothing else. What was seen before a service began to wait
//! says nothing to it: a network that was there at boot may be gone.

use std::time::Duration;

use manifest::{Awaited, Kind, OnFailure};

use crate::event::{Action, Fact, Index};
use crate::graph::{Cause, Verdict};
use crate::rules::Rules;
use crate::service::{Run, Service, ms};

/// Everything that is ever waited for of the machine, each thing once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    awaited: Vec<Awaited>,
    /// What was last seen of each, and when.
    seen: Vec<Option<(bool, Duration)>>,
}

/// A wait of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// For what: an index into [`Conditions`].
    condition: Index,
    /// For how long.
    limit: Option<Duration>,
    /// What follows then.
    on_failure: OnFailure,
}

impl Conditions {
    /// Those that a service waits for by `rules`.
    pub fn waits(&mut self, rules: &Rules) -> Box<[Wait]> {
        // What is to end in time begins in time as well, or not at all.
        let longest = match rules.kind {
            Kind::Shutdown { timeout_ms } => Some(ms(timeout_ms)),
            Kind::Service | Kind::Oneshot { .. } => None,
        };
        let wait = |wait: &manifest::Wait| {
            let limit = (wait.timeout_ms > 0).then(|| ms(wait.timeout_ms));
            Wait {
                condition: self.place(&wait.until),
                limit: [limit, longest].into_iter().flatten().min(),
                on_failure: wait.on_failure,
            }
        };
        rules.wait_for.iter().map(wait).collect()
    }

    fn place(&mut self, awaited: &Awaited) -> Index {
        let known = self.awaited.iter().position(|other| other == awaited);
        known.unwrap_or_else(|| {
            self.awaited.push(awaited.clone());
            self.seen.push(None);
            self.awaited.len() - 1
        })
    }

    /// All of them, by their places.
    pub fn all(&self) -> &[Awaited] {
        &self.awaited
    }

    /// Those that are waited for now, each once.
    pub fn awaited(services: &[Service]) -> Vec<Index> {
        let waits = waiting(services).flat_map(|(_, _, waits)| waits);
        let mut awaited: Vec<Index> = waits.map(|wait| wait.condition).collect();
        awaited.sort_unstable();
        awaited.dedup();
        awaited
    }

    /// When the last of those who wait began to.
    pub fn awaited_since(services: &[Service]) -> Option<Duration> {
        waiting(services).map(|(_, since, _)| since).max()
    }

    /// Whether somebody waits for what was not looked at since.
    pub fn are_uncertain(&self, services: &[Service]) -> bool {
        let is_unseen = |since: Duration, wait: &Wait| self.holds(wait.condition, since).is_none();
        waiting(services).any(|(_, since, waits)| waits.iter().any(|wait| is_unseen(since, wait)))
    }

    /// Takes note of what was seen, and says who waits for it, once for each time that it has to.
    pub fn see(
        &mut self,
        condition: Index,
        holds: bool,
        services: &[Service],
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let Some(seen) = self.seen.get_mut(condition) else { return };
        let before = seen.replace((holds, now)).map(|(_, at)| at);
        let is_news = |since: Duration| !holds && before.is_none_or(|at| at < since);
        for (index, since, waits) in waiting(services) {
            if is_news(since) && waits.iter().any(|wait| wait.condition == condition) {
                actions.push(Action::Tell(index, Fact::Awaits(condition)));
            }
        }
    }

    /// Whether the machine is as a service wants it, for which nothing else has to come any more.
    pub fn admit(
        &self,
        service: &mut Service,
        index: Index,
        now: Duration,
        actions: &mut Vec<Action>,
    ) -> Verdict {
        if service.waits.is_empty() {
            return Verdict::Start;
        }
        let since = match service.run {
            Run::Awaiting { since, .. } => since,
            _ => {
                let missing =
                    service.waits.iter().filter(|wait| self.holds(wait.condition, now) == Some(false));
                actions.extend(missing.map(|wait| Action::Tell(index, Fact::Awaits(wait.condition))));
                now
            }
        };
        service.run = Run::Awaiting { since, until: limit(&service.waits, since, now) };
        self.verdict(&service.waits, since, now)
    }

    /// What a service still waits for.
    pub fn missing(&self, service: &Service) -> Vec<Index> {
        let Run::Awaiting { since, .. } = service.run else { return Vec::new() };
        let waits = service.waits.iter().map(|wait| wait.condition);
        waits.filter(|&condition| self.holds(condition, since) != Some(true)).collect()
    }

    /// Whether it holds, as far as that was seen since then.
    fn holds(&self, condition: Index, since: Duration) -> Option<bool> {
        let (holds, at) = (*self.seen.get(condition)?)?;
        (at >= since).then_some(holds)
    }

    fn verdict(&self, waits: &[Wait], since: Duration, now: Duration) -> Verdict {
        let mut verdict = Verdict::Start;
        for wait in waits.iter().filter(|wait| self.holds(wait.condition, since) != Some(true)) {
            match wait.limit {
                Some(limit) if since + limit <= now => match wait.on_failure {
                    OnFailure::Ignore => {}
                    on_failure => return Verdict::Never(Cause::Condition(wait.condition), on_failure),
                },
                _ => verdict = Verdict::Wait,
            }
        }
        verdict
    }
}

/// The next of the limits of a service that has waited `since` then.
fn limit(waits: &[Wait], since: Duration, now: Duration) -> Option<Duration> {
    waits.iter().filter_map(|wait| wait.limit).map(|limit| since + limit).filter(|at| *at > now).min()
}

/// The services that wait for the machine and nothing else, with when that began and for what they do.
fn waiting(services: &[Service]) -> impl Iterator<Item = (Index, Duration, &[Wait])> {
    services.iter().enumerate().filter_map(|(index, service)| match service.run {
        Run::Awaiting { since, .. } => Some((index, since, &*service.waits)),
        _ => None,
    })
}
