//! `step`: what follows from what happened. Pure: it starts nothing, reads no clock and no process.

use std::time::Duration;

use manifest::{Kind, OnFailure, OnUnhealthy, ReadyBy, Then};

use crate::event::{Action, Event, Fact, Index, Order, Outcome, Pid, Power, Question};
use crate::graph::{self, Cause, Verdict};
use crate::service::{Asking, KILL_PATIENCE, Life, Next, READINESS_INTERVAL, Run, Service, Stage, ms};
use crate::state::{Phase, State};

/// What `event` at the time `now` leads to. `actions` are to be done in their order.
pub fn step(state: &mut State, event: Event, now: Duration, actions: &mut Vec<Action>) {
    match event {
        Event::Tick => {}
        Event::Started { service, pid } => started(state, service, pid, now, actions),
        Event::NotStarted { service } => ended(state, service, Outcome::NotStarted, now, actions),
        Event::Executed { service } => executed(state, service, now, actions),
        Event::Ready { service } => become_ready(state, service, now, actions),
        Event::Alive { service } => {
            if let Some((rules, life)) = state.life(service)
                && life.alive_by.is_some()
            {
                life.alive_by = rules.watchdog.map(|limit| now + limit);
            }
        }
        Event::Answered { service, passed } => answered(state, service, passed, now, actions),
        Event::Exited { pid, outcome } => {
            if let Some(service) = state.service_of(pid) {
                ended(state, service, outcome, now, actions);
            }
        }
        Event::Condition { condition, holds } => {
            state.conditions.see(condition, holds, &state.services, now, actions);
        }
        Event::Order { service, order } => obey(state, service, order, now, actions),
        Event::Stop { power } => stop(state, power, 0, now, actions),
    }
    proceed(state, now, actions);
}

/// Does what time and the others' progress allow, until that allows nothing more.
fn proceed(state: &mut State, now: Duration, actions: &mut Vec<Action>) {
    let count = state.services.len();
    (0..count).for_each(|index| meet_deadlines(state, index, now, actions));
    // One round more for each failure that is passed on along a chain.
    let mut round = |index| start_if_due(state, index, now, actions);
    while (0..count).filter(|&index| round(index)).count() > 0 {}
    match state.phase {
        Phase::Up { ready: false } if state.services.iter().all(|service| service.settled) => {
            state.phase = Phase::Up { ready: true };
            actions.push(Action::Ready);
        }
        Phase::Up { .. } | Phase::Off => {}
        Phase::Closing { power, code } => {
            if state.services.iter().all(|service| !service.is_of_shutdown() || service.run.is_final()) {
                begin_stop(state, power, code, now, actions);
                end_services(state, now, actions);
            }
        }
        Phase::Stopping { .. } => end_services(state, now, actions),
    }
    if let Phase::Stopping { power, code } = state.phase
        && !state.services.iter().any(|service| service.run.is_alive())
    {
        state.phase = Phase::Off;
        actions.push(Action::End(power, code));
    }
}

/// What is due for one service because of the time.
fn meet_deadlines(state: &mut State, index: Index, now: Duration, actions: &mut Vec<Action>) {
    let is_ending = state.is_ending();
    let Some(service) = state.services.get_mut(index) else { return };
    match service.run {
        Run::Backoff { until } if until <= now => service.run = Run::Waiting,
        Run::Running(life) => watch(state, index, life, now, actions),
        Run::Stopping { pid, kill_at, next } if kill_at <= now => {
            actions.push(Action::Tell(index, Fact::Killed));
            actions.push(Action::Kill(index));
            service.run = Run::Killed { pid, give_up_at: Some(now + KILL_PATIENCE), next };
        }
        Run::Killed { give_up_at: Some(at), .. } if at <= now && is_ending => {
            leave_behind(service, index, actions);
        }
        // What it waits for in the kernel may come yet, as a disk that was slow does. What follows its end follows then.
        Run::Killed { pid, give_up_at: Some(at), next } if at <= now => {
            actions.push(Action::Tell(index, Fact::Lingers));
            service.run = Run::Killed { pid, give_up_at: None, next };
            service.settled = true;
        }
        _ => {}
    }
}

