//! The life of a machine without the machine: the same `step` that supervises services at run time, with a model of
//! services in place of processes and a clock that jumps.

mod wish;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use manifest::{Awaited, Condition, Kind, Name, Probe, ReadyBy};
use supervision::{Action, Event, Index, Outcome, Pid, Question, Rules, State, step, tell};

use crate::config::{Config, Edge, HealthOptions, Service, suggestion};
use crate::error::{Error, Result};
use crate::plan;
use wish::{Absence, Behaviour, Wish};

/// From the clone to the program, and from a stop signal to the end.
const MOMENT: Duration = Duration::from_millis(10);
/// How long a question takes.
const ANSWER: Duration = Duration::from_millis(5);
/// From the program's start to its readiness, unless an event says otherwise.
const READY: Duration = Duration::from_secs(1);
/// How long a oneshot takes, unless an event says otherwise.
const ONESHOT: Duration = Duration::from_secs(1);
/// From a start to a crash that has no time of its own.
const CRASH: Duration = Duration::from_secs(5);

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// More happens in no time that anybody looks at.
const MOST_LINES: usize = 10_000;

/// What would happen in the machine of `config` until then, a line for each thing.
pub fn timeline(config: &Config, events: &[String], until: Duration) -> Result<String> {
    let names: Vec<&Name> = config.services.iter().map(|service| &service.name).collect();
    let edges = || config.services.iter().flat_map(|service| &service.supervision.depends_on);
    let is_to_be_healthy = |service: &&Service| {
        let waits = |edge: &Edge| {
            edge.condition.value == Condition::Healthy && edge.service.value == service.name.as_str()
        };
        edges().any(waits) || service.supervision.ready.by == ReadyBy::Healthy
    };
    let rules = config.services.iter().map(|service| rules(service, is_to_be_healthy(&service), &names));
    let rules = rules.collect::<Result<Vec<_>>>()?;
    let names: Vec<&str> = names.into_iter().map(Name::as_str).collect();
    let wishes = events.iter().map(|text| Wish::parse(text, &names)).collect::<Result<Vec<_>>>()?;
    let mut life = Life::new(rules, &names);
    for wish in wishes {
        match wish {
            Wish::Service(index, behaviour) => life.models[index].take(behaviour),
            Wish::Absence(awaited, absence) => life.lacks(&awaited, absence)?,
            Wish::Stop(power, at) => life.schedule(at, Happening::Event(Event::Stop { power })),
        }
    }
    life.run(until);
    Ok(life.text)
}

/// What the config alone says about a service's supervision.
fn rules(service: &Service, is_to_be_healthy: bool, names: &[&Name]) -> Result<Rules> {
    let supervision = &service.supervision;
    // Whether an image has a health check is not known before it is fetched: one that is waited for is supposed.
    let supposed = HealthOptions { probe: Some(Probe::Tcp(0)), ..supervision.health.clone() };
    let written = supervision.health.probe.is_some() && !supervision.health.is_disabled;
    let health = if written || is_to_be_healthy { plan::usual_health(&supposed) } else { None };
    let limit = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
    Ok(Rules {
        kind: service.kind,
        depends_on: plan::depends_on(service, names)?.into(),
        wait_for: supervision.wait_for.iter().map(|wait| wait.value.clone()).collect(),
        ready: supervision.ready.by.clone(),
        ready_within: limit(supervision.ready.timeout_ms),
        health: health.map(Box::new),
        watchdog: supervision.watchdog,
        restart: supervision.restart.clone(),
        grace: service.stop_grace_period,
    })
}

/// Something that is to come.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Event(Event),
    /// A service's first process ends by itself, if it still is this one.
    Ends(Pid, Outcome),
    /// A service says that it is ready, if it still is this run.
    Says(Index, Pid),
    /// Something of the machine comes or goes.
    Change,
}

/// How a service behaves, run after run.
#[derive(Debug, Clone, Default)]
struct Model {
    /// From the start to its readiness; `None` for never.
    ready: Option<Option<Duration>>,
    /// How each run ends by itself, and after which time: the first ones only, where a number is given.
    ends: Option<(Outcome, Duration)>,
    ends_left: Option<u32>,
    unhealthy_at: Option<Duration>,
    unhealthy_for: Option<Duration>,
    ignores_stop: bool,
}

