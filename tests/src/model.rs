//! The restart rules once more: an independent model, made from docs/supervision.md and not from the code. It reads the events
//! of a machine and says where they are not what the rules give.

use std::collections::BTreeMap;
use std::time::Duration;

use manifest::control::{Cause, End, Event, Service, ServiceKind, ServiceState, What};

/// How a pause may differ from the formula.
const TOLERANCE: f64 = 0.2;
/// How late a start may be on a machine that shares its processors.
const LATE: Duration = Duration::from_secs(10);

/// When a service starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// After each end.
    Always,
    /// After an end other than by code 0.
    OnFailure,
    /// Not.
    Never,
}

/// The rules of a service: the keys of its config.
#[derive(Debug, Clone, Copy)]
pub struct Restarts {
    /// `restart`
    pub policy: Policy,
    /// `backoff.first`
    pub first: Duration,
    /// `backoff.factor`
    pub factor: u32,
    /// `backoff.cap`
    pub cap: Duration,
    /// `backoff.reset`
    pub reset: Duration,
}

impl Default for Restarts {
    fn default() -> Self {
        Self {
            policy: Policy::Always,
            first: Duration::from_millis(100),
            factor: 2,
            cap: Duration::from_secs(30),
            reset: Duration::from_secs(60),
        }
    }
}

/// The rules of a machine's services.
#[derive(Debug, Clone, Default)]
pub struct Model {
    rules: Vec<(String, Restarts)>,
}

/// The end after which a service does not start again whatever its policy says.
const FINAL_CODE: u8 = 125;

/// Where a service stands after the events so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Not started yet, or about to be.
    Waiting,
    /// It runs.
    Running { pid: i32, since: Duration },
    /// It has been asked to end.
    Stopping { pid: i32, since: Duration },
    /// It has ended, and is to be told as starting again.
    Ended,
    /// It starts again then.
    Pausing { until: Duration },
    /// It does not start again.
    Over,
}

/// A service's life so far.
#[derive(Debug)]
struct Life {
    at: At,
    starts: u32,
    /// Pauses since the last run that was long enough.
    pauses: u32,
    last: Option<End>,
}

impl Model {
    /// Services whose names begin like this have these rules.
    pub fn with(mut self, prefix: &str, rules: Restarts) -> Self {
        self.rules.push((prefix.to_owned(), rules));
        self
    }

    fn rules(&self, name: &str) -> Restarts {
        let found = self.rules.iter().find(|(prefix, _)| name.starts_with(prefix.as_str()));
        found.map_or_else(Restarts::default, |(_, rules)| *rules)
    }

    /// Whether it has come to where it stays by itself.
    pub fn is_settled(&self, service: &Service) -> bool {
        match service.state {
            ServiceState::Ready
            | ServiceState::Stopped
            | ServiceState::Completed
            | ServiceState::Failed
            | ServiceState::Skipped => true,
            ServiceState::Waiting
            | ServiceState::Starting
            | ServiceState::Stopping
            | ServiceState::Backoff => false,
        }
    }

    /// What is wrong about these events, all since the boot, and about what `status` tells after them.
    pub fn judge(&self, events: &[Event], told: &[Service]) -> Vec<String> {
        let mut problems = Vec::new();
        let mut lives: BTreeMap<&str, Life> = BTreeMap::new();
        let oneshots: Vec<&str> = told
            .iter()
            .filter(|service| service.kind != ServiceKind::Service)
            .map(|service| service.name.as_str())
            .collect();
        for (place, event) in events.iter().enumerate() {
            if event.sequence != place as u64 + 1 {
                problems.push(format!("event {} comes as number {}", event.sequence, place + 1));
            }
            let Some(name) = event.service.as_ref().map(|name| name.as_str()) else { continue };
            if let What::Started { pid } = event.what
                && let Some((other, _)) = lives.iter().find(|(other, life)| **other != name && life.has(pid))
            {
                problems.push(format!("{pid} belongs to `{other}` and to `{name}`"));
            }
            let mut rules = self.rules(name);
            if oneshots.contains(&name) && rules.policy == Policy::Always {
                rules.policy = Policy::Never;
            }
            let life =
                lives.entry(name).or_insert(Life { at: At::Waiting, starts: 0, pauses: 0, last: None });
            if let Err(problem) = life.happen(event, &rules) {
                problems.push(format!("event {}: `{name}` {}: {problem}", event.sequence, event.text));
            }
        }
        for service in told {
            if let Some(life) = lives.get(service.name.as_str()) {
                problems.extend(
                    life.compare(service).into_iter().map(|problem| format!("`{}` {problem}", service.name)),
                );
            }
        }
        problems
    }
}