/// Nobody waits for it any more.
fn leave_behind(service: &mut Service, index: Index, actions: &mut Vec<Action>) {
    actions.push(Action::Tell(index, Fact::Ended(Outcome::Stuck)));
    service.last = Some(Outcome::Stuck);
    service.run = Run::Ended(Outcome::Stuck);
    service.settled = true;
}

/// The deadlines of a run.
fn watch(state: &mut State, index: Index, life: Life, now: Duration, actions: &mut Vec<Action>) {
    let is_due = |deadline: Option<Duration>| deadline.is_some_and(|deadline| deadline <= now);
    if is_due(life.end_by) {
        let next = Next::Fail(Outcome::NotReady);
        actions.push(Action::Tell(index, Fact::Killed));
        actions.push(Action::Kill(index));
        set_run(state, index, Run::Killed { pid: life.pid, give_up_at: Some(now + KILL_PATIENCE), next });
    } else if is_due(life.ready_by) {
        actions.push(Action::Tell(index, Fact::Late));
        ask_to_end(state, index, Next::Fail(Outcome::NotReady), now, actions);
    } else if is_due(life.alive_by) {
        actions.push(Action::Tell(index, Fact::Silent));
        ask_to_end(state, index, Next::Fail(Outcome::Silent), now, actions);
    } else if let Asking::Until(until) = life.asking
        && until <= now
    {
        actions.push(Action::Forget(index));
        answered(state, index, false, now, actions);
    } else if let Asking::At(at) = life.asking
        && at <= now
        && let Some(service) = state.services.get_mut(index)
    {
        let question = life.question(&service.rules);
        let until = now + service.patience(question);
        service.run = Run::Running(Life { asking: Asking::Until(until), ..life });
        actions.push(Action::Ask(index, question));
    }
}

fn set_run(state: &mut State, index: Index, run: Run) {
    if let Some(service) = state.services.get_mut(index) {
        service.run = run;
    }
}

/// Starts a service whose turn has come, or gives it up. Says whether others can get on by that.
fn start_if_due(state: &mut State, index: Index, now: Duration, actions: &mut Vec<Action>) -> bool {
    let is_waiting = |service: &&Service| matches!(service.run, Run::Waiting | Run::Awaiting { .. });
    let Some(service) = state.services.get(index).filter(is_waiting) else { return false };
    let may_start = match state.phase {
        Phase::Up { .. } => true,
        Phase::Closing { .. } => service.is_of_shutdown(),
        Phase::Stopping { .. } | Phase::Off => false,
    };
    let verdict = match graph::verdict(&state.services, &service.rules.depends_on) {
        Verdict::Start if may_start => await_machine(state, index, now, actions),
        verdict => {
            set_run(state, index, Run::Waiting);
            if may_start { verdict } else { Verdict::Wait }
        }
    };
    match verdict {
        Verdict::Wait => false,
        Verdict::Start => {
            if let Some(service) = state.services.get_mut(index) {
                service.run = Run::Starting;
                service.starts = service.starts.saturating_add(1);
                actions.push(Action::Start(index));
            }
            false
        }
        Verdict::Never(cause, on_failure) => {
            skip(state, index, (cause, on_failure), now, actions);
            true
        }
    }
}

fn await_machine(state: &mut State, index: Index, now: Duration, actions: &mut Vec<Action>) -> Verdict {
    let State { services, conditions, .. } = state;
    services.get_mut(index).map_or(Verdict::Wait, |service| conditions.admit(service, index, now, actions))
}

/// Leaves a service out, because of something that it waits for in vain.
fn skip(
    state: &mut State,
    index: Index,
    (cause, on_failure): (Cause, OnFailure),
    now: Duration,
    actions: &mut Vec<Action>,
) {
    let (fact, outcome) = match cause {
        Cause::Service(other) => {
            (Fact::Skipped(other), state.services.get(other).and_then(|other| other.last))
        }
        Cause::Condition(condition) => (Fact::Unmet(condition), Some(Outcome::NotReady)),
    };
    if let Some(service) = state.services.get_mut(index) {
        service.run = Run::Skipped;
        service.settled = true;
        actions.push(Action::Tell(index, fact));
    }
    if state.phase == (Phase::Up { ready: false }) && on_failure == OnFailure::AbortBoot {
        let code = outcome.map_or(1, Outcome::code);
        actions.push(Action::Tell(index, Fact::AbortsBoot));
        stop(state, Power::Off, code.max(1), now, actions);
    }
}