impl Model {
    fn take(&mut self, behaviour: Behaviour) {
        match behaviour {
            Behaviour::Ends { outcome, after, times } => {
                self.ends = Some((outcome, after.unwrap_or(CRASH)));
                self.ends_left = times;
            }
            Behaviour::Ready(after) => self.ready = Some(after),
            Behaviour::Unhealthy { at, during } => {
                (self.unhealthy_at, self.unhealthy_for) = (Some(at), during)
            }
            Behaviour::IgnoresStop => self.ignores_stop = true,
        }
    }

    /// How the run that begins now ends by itself.
    fn next_end(&mut self, kind: Kind) -> Option<(Outcome, Duration)> {
        let usual = match kind {
            Kind::Service => None,
            Kind::Oneshot { .. } | Kind::Shutdown { .. } => Some((Outcome::Code(0), ONESHOT)),
        };
        match &mut self.ends_left {
            Some(0) => return usual,
            Some(left) => *left -= 1,
            None => {}
        }
        self.ends.or(usual)
    }

    fn is_healthy(&self, now: Duration) -> bool {
        let Some(at) = self.unhealthy_at else { return true };
        now < at || self.unhealthy_for.is_some_and(|during| now >= at + during)
    }
}

struct Life<'a> {
    state: State,
    names: &'a [&'a str],
    models: Vec<Model>,
    /// Of each condition of the machine, when it does not hold.
    absences: Vec<Vec<Absence>>,
    now: Duration,
    /// By time, and then in the order in which they were thought of.
    coming: BTreeMap<(Duration, usize), Happening>,
    thought_of: usize,
    next_pid: i32,
    text: String,
    lines: usize,
    is_over: bool,
}