impl Life {
    fn has(&self, other: i32) -> bool {
        matches!(self.at, At::Running { pid, .. } | At::Stopping { pid, .. } if pid == other)
    }

    fn happen(&mut self, event: &Event, rules: &Restarts) -> Result<(), String> {
        let now = Duration::from_nanos(event.now.monotonic_ns);
        match &event.what {
            What::Started { pid } => {
                let fits = match self.at {
                    At::Waiting | At::Over => Ok(()),
                    // A pause that nobody has told, because an order has ended the run.
                    At::Ended => Err("it starts again without a pause".to_owned()),
                    At::Pausing { until } if now < until => {
                        Err(format!("it starts {:?} too early", until - now))
                    }
                    At::Pausing { until } if now > until + LATE => {
                        Err(format!("it starts {:?} too late", now - until))
                    }
                    At::Pausing { .. } => Ok(()),
                    At::Running { .. } | At::Stopping { .. } => Err("it runs already".to_owned()),
                };
                self.starts += 1;
                self.at = At::Running { pid: *pid, since: now };
                fits
            }
            What::Stopping => match self.at {
                At::Running { pid, since } => {
                    self.at = At::Stopping { pid, since };
                    Ok(())
                }
                _ => Err("it does not run".to_owned()),
            },
            What::Ended(end) => self.end(end, now, rules),
            What::Restarts { pause_ns } => self.pause(now, Duration::from_nanos(*pause_ns), rules),
            What::Ready => match self.at {
                At::Running { .. } | At::Stopping { .. } => Ok(()),
                _ => Err("it does not run".to_owned()),
            },
            What::GivenUp | What::Skipped => {
                self.at = At::Over;
                Ok(())
            }
            What::Healthy
            | What::Unhealthy
            | What::Killed
            | What::Note
            | What::MachineReady
            | What::MachineStops { .. } => Ok(()),
        }
    }

    fn end(&mut self, end: &End, now: Duration, rules: &Restarts) -> Result<(), String> {
        self.last = Some(end.clone());
        let (since, was_asked) = match self.at {
            At::Running { since, .. } => (since, false),
            At::Stopping { since, .. } => (since, true),
            // Not even cloned.
            At::Waiting | At::Pausing { .. } if end.cause == Cause::Start => {
                self.starts += 1;
                (now, false)
            }
            _ => return Err("it did not run".to_owned()),
        };
        if now.saturating_sub(since) >= rules.reset {
            self.pauses = 0;
        }
        let again = end.code != Some(FINAL_CODE)
            && match rules.policy {
                Policy::Always => true,
                Policy::OnFailure => end.code != Some(0),
                Policy::Never => false,
            };
        // An order says what follows: it starts at once, or not before the next one.
        self.at = match (was_asked, again) {
            (true, _) => At::Waiting,
            (false, true) => At::Ended,
            (false, false) => At::Over,
        };
        Ok(())
    }

    fn pause(&mut self, now: Duration, pause: Duration, rules: &Restarts) -> Result<(), String> {
        let formula =
            rules.first.as_secs_f64() * f64::from(rules.factor).powi(self.pauses.min(64).cast_signed());
        let expected = formula.min(rules.cap.as_secs_f64());
        self.pauses += 1;
        let at = std::mem::replace(&mut self.at, At::Pausing { until: now + pause });
        if !matches!(at, At::Ended | At::Waiting) {
            return Err(format!("it is {at:?}"));
        }
        let (least, most) = (expected * (1.0 - TOLERANCE), expected * (1.0 + TOLERANCE));
        if (least..=most).contains(&pause.as_secs_f64()) {
            Ok(())
        } else {
            Err(format!("pause {} is {expected} s by the rules", self.pauses))
        }
    }