fn started(state: &mut State, index: Index, pid: Pid, now: Duration, actions: &mut Vec<Action>) {
    let is_stopping = matches!(state.phase, Phase::Stopping { .. } | Phase::Off);
    if let Some(service) = state.services.get_mut(index)
        && service.run == Run::Starting
    {
        actions.push(Action::Tell(index, Fact::Started(pid)));
        service.run = if is_stopping {
            Run::Leaving { pid, signal_at: now, kill_at: now + service.rules.grace }
        } else {
            Run::Running(Life::new(pid, &service.rules, now))
        };
    }
}

fn executed(state: &mut State, index: Index, now: Duration, actions: &mut Vec<Action>) {
    let Some((rules, life)) = state.life(index) else { return };
    if life.stage > Stage::Cloned {
        return;
    }
    life.stage = Stage::Executed;
    life.asking = match rules.ready {
        ReadyBy::Probe(_) => Asking::At(now),
        _ => life.next_check(rules, now),
    };
    let is_ready = rules.ready == ReadyBy::Started;
    if let Some(service) = state.services.get_mut(index) {
        service.was_executed = true;
    }
    if is_ready {
        become_ready(state, index, now, actions);
    }
}

fn become_ready(state: &mut State, index: Index, now: Duration, actions: &mut Vec<Action>) {
    let Some((rules, life)) = state.life(index) else { return };
    if life.stage == Stage::Ready {
        return;
    }
    life.stage = Stage::Ready;
    life.ready_by = None;
    life.alive_by = rules.watchdog.map(|limit| now + limit);
    if matches!(rules.ready, ReadyBy::Probe(_)) {
        life.asking = life.next_check(rules, now);
    }
    actions.push(Action::Tell(
        index,
        match rules.ready {
            ReadyBy::Started => Fact::ReadyAtOnce,
            _ => Fact::Ready(now.saturating_sub(life.since)),
        },
    ));
    if let Some(service) = state.services.get_mut(index) {
        service.was_executed = true;
        service.settled |= service.rules.kind == Kind::Service;
    }
}

/// Takes an answer, or the lack of one.
fn answered(state: &mut State, index: Index, passed: bool, now: Duration, actions: &mut Vec<Action>) {
    let Some((rules, life)) = state.life(index) else { return };
    if !matches!(life.asking, Asking::Until(_)) {
        return;
    }
    let question = life.question(rules);
    if question == Question::Readiness {
        life.asking = Asking::At(now + READINESS_INTERVAL);
        if passed {
            become_ready(state, index, now, actions);
        }
        return;
    }
    let Some(health) = &rules.health else { return };
    let before = life.healthy;
    if passed {
        life.healthy = Some(true);
        life.failed_checks = 0;
    } else if before.is_some() || now.saturating_sub(life.since) >= ms(health.start_period_ms) {
        life.failed_checks = life.failed_checks.saturating_add(1);
        if life.failed_checks >= health.retries {
            life.healthy = Some(false);
        }
    }
    life.asking = life.next_check(rules, now);
    let (after, on_unhealthy) = (life.healthy, health.on_unhealthy);
    let is_ready_by_health = rules.ready == ReadyBy::Healthy;
    if passed && is_ready_by_health {
        become_ready(state, index, now, actions);
    }
    match (before, after) {
        (Some(false), Some(true)) => actions.push(Action::Tell(index, Fact::Healthy)),
        (None | Some(true), Some(false)) => {
            actions.push(Action::Tell(index, Fact::Unhealthy));
            match on_unhealthy {
                OnUnhealthy::Restart => {
                    ask_to_end(state, index, Next::Fail(Outcome::Unhealthy), now, actions);
                }
                OnUnhealthy::Reboot => stop(state, Power::Reboot, 1, now, actions),
                OnUnhealthy::None => {}
            }
        }
        _ => {}
    }
}