impl<'a> Life<'a> {
    fn new(rules: Vec<Rules>, names: &'a [&'a str]) -> Self {
        let models = vec![Model::default(); rules.len()];
        let state = State::new(rules, 1);
        Self {
            models,
            absences: vec![Vec::new(); state.conditions().len()],
            state,
            names,
            now: Duration::ZERO,
            coming: BTreeMap::new(),
            thought_of: 0,
            next_pid: 2,
            text: String::new(),
            lines: 0,
            is_over: false,
        }
    }

    fn schedule(&mut self, at: Duration, happening: Happening) {
        self.thought_of += 1;
        self.coming.insert((at, self.thought_of), happening);
    }

    /// Something of the machine is not there for some time. Nobody may wait for the network or the clock; a path that
    /// nobody waits for is a mistake.
    fn lacks(&mut self, awaited: &Awaited, absence: Absence) -> Result<()> {
        let conditions = self.state.conditions();
        let Some(place) = conditions.iter().position(|known| known == awaited) else {
            let Awaited::Path(path) = awaited else { return Ok(()) };
            let paths = conditions.iter().filter_map(|known| match known {
                Awaited::Path(path) => Some(path.as_str()),
                _ => None,
            });
            return Err(Error::new(format!("no service waits for `{path}`{}", suggestion(path, paths))));
        };
        self.absences[place].push(absence);
        self.schedule(absence.from, Happening::Change);
        if let Some(until) = absence.until {
            self.schedule(until, Happening::Change);
        }
        Ok(())
    }

    /// Tells of the machine what services wait for.
    fn look(&mut self) {
        for condition in self.state.awaited() {
            let holds = !self.absences[condition].iter().any(|absence| absence.covers(self.now));
            self.happens(Event::Condition { condition, holds });
        }
    }

    fn run(&mut self, until: Duration) {
        self.happens(Event::Tick);
        while !self.is_over && self.lines < MOST_LINES {
            while self.state.is_uncertain() {
                self.look();
            }
            let coming = self.coming.keys().next().map(|(at, _)| *at);
            let deadline = self.state.deadline();
            let Some(next) = [coming, deadline].into_iter().flatten().min().filter(|next| *next <= until)
            else {
                break;
            };
            self.now = self.now.max(next);
            match self.coming.first_entry().filter(|entry| entry.key().0 <= self.now) {
                Some(entry) => {
                    let happening = entry.remove();
                    self.meets(happening);
                }
                None => self.happens(Event::Tick),
            }
        }
    }

    fn meets(&mut self, happening: Happening) {
        match happening {
            Happening::Event(event) => self.happens(event),
            Happening::Change => self.look(),
            Happening::Ends(pid, outcome) => self.happens(Event::Exited { pid, outcome }),
            Happening::Says(service, pid) => {
                if self.state.service_of(pid) == Some(service) {
                    self.happens(Event::Ready { service });
                }
            }
        }
    }

    fn happens(&mut self, event: Event) {
        let mut actions = Vec::new();
        step(&mut self.state, event, self.now, &mut actions);
        actions.into_iter().for_each(|action| self.perform(action));
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Start(index) => self.start(index),
            Action::Signal(index, pid) => {
                self.say(index, "is asked to stop");
                if !self.models[index].ignores_stop {
                    self.schedule(self.now + MOMENT, Happening::Ends(pid, Outcome::Signal(SIGTERM)));
                }
            }
            Action::Kill(index) => {
                if let Some(pid) = self.state.services()[index].run.pid() {
                    self.schedule(self.now + MOMENT, Happening::Ends(pid, Outcome::Signal(SIGKILL)));
                }
            }
            Action::Ask(service, question) => {
                let passed = self.answer(service, question);
                self.schedule(self.now + ANSWER, Happening::Event(Event::Answered { service, passed }));
            }
            Action::Forget(_) => {}
            // The simulation tells every start and stop by itself.
            Action::Tell(_, fact) if !tell::is_news(fact) => {}
            Action::Tell(index, fact) => {
                let predicate =
                    tell::predicate(fact, |other| self.names[other].to_owned(), self.state.conditions());
                self.say(index, &predicate);
            }
            Action::TellStop(power) => self.say_of_machine(&format!("the machine {}", tell::power(power))),
            Action::Ready => self.say_of_machine("the machine is ready"),
            Action::End(_, code) => {
                self.say_of_machine(&format!("everything has ended, with code {code}"));
                self.is_over = true;
            }
        }
    }

    fn start(&mut self, index: Index) {
        let pid = Pid(self.next_pid);
        self.next_pid += 1;
        self.say(index, "starts");
        self.happens(Event::Started { service: index, pid });
        self.schedule(self.now + MOMENT, Happening::Event(Event::Executed { service: index }));
        let rules = &self.state.services()[index].rules;
        let (kind, says) = (rules.kind, matches!(rules.ready, ReadyBy::Notify | ReadyBy::Fd(_)));
        let after = self.models[index].ready.unwrap_or(Some(READY));
        if let Some(after) = after.filter(|_| says) {
            self.schedule(self.now + after, Happening::Says(index, pid));
        }
        if let Some((outcome, after)) = self.models[index].next_end(kind) {
            self.schedule(self.now + after, Happening::Ends(pid, outcome));
        }
    }

    fn answer(&self, index: Index, question: Question) -> bool {
        let service = &self.state.services()[index];
        let supervision::Run::Running(life) = service.run else { return false };
        let after = self.models[index].ready.unwrap_or(Some(READY));
        let is_up = after.is_some_and(|after| self.now >= life.since + after);
        match question {
            Question::Readiness => is_up,
            Question::Health => is_up && self.models[index].is_healthy(self.now),
        }
    }

    fn say(&mut self, index: Index, predicate: &str) {
        self.say_of_machine(&format!("`{}` {predicate}", self.names[index]));
    }

    fn say_of_machine(&mut self, sentence: &str) {
        self.lines += 1;
        // Writing to a String cannot fail.
        let (Ok(()) | Err(std::fmt::Error)) =
            writeln!(self.text, "{:>10.3} s  {sentence}", self.now.as_secs_f64());
    }
}

#[cfg(test)]
mod tests;