    fn compare(&self, told: &Service) -> Vec<String> {
        let mut problems = Vec::new();
        let state = match self.at {
            At::Running { .. } => matches!(told.state, ServiceState::Starting | ServiceState::Ready),
            At::Stopping { .. } => told.state == ServiceState::Stopping,
            At::Pausing { .. } => matches!(told.state, ServiceState::Backoff | ServiceState::Waiting),
            At::Ended => false,
            At::Waiting => matches!(told.state, ServiceState::Waiting | ServiceState::Stopped),
            At::Over => {
                matches!(told.state, ServiceState::Completed | ServiceState::Failed | ServiceState::Skipped)
            }
        };
        if !state {
            problems.push(format!("is {:?}, told as {:?}", self.at, told.state));
        }
        let pid = match self.at {
            At::Running { pid, .. } | At::Stopping { pid, .. } => Some(pid),
            _ => None,
        };
        if pid != told.pid {
            problems.push(format!("is process {pid:?}, told as {:?}", told.pid));
        }
        if self.starts != told.starts {
            problems.push(format!("was started {} times, told as {}", self.starts, told.starts));
        }
        if self.last != told.last {
            problems.push(format!("{:?}, told as {:?}", self.last, told.last));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifest::control::Now;

    fn end(code: u8) -> What {
        What::Ended(End { cause: Cause::Exit, code: Some(code), signal: None, text: String::new() })
    }

    fn pause(milliseconds: u64) -> What {
        What::Restarts { pause_ns: milliseconds * 1_000_000 }
    }

    /// Events of one service, at milliseconds.
    fn problems(events: &[(u64, What)]) -> Vec<String> {
        let event = |(place, (at, what)): (usize, &(u64, What))| Event {
            sequence: place as u64 + 1,
            now: Now { monotonic_ns: at * 1_000_000, unix_ms: 0 },
            service: Some(manifest::Name::try_from("a".to_owned()).unwrap()),
            what: what.clone(),
            text: String::new(),
        };
        let events: Vec<Event> = events.iter().enumerate().map(event).collect();
        Model::default().judge(&events, &[])
    }

    const START: What = What::Started { pid: 7 };

    #[test]
    fn pauses_double_until_a_long_run() {
        let life = [
            (0, START),
            (10, end(1)),
            (10, pause(100)),
            (110, START),
            (120, end(0)),
            (120, pause(200)),
            (320, START),
            (60_320, end(1)),
            (60_320, pause(100)),
        ];
        assert_eq!(problems(&life), Vec::<String>::new());
    }

    #[test]
    fn what_the_rules_do_not_give_is_a_problem() {
        for life in [
            // Too short, too long, none at all, and too early an end of one.
            vec![(0, START), (10, end(1)), (10, pause(70))],
            vec![(0, START), (10, end(1)), (10, pause(130))],
            vec![(0, START), (10, end(1)), (10, START)],
            vec![(0, START), (10, end(1)), (10, pause(100)), (50, START)],
            vec![(0, START), (10, end(1)), (10, pause(100)), (30_000, START)],
            vec![(0, START), (10, end(1)), (10, pause(100)), (110, START), (120, end(1)), (120, pause(100))],
            // No life at all, two at a time, and one after the final code.
            vec![(0, end(1))],
            vec![(0, START), (10, START)],
            vec![(0, START), (10, end(FINAL_CODE)), (10, pause(100))],
            vec![(0, START), (10, end(1)), (20, end(1))],
        ] {
            assert_eq!(problems(&life).len(), 1, "{life:?}: {:?}", problems(&life));
        }
    }
}