/// Sends a running service its stop signal. One that is on its way already only learns what follows.
fn ask_to_end(state: &mut State, index: Index, next: Next, now: Duration, actions: &mut Vec<Action>) {
    let Some(service) = state.services.get_mut(index) else { return };
    let grace = service.rules.grace;
    match &mut service.run {
        Run::Running(life) => {
            let (pid, asking) = (life.pid, life.asking);
            if matches!(asking, Asking::Until(_)) {
                actions.push(Action::Forget(index));
            }
            actions.push(Action::Tell(index, Fact::Stopping));
            actions.push(Action::Signal(index, pid));
            service.run = Run::Stopping { pid, kill_at: now + grace, next };
        }
        Run::Stopping { next: before, .. } | Run::Killed { next: before, .. } => *before = next,
        _ => {}
    }
}

/// A run is over.
fn ended(state: &mut State, index: Index, outcome: Outcome, now: Duration, actions: &mut Vec<Action>) {
    let Some(service) = state.services.get_mut(index).filter(|service| service.run.is_alive()) else {
        return;
    };
    if let Run::Running(Life { asking: Asking::Until(_), .. }) = service.run {
        actions.push(Action::Forget(index));
    }
    if let Run::Running(life) = service.run
        && now.saturating_sub(life.since) >= service.rules.reset()
    {
        service.failures = 0;
        service.ends.clear();
    }
    let (reason, next) = match service.run {
        Run::Stopping { next, .. } | Run::Killed { next, .. } => match next {
            Next::Fail(reason) => (reason, next),
            Next::Again | Next::Hold | Next::End => (outcome, next),
        },
        _ => (outcome, Next::Fail(outcome)),
    };
    service.last = Some(reason);
    actions.push(Action::Tell(index, Fact::Ended(reason)));
    let is_stopping = matches!(state.phase, Phase::Stopping { .. } | Phase::Off);
    match next {
        _ if is_stopping => service.run = Run::Ended(reason),
        Next::End => service.run = Run::Ended(reason),
        Next::Hold => {
            service.run = Run::Held;
            service.settled = true;
        }
        Next::Again => service.run = Run::Waiting,
        Next::Fail(_) => failed_or_done(state, index, reason, now, actions),
    }
    if matches!(state.phase, Phase::Up { .. }) {
        restart_dependents(state, index, now, actions);
    }
}

/// Applies the restart policy to an end.
fn failed_or_done(
    state: &mut State,
    index: Index,
    outcome: Outcome,
    now: Duration,
    actions: &mut Vec<Action>,
) {
    let State { services, random, .. } = state;
    let Some(service) = services.get_mut(index) else { return };
    let is_oneshot = service.rules.kind != Kind::Service;
    // A oneshot has come as far as it should when it has ended for good; a service that fails is not waited for.
    service.settled |= !is_oneshot;
    if service.rules.starts_again_after(outcome) {
        if !service.has_ended_too_often(now) {
            let pause = service.rules.backoff(service.failures);
            let pause = random.vary(pause, service.rules.restart.backoff.jitter_percent);
            service.failures = service.failures.saturating_add(1);
            service.run = Run::Backoff { until: now + pause };
            actions.push(Action::Tell(index, Fact::Restarts(pause)));
            return;
        }
        let then = service.rules.give_up().map_or(Then::Stop, |limit| limit.then);
        actions.push(Action::Tell(index, Fact::GivenUp(then)));
        service.run = Run::Ended(outcome);
        service.settled = true;
        match then {
            Then::Stop => {}
            Then::Reboot => return stop(state, Power::Reboot, outcome.code(), now, actions),
            Then::Poweroff => return stop(state, Power::Off, outcome.code(), now, actions),
        }
    } else {
        service.run = Run::Ended(outcome);
        service.settled = true;
    }
    let is_boot = state.phase == Phase::Up { ready: false };
    if is_boot && state.services.get(index).is_some_and(|service| service.aborts_boot(outcome)) {
        actions.push(Action::Tell(index, Fact::AbortsBoot));
        stop(state, Power::Off, outcome.code(), now, actions);
    }
}

/// Ends those that are to be started again with a service that has ended. They start when it has come far enough.
fn restart_dependents(state: &mut State, index: Index, now: Duration, actions: &mut Vec<Action>) {
    for other in 0..state.services.len() {
        let Some(service) = state.services.get(other) else { continue };
        let is_bound = service.rules.depends_on.iter().any(|edge| edge.service == index && edge.restart_with);
        if is_bound && matches!(service.run, Run::Running(_)) {
            actions.push(Action::Tell(other, Fact::RestartsWith(index)));
            ask_to_end(state, other, Next::Again, now, actions);
        }
    }
}

