//! The whole supervised machine: where it and each of its services stand.

use std::rc::Rc;
use std::time::Duration;

use manifest::Awaited;

use crate::conditions::Conditions;
use crate::event::{Index, Pid, Power};
use crate::graph;
use crate::random::Random;
use crate::rules::Rules;
use crate::service::{Life, Run, Service};

/// Where the machine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Services start as soon as they may.
    Up { ready: bool },
    /// What is to run before the services stop runs; nothing else starts any more.
    Closing { power: Power, code: u8 },
    /// Services end, each when nothing that depends on it lives.
    Stopping { power: Power, code: u8 },
    /// Nothing runs.
    Off,
}

/// The whole supervised machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub(crate) services: Vec<Service>,
    pub(crate) conditions: Conditions,
    pub(crate) phase: Phase,
    pub(crate) random: Random,
}

impl State {
    /// A machine of which nothing has started. `rules` are in the order of the boot manifest; services can share them.
    /// `seed` is for chance.
    pub fn new(rules: impl IntoIterator<Item = impl Into<Rc<Rules>>>, seed: u64) -> Self {
        let mut conditions = Conditions::default();
        let services = rules.into_iter().map(|rules| Service::new(rules.into(), &mut conditions)).collect();
        Self { services, conditions, phase: Phase::Up { ready: false }, random: Random::new(seed) }
    }

    /// When [`Event::Tick`] is due. None: not before something else happens.
    pub fn deadline(&self) -> Option<Duration> {
        self.services.iter().filter_map(|service| service.run.deadline()).min()
    }

    /// Whose first process `pid` is.
    pub fn service_of(&self, pid: Pid) -> Option<Index> {
        self.services.iter().position(|service| service.run.pid() == Some(pid))
    }

    /// All services, in the order of the boot manifest.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// Everything that is ever waited for of the machine, each thing once.
    pub fn conditions(&self) -> &[Awaited] {
        self.conditions.all()
    }

    /// Those of [`conditions`](Self::conditions) that a service waits for now, and nothing else. They are to be told by
    /// [`Event::Condition`]: at once when [`is_uncertain`](Self::is_uncertain), and when they change.
    pub fn awaited(&self) -> Vec<Index> {
        Conditions::awaited(&self.services)
    }

    /// Whether a service waits for something that nobody has looked at since it began to.
    pub fn is_uncertain(&self) -> bool {
        self.conditions.are_uncertain(&self.services)
    }

    /// When the last of the services that wait for the machine began to.
    pub fn awaits_since(&self) -> Option<Duration> {
        Conditions::awaited_since(&self.services)
    }

    /// What of the machine a service waits for.
    pub fn missing(&self, index: Index) -> Vec<&Awaited> {
        let missing = self.services.get(index).map(|service| self.conditions.missing(service));
        missing.into_iter().flatten().filter_map(|condition| self.conditions.all().get(condition)).collect()
    }

    /// Whom a service waits for.
    pub fn unmet(&self, index: Index) -> Vec<Index> {
        self.services
            .get(index)
            .filter(|service| service.run == Run::Waiting)
            .map(|service| graph::unmet(&self.services, &service.rules.depends_on))
            .unwrap_or_default()
    }

    /// Whether the machine is about to end.
    pub fn is_ending(&self) -> bool {
        !matches!(self.phase, Phase::Up { .. })
    }

    /// Whether every service has come as far as it should for the first time, or has failed.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Up { ready: true }
    }

    /// The run of a service, while it has one.
    pub(crate) fn life(&mut self, index: Index) -> Option<(&Rules, &mut Life)> {
        let Service { rules, run, .. } = self.services.get_mut(index)?;
        if let Run::Running(life) = run { Some((&**rules, life)) } else { None }
    }
}
