//! All services together: `step` decides what an event leads to. It knows no process and reads no clock.

use std::time::Duration;

use nix::unistd::Pid;

use super::event::{Action, Event, Index, Outcome};
use super::service::{KILL_PATIENCE, Rules, Run, Service};
use crate::shutdown::Power;

/// Where the machine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Oneshots run, one after the other.
    Booting,
    /// All services have had their first start.
    Up { ready: bool },
    /// Services end, in reverse order.
    Stopping { power: Power, code: u8 },
    /// Nothing runs.
    Off,
}

/// The whole supervised machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    services: Vec<Service>,
    phase: Phase,
}

impl State {
    /// A machine of which nothing has started. `rules` are in the order of the boot manifest.
    pub fn new(rules: impl IntoIterator<Item = Rules>) -> Self {
        Self { services: rules.into_iter().map(Service::new).collect(), phase: Phase::Booting }
    }

    /// When [`Event::Tick`] is due. None: not before something else happens.
    pub fn deadline(&self) -> Option<Duration> {
        self.services.iter().filter_map(|service| service.run.deadline()).min()
    }

    /// Whose first process `pid` is.
    pub fn service_of(&self, pid: Pid) -> Option<Index> {
        self.services.iter().position(|service| service.run.pid() == Some(pid))
    }
}

/// What `event` at the time `now` leads to. `actions` are to be done in their order.
pub fn step(state: &mut State, event: Event, now: Duration, actions: &mut Vec<Action>) {
    match event {
        Event::Tick => {}
        Event::Started { service, pid } => started(state, service, pid, now),
        Event::NotStarted { service } => ended(state, service, Outcome::NotStarted, now, actions),
        Event::Executed { service } => {
            if let Some(service) = state.services.get_mut(service) {
                service.settled = true;
            }
        }
        Event::Exited { pid, outcome } => {
            if let Some(service) = state.service_of(pid) {
                ended(state, service, outcome, now, actions);
            }
        }
        Event::Stop { power } => stop(state, power, 0, now, actions),
    }
    match state.phase {
        Phase::Booting => boot(state, now, actions),
        Phase::Up { ready } => {
            restart(state, now, actions);
            tell_ready(state, ready, actions);
        }
        Phase::Stopping { power, code } => {
            end_services(&mut state.services, now, actions);
            if !state.services.iter().any(|service| service.run.is_alive()) {
                state.phase = Phase::Off;
                actions.push(Action::End(power, code));
            }
        }
        Phase::Off => {}
    }
}

fn started(state: &mut State, index: Index, pid: Pid, now: Duration) {
    let stopping = matches!(state.phase, Phase::Stopping { .. } | Phase::Off);
    if let Some(service) = state.services.get_mut(index)
        && service.run == Run::Starting
    {
        service.run = if stopping {
            Run::Leaving { pid, signal_at: now, kill_at: now + service.rules.grace }
        } else {
            Run::Running { pid, since: now }
        };
    }
}

fn ended(state: &mut State, index: Index, outcome: Outcome, now: Duration, actions: &mut Vec<Action>) {
    let Some(service) = state.services.get_mut(index).filter(|service| service.run.is_alive()) else {
        return;
    };
    service.settled = true;
    actions.push(Action::TellEnd(index, outcome));
    if matches!(state.phase, Phase::Stopping { .. } | Phase::Off) {
        service.run = Run::Ended(outcome);
        return;
    }
    match service.restart_after(outcome, now) {
        Some(pause) => actions.push(Action::TellRestart(index, pause)),
        None if service.aborts_boot(outcome) => {
            actions.push(Action::TellAbort(index));
            stop(state, Power::Off, outcome.code(), now, actions);
        }
        None => {}
    }
}

/// Starts the first oneshot that has not ended; when there is none, all services.
fn boot(state: &mut State, now: Duration, actions: &mut Vec<Action>) {
    let next = state.services.iter_mut().enumerate().find(|(_, service)| service.holds_boot());
    if let Some((index, oneshot)) = next {
        match oneshot.run {
            Run::Idle => start(oneshot, index, actions),
            Run::Backoff { until } if until <= now => start(oneshot, index, actions),
            _ => {}
        }
        return;
    }
    for (index, service) in state.services.iter_mut().enumerate() {
        if service.run == Run::Idle {
            start(service, index, actions);
        }
    }
    state.phase = Phase::Up { ready: false };
    tell_ready(state, false, actions);
}

fn restart(state: &mut State, now: Duration, actions: &mut Vec<Action>) {
    for (index, service) in state.services.iter_mut().enumerate() {
        if let Run::Backoff { until } = service.run
            && until <= now
        {
            start(service, index, actions);
        }
    }
}

fn start(service: &mut Service, index: Index, actions: &mut Vec<Action>) {
    service.run = Run::Starting;
    actions.push(Action::Start(index));
}

fn tell_ready(state: &mut State, ready: bool, actions: &mut Vec<Action>) {
    if !ready && state.services.iter().all(|service| service.settled) {
        state.phase = Phase::Up { ready: true };
        actions.push(Action::Ready);
    }
}

/// Begins the end. Each service gets its stop signal when the one that stands after it has ended, and in any
/// case early enough to have half of its grace period: the shortest grace period's first half is cut into
/// equal slots, one a service. So the order is strict while services end as they should, and however many are
/// stuck, all is over when the longest grace period is.
fn stop(state: &mut State, power: Power, code: u8, now: Duration, actions: &mut Vec<Action>) {
    if matches!(state.phase, Phase::Stopping { .. } | Phase::Off) {
        return;
    }
    state.phase = Phase::Stopping { power, code };
    actions.push(Action::TellStop(power));
    let alive = state.services.iter().filter(|service| service.run.is_alive());
    let count = u32::try_from(alive.clone().count()).unwrap_or(u32::MAX);
    let shortest = alive.map(|service| service.rules.grace).min().unwrap_or_default();
    let slot = shortest / count.max(1) / 2;
    let mut signal_at = now;
    for service in state.services.iter_mut().rev() {
        match service.run {
            Run::Running { pid, .. } => {
                service.run = Run::Leaving { pid, signal_at, kill_at: now + service.rules.grace };
                signal_at += slot;
            }
            Run::Backoff { .. } => service.run = Run::Idle,
            _ => {}
        }
    }
}

/// Signals, kills and gives up on what still runs, the last service first.
fn end_services(services: &mut [Service], now: Duration, actions: &mut Vec<Action>) {
    let mut later_one_lives = false;
    for (index, service) in services.iter_mut().enumerate().rev() {
        match service.run {
            Run::Leaving { pid, signal_at, kill_at } if !later_one_lives || signal_at <= now => {
                actions.push(Action::Signal(index, pid));
                service.run = Run::Stopping { pid, kill_at };
            }
            Run::Stopping { pid, kill_at } if kill_at <= now => {
                actions.push(Action::Kill(index));
                service.run = Run::Killed { pid, give_up_at: now + KILL_PATIENCE };
            }
            Run::Killed { give_up_at, .. } if give_up_at <= now => {
                actions.push(Action::TellEnd(index, Outcome::Stuck));
                service.run = Run::Ended(Outcome::Stuck);
            }
            _ => {}
        }
        later_one_lives |= service.run.is_alive();
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