/// Does what somebody wants of a service, as far as it is not so already.
fn obey(state: &mut State, index: Index, order: Order, now: Duration, actions: &mut Vec<Action>) {
    let is_up = matches!(state.phase, Phase::Up { .. });
    let Some(service) = state.services.get_mut(index).filter(|service| is_up && !service.is_of_shutdown())
    else {
        return;
    };
    let is_alive = service.run.is_alive();
    match order {
        Order::Stop if is_alive => ask_to_end(state, index, Next::Hold, now, actions),
        Order::Stop => {
            service.run = if service.run.is_final() { service.run } else { Run::Held };
            // Nobody waits for the readiness of what somebody has stopped.
            service.settled = true;
            actions.push(Action::Tell(index, Fact::Held));
        }
        Order::Restart if is_alive => ask_to_end(state, index, Next::Again, now, actions),
        Order::Start if is_alive => match &mut service.run {
            // It was about to be held.
            Run::Stopping { next, .. } | Run::Killed { next, .. } => *next = Next::Again,
            _ => {}
        },
        Order::Start | Order::Restart => {
            service.failures = 0;
            service.ends.clear();
            service.run = Run::Waiting;
        }
    }
}

/// Begins the machine's end, unless it has begun.
fn stop(state: &mut State, power: Power, code: u8, now: Duration, actions: &mut Vec<Action>) {
    if state.is_ending() {
        return;
    }
    actions.push(Action::TellStop(power));
    let mut closes = false;
    for service in &mut state.services {
        if service.is_of_shutdown() {
            service.run = Run::Waiting;
            closes = true;
        }
    }
    if closes {
        state.phase = Phase::Closing { power, code };
    } else {
        begin_stop(state, power, code, now, actions);
    }
}

/// Gives each service its turn. It has its stop signal when nothing that depends on it lives any more, and in any case
/// early enough to have half of its grace period: the shortest grace period's first half is cut into equal slots, one a
/// level. So the order is strict while services end as they should, and however many are stuck, all is over when the
/// longest grace period is.
fn begin_stop(state: &mut State, power: Power, code: u8, now: Duration, actions: &mut Vec<Action>) {
    state.phase = Phase::Stopping { power, code };
    let levels = graph::stop_levels(&state.services);
    let alive = state.services.iter().filter(|service| service.run.is_alive());
    let shortest = alive.map(|service| service.rules.grace).min().unwrap_or_default();
    let count = levels.iter().max().map_or(1, |level| level + 1);
    let slot = shortest / count / 2;
    for (index, (service, level)) in state.services.iter_mut().zip(levels).enumerate() {
        match &mut service.run {
            Run::Running(Life { pid, asking, .. }) => {
                if matches!(asking, Asking::Until(_)) {
                    actions.push(Action::Forget(index));
                }
                let (pid, kill_at) = (*pid, now + service.rules.grace);
                service.run = Run::Leaving { pid, signal_at: now + slot * level, kill_at };
            }
            // It has had its time.
            Run::Killed { give_up_at: None, .. } => leave_behind(service, index, actions),
            Run::Stopping { next, .. } | Run::Killed { next, .. } => *next = Next::End,
            Run::Starting | Run::Leaving { .. } | Run::Ended(_) | Run::Skipped | Run::Held => {}
            Run::Waiting | Run::Awaiting { .. } | Run::Backoff { .. } => service.run = Run::Held,
        }
    }
}

/// Signals those whose turn has come.
fn end_services(state: &mut State, now: Duration, actions: &mut Vec<Action>) {
    let needed = graph::needed(&state.services);
    for (index, service) in state.services.iter_mut().enumerate() {
        let is_needed = needed.get(index).is_some_and(|needed| *needed);
        if let Run::Leaving { pid, signal_at, kill_at } = service.run
            && (!is_needed || signal_at <= now)
        {
            actions.push(Action::Tell(index, Fact::Stopping));
            actions.push(Action::Signal(index, pid));
            service.run = Run::Stopping { pid, kill_at, next: Next::End };
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "machine_properties.rs"]
mod properties;

#[cfg(test)]
#[path = "machine_wait_tests.rs"]
mod wait_tests;
