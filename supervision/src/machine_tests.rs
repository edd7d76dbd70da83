//! Claims about `step` in scripted lives of a machine.

use manifest::{Backoff, Condition, Dependency, GiveUp, Health, OnUnhealthy, Probe, Restart, RestartPolicy};

use super::*;
use crate::rules::Rules;

pub const MS: Duration = Duration::from_millis(1);
pub const SECOND: Duration = Duration::from_secs(1);

const BACKOFF: Backoff =
    Backoff { first_ms: 100, factor: 2, cap_ms: 30_000, jitter_percent: 0, reset_ms: 60_000 };

pub fn rules(kind: Kind, policy: RestartPolicy) -> Rules {
    let restart = Restart { policy, prevented_by: vec![125], backoff: BACKOFF, give_up: None };
    let (ready, grace) = (ReadyBy::Started, SECOND);
    Rules {
        kind,
        depends_on: Box::default(),
        wait_for: Box::default(),
        ready,
        ready_within: None,
        health: None,
        watchdog: None,
        restart,
        grace,
    }
}

pub fn service() -> Rules {
    rules(Kind::Service, RestartPolicy::Always)
}

pub fn oneshot(policy: RestartPolicy, on_failure: OnFailure) -> Rules {
    rules(Kind::Oneshot { on_failure }, policy)
}

pub fn edge(service: Index, condition: Condition) -> Dependency {
    Dependency { service, condition, on_failure: OnFailure::Degrade, restart_with: false }
}

pub fn after(depends_on: &[Dependency], rules: Rules) -> Rules {
    Rules { depends_on: depends_on.into(), ..rules }
}

pub fn health(on_unhealthy: OnUnhealthy) -> Box<Health> {
    Box::new(Health {
        probe: Probe::Tcp(80),
        interval_ms: 10_000,
        timeout_ms: 1000,
        retries: 3,
        start_period_ms: 5000,
        start_interval_ms: 500,
        on_unhealthy,
    })
}

/// A machine whose starts succeed: process 1000 + n is the n-th one that was started.
pub struct Life {
    pub state: State,
    pub now: Duration,
    pub starts: Vec<(Index, Duration)>,
    pub did: Vec<Action>,
    /// Which conditions hold.
    pub machine: Vec<bool>,
}

impl Life {
    pub fn new(rules: impl IntoIterator<Item = Rules>) -> Self {
        Self::of_machine(rules, &[])
    }

    /// With what holds of what is waited for.
    pub fn of_machine(rules: impl IntoIterator<Item = Rules>, machine: &[bool]) -> Self {
        let state = State::new(rules, 1);
        let mut life = Self { state, now: MS, starts: vec![], did: vec![], machine: machine.to_vec() };
        life.happens(Event::Tick);
        life
    }

    /// A condition of the machine changes, and somebody looks.
    pub fn becomes(&mut self, condition: Index, holds: bool) {
        // What was seen before is older than what comes next.
        self.now += Duration::from_nanos(1);
        self.machine[condition] = holds;
        if self.state.awaited().contains(&condition) {
            self.happens(Event::Condition { condition, holds });
        }
    }

    pub fn happens(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut actions = vec![];
            step(&mut self.state, event, self.now, &mut actions);
            for action in &actions {
                if let Action::Start(service) = *action {
                    let pid = Pid(1000 + i32::try_from(self.starts.len()).unwrap());
                    self.starts.push((service, self.now));
                    events.push(Event::Executed { service });
                    events.push(Event::Started { service, pid });
                }
            }
            self.did.extend(actions);
            // As the loop does: it looks at all that is awaited.
            if events.is_empty() && self.state.is_uncertain() {
                let look = |condition: Index| Event::Condition { condition, holds: self.machine[condition] };
                events.extend(self.state.awaited().into_iter().map(look));
            }
        }
    }

    fn pid(&self, service: Index) -> Pid {
        self.state.services[service].run.pid().unwrap()
    }

    pub fn ends(&mut self, service: Index, outcome: Outcome) {
        let pid = self.pid(service);
        self.happens(Event::Exited { pid, outcome });
    }

    /// Time passes until the next deadline, which there must be.
    pub fn sleeps(&mut self) {
        self.now = self.now.max(self.state.deadline().unwrap());
        self.happens(Event::Tick);
    }

    /// Time passes until somebody is asked, who answers.
    fn answers(&mut self, service: Index, passed: bool) {
        while !matches!(self.state.services[service].run, Run::Running(life) if matches!(life.asking, Asking::Until(_)))
        {
            self.sleeps();
        }
        self.happens(Event::Answered { service, passed });
    }

    pub fn started(&self) -> Vec<Index> {
        self.starts.iter().map(|&(service, _)| service).collect()
    }

    pub fn told(&self, service: Index, fact: Fact) -> bool {
        self.did.contains(&Action::Tell(service, fact))
    }

    pub fn signalled(&self) -> Vec<Index> {
        let signals = self.did.iter().filter_map(|action| match action {
            Action::Signal(service, _) => Some(*service),
            _ => None,
        });
        signals.collect()
    }

    pub fn readiness_reports(&self) -> usize {
        self.did.iter().filter(|&&action| action == Action::Ready).count()
    }

    pub fn is_off(&self) -> bool {
        matches!(self.did.last(), Some(Action::End(..)))
    }
}

#[test]
fn everything_that_can_start_does_so_at_once() {
    let life = Life::new([service(), oneshot(RestartPolicy::Never, OnFailure::AbortBoot), service()]);
    assert_eq!(life.started(), [0, 1, 2]);
}

#[test]
fn an_idle_machine_has_nothing_to_wake_up_for() {
    let life = Life::new([service(), service()]);
    assert_eq!((life.state.deadline(), life.readiness_reports()), (None, 1));
    assert_eq!(Life::new([]).did, [Action::Ready]);
}

#[test]
fn a_service_waits_for_what_its_edges_say() {
    let once = oneshot(RestartPolicy::Never, OnFailure::AbortBoot);
    let slow = Rules { ready: ReadyBy::Notify, ..service() };
    let mut life = Life::new([
        once,
        slow,
        after(&[edge(0, Condition::Completed), edge(1, Condition::Ready)], service()),
        after(&[edge(1, Condition::Started)], service()),
    ]);
    assert_eq!(life.started(), [0, 1, 3]);
    life.ends(0, Outcome::Code(0));
    assert_eq!((life.started(), life.readiness_reports()), (vec![0, 1, 3], 0));
    life.happens(Event::Ready { service: 1 });
    assert_eq!((life.started(), life.readiness_reports()), (vec![0, 1, 3, 2], 1));
}

#[test]
fn a_failed_oneshot_does_to_those_who_wait_what_it_says() {
    for (on_failure, starts, ends) in [
        (OnFailure::AbortBoot, vec![0], true),
        (OnFailure::Degrade, vec![0], false),
        (OnFailure::Ignore, vec![0, 1], false),
    ] {
        let once = oneshot(RestartPolicy::Never, on_failure);
        let mut life = Life::new([once, after(&[edge(0, Condition::Completed)], service())]);
        life.ends(0, Outcome::Code(3));
        assert_eq!((life.started(), life.is_off()), (starts, ends), "{on_failure:?}");
        assert_eq!(life.did.contains(&Action::End(Power::Off, 3)), ends);
        assert_eq!(life.told(1, Fact::Skipped(0)), on_failure == OnFailure::Degrade);
    }
}

#[test]
fn an_edge_decides_about_a_service_that_has_failed() {
    for (on_failure, starts, ends) in [
        (OnFailure::AbortBoot, vec![0], true),
        (OnFailure::Degrade, vec![0], false),
        (OnFailure::Ignore, vec![0, 1, 2], false),
    ] {
        let weak = Rules { ready: ReadyBy::Notify, ..rules(Kind::Service, RestartPolicy::Never) };
        let edge = Dependency { on_failure, ..edge(0, Condition::Ready) };
        let chained = after(&[self::edge(1, Condition::Started)], service());
        let mut life = Life::new([weak, after(&[edge], service()), chained]);
        life.ends(0, Outcome::Code(4));
        assert_eq!((life.started(), life.is_off()), (starts, ends), "{on_failure:?}");
        assert_eq!(life.did.contains(&Action::End(Power::Off, 4)), ends);
        assert_eq!(
            life.told(2, Fact::Skipped(1)),
            on_failure == OnFailure::Degrade,
            "the failure is passed on"
        );
    }
}

#[test]
fn a_oneshot_is_tried_again_as_its_policy_says() {
    let once = oneshot(RestartPolicy::OnFailure, OnFailure::AbortBoot);
    let mut life = Life::new([once, after(&[edge(0, Condition::Completed)], service())]);
    life.ends(0, Outcome::Code(3));
    assert_eq!(life.started(), [0]);
    life.sleeps();
    assert_eq!(life.started(), [0, 0]);
    life.ends(0, Outcome::Code(0));
    assert_eq!(life.started(), [0, 0, 1]);
}

#[test]
fn the_policy_decides_by_the_outcome() {
    use RestartPolicy::{Always, Never, OnFailure};
    for (policy, outcome, again) in [
        (Never, Outcome::Code(1), false),
        (OnFailure, Outcome::Code(0), false),
        (OnFailure, Outcome::Code(1), true),
        (OnFailure, Outcome::Signal(9), true),
        (OnFailure, Outcome::Code(125), false),
        (Always, Outcome::Code(0), true),
        (Always, Outcome::Code(125), false),
        (Always, Outcome::NotStarted, true),
    ] {
        let mut life = Life::new([rules(Kind::Service, policy)]);
        life.ends(0, outcome);
        let is_again = matches!(life.state.services[0].run, Run::Backoff { .. });
        assert_eq!(is_again, again, "{policy:?} {outcome:?}");
    }
}

#[test]
fn an_early_death_is_restarted_no_sooner_than_the_backoff() {
    let mut life = Life::new([service()]);
    for _ in 0..12 {
        life.ends(0, Outcome::Code(1));
        life.happens(Event::Tick);
        life.sleeps();
    }
    let pauses: Vec<u128> = life.starts.windows(2).map(|pair| (pair[1].1 - pair[0].1).as_millis()).collect();
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000]);
}

#[test]
fn a_healthy_minute_forgets_the_failures_before_it() {
    let mut life = Life::new([service()]);
    life.ends(0, Outcome::Code(1));
    life.sleeps();
    life.now += SECOND * 60;
    life.ends(0, Outcome::Code(1));
    assert_eq!(life.state.deadline(), Some(life.now + MS * 100));
}

#[test]
fn a_clone_that_fails_is_a_failed_run() {
    let mut state = State::new([service()], 1);
    let mut actions = vec![];
    step(&mut state, Event::Tick, MS, &mut actions);
    step(&mut state, Event::NotStarted { service: 0 }, MS, &mut actions);
    assert!(actions.contains(&Action::Tell(0, Fact::Restarts(MS * 100))));
    assert_eq!(state.deadline(), Some(MS * 101));
}

#[test]
fn a_service_that_ends_too_often_is_given_up() {
    for (then, end) in
        [(Then::Stop, None), (Then::Reboot, Some(Power::Reboot)), (Then::Poweroff, Some(Power::Off))]
    {
        let mut weak = service();
        weak.restart.give_up = Some(GiveUp { after: 3, within_ms: 300_000, then });
        let mut life = Life::new([weak]);
        for _ in 0..2 {
            life.ends(0, Outcome::Code(7));
            life.sleeps();
        }
        life.ends(0, Outcome::Code(7));
        assert!(life.told(0, Fact::GivenUp(then)));
        assert_eq!(life.state.services[0].run, Run::Ended(Outcome::Code(7)));
        assert_eq!(life.did.last() == end.map(|power| Action::End(power, 7)).as_ref(), end.is_some());
    }
}

#[test]
fn ends_that_are_far_apart_are_not_added_up() {
    let mut weak = service();
    weak.restart.give_up = Some(GiveUp { after: 2, within_ms: 1000, then: Then::Stop });
    weak.restart.backoff.first_ms = 2000;
    let mut life = Life::new([weak]);
    for _ in 0..10 {
        life.ends(0, Outcome::Code(7));
        life.sleeps();
    }
    assert_eq!(life.starts.len(), 11);
}

#[test]
fn a_service_that_is_not_ready_in_time_has_failed() {
    let slow = Rules { ready: ReadyBy::Notify, ready_within: Some(SECOND), ..service() };
    let mut life = Life::new([slow]);
    life.sleeps();
    assert!(life.told(0, Fact::Late));
    life.ends(0, Outcome::Signal(15));
    assert!(life.told(0, Fact::Ended(Outcome::NotReady)) && life.told(0, Fact::Restarts(MS * 100)));
    assert_eq!(life.readiness_reports(), 1, "and is not waited for any more");
}

#[test]
fn readiness_is_asked_for_until_it_is_there() {
    let mut life = Life::new([Rules { ready: ReadyBy::Probe(Probe::Tcp(5432)), ..service() }]);
    for passed in [false, false, true] {
        assert_eq!(life.readiness_reports(), 0);
        life.answers(0, passed);
    }
    assert_eq!((life.readiness_reports(), life.state.deadline()), (1, None));
    assert!(life.told(0, Fact::Ready(MS * 200)));
}

#[test]
fn failed_checks_in_a_row_are_what_makes_a_service_unhealthy() {
    let mut life = Life::new([Rules { health: Some(health(OnUnhealthy::Restart)), ..service() }]);
    for passed in [true, false, false, true, false, false] {
        life.answers(0, passed);
    }
    assert!(!life.told(0, Fact::Unhealthy));
    // The third in a row is one that never comes.
    life.sleeps();
    assert!(matches!(life.did.last(), Some(Action::Ask(0, Question::Health))));
    life.sleeps();
    assert!(life.did.contains(&Action::Forget(0)) && life.told(0, Fact::Unhealthy));
    assert_eq!(life.signalled(), [0]);
    life.ends(0, Outcome::Code(0));
    assert!(life.told(0, Fact::Ended(Outcome::Unhealthy)), "a failure, however politely it ends");
    life.sleeps();
    assert_eq!(life.starts.len(), 2);
}

#[test]
fn failed_checks_do_not_count_while_a_service_starts() {
    let mut life = Life::new([Rules { health: Some(health(OnUnhealthy::None)), ..service() }]);
    for _ in 0..9 {
        life.answers(0, false);
    }
    assert!(life.now < SECOND * 5 && !life.told(0, Fact::Unhealthy), "every half second");
    for _ in 0..4 {
        life.answers(0, false);
    }
    assert!(life.told(0, Fact::Unhealthy) && life.signalled().is_empty());
    life.answers(0, true);
    assert!(life.told(0, Fact::Healthy));
}

#[test]
fn an_unhealthy_service_can_take_the_machine_with_it() {
    let mut life = Life::new([Rules { health: Some(health(OnUnhealthy::Reboot)), ..service() }]);
    for passed in [true, false, false, false] {
        life.answers(0, passed);
    }
    life.ends(0, Outcome::Code(0));
    assert_eq!(life.did.last(), Some(&Action::End(Power::Reboot, 1)));
}

#[test]
fn health_can_be_what_others_wait_for() {
    let db = Rules { ready: ReadyBy::Healthy, health: Some(health(OnUnhealthy::None)), ..service() };
    let of_health = after(&[edge(0, Condition::Healthy)], service());
    let of_readiness = after(&[edge(0, Condition::Ready)], service());
    let mut life = Life::new([db, of_health, of_readiness]);
    life.answers(0, false);
    assert_eq!(life.started(), [0]);
    life.answers(0, true);
    assert_eq!(life.started(), [0, 1, 2]);
}

#[test]
fn a_service_that_stops_saying_that_it_lives_has_failed() {
    let mut life = Life::new([Rules { ready: ReadyBy::Notify, watchdog: Some(SECOND * 5), ..service() }]);
    assert_eq!(life.state.deadline(), None, "it counts from its readiness on");
    life.happens(Event::Ready { service: 0 });
    life.now += SECOND * 4;
    life.happens(Event::Alive { service: 0 });
    assert_eq!(life.state.deadline(), Some(life.now + SECOND * 5));
    life.sleeps();
    assert!(life.told(0, Fact::Silent));
    life.ends(0, Outcome::Signal(6));
    assert!(life.told(0, Fact::Ended(Outcome::Silent)));
}

#[test]
fn dependents_are_restarted_where_the_edge_says_so() {
    let bound = Dependency { restart_with: true, ..edge(0, Condition::Ready) };
    let db = Rules { ready: ReadyBy::Notify, ..service() };
    let mut life =
        Life::new([db, after(&[bound], service()), after(&[edge(0, Condition::Ready)], service())]);
    life.happens(Event::Ready { service: 0 });
    assert_eq!(life.started(), [0, 1, 2]);
    life.ends(0, Outcome::Signal(11));
    assert_eq!(life.signalled(), [1]);
    life.ends(1, Outcome::Signal(15));
    life.sleeps();
    assert_eq!(life.started(), [0, 1, 2, 0], "it waits as it did at boot");
    life.happens(Event::Ready { service: 0 });
    assert_eq!(life.started(), [0, 1, 2, 0, 1]);
}

#[test]
fn orders_are_obeyed() {
    let mut life = Life::new([service()]);
    let order = |order| Event::Order { service: 0, order };
    life.happens(order(Order::Stop));
    life.ends(0, Outcome::Signal(15));
    assert_eq!((life.state.services[0].run, life.state.deadline()), (Run::Held, None));
    life.happens(order(Order::Start));
    assert_eq!(life.started(), [0, 0]);
    life.happens(order(Order::Restart));
    life.ends(0, Outcome::Signal(15));
    assert_eq!(life.started(), [0, 0, 0], "without a pause");
    life.ends(0, Outcome::Code(1));
    life.happens(order(Order::Stop));
    assert_eq!((life.state.services[0].run, life.state.deadline()), (Run::Held, None));
}

#[test]
fn services_that_do_not_need_each_other_stop_at_once() {
    let mut life = Life::new(vec![service(); 100]);
    life.happens(Event::Stop { power: Power::Off });
    assert_eq!(life.signalled().len(), 100);
}

#[test]
fn a_service_stops_when_nothing_that_needs_it_lives() {
    let mut life = Life::new([
        service(),
        after(&[edge(0, Condition::Started)], service()),
        after(&[edge(1, Condition::Started)], service()),
        after(&[edge(0, Condition::Started)], service()),
    ]);
    life.happens(Event::Stop { power: Power::Off });
    assert_eq!(life.signalled(), [2, 3]);
    life.ends(2, Outcome::Signal(15));
    assert_eq!(life.signalled(), [2, 3, 1]);
    life.ends(1, Outcome::Signal(15));
    life.ends(3, Outcome::Signal(15));
    assert_eq!(life.signalled(), [2, 3, 1, 0]);
    life.ends(0, Outcome::Signal(15));
    assert_eq!(life.did.last(), Some(&Action::End(Power::Off, 0)));
}

#[test]
fn a_chain_of_stuck_services_costs_the_grace_period_once_and_each_has_half_of_it() {
    let chain = (0..100).map(|index: Index| match index.checked_sub(1) {
        Some(before) => after(&[edge(before, Condition::Started)], service()),
        None => service(),
    });
    let mut life = Life::new(chain);
    let began = life.now;
    life.happens(Event::Stop { power: Power::Reboot });
    let mut last_signal = began;
    while !life.did.iter().any(|action| matches!(action, Action::Kill(_))) {
        let signals = life.signalled().len();
        life.sleeps();
        if life.signalled().len() > signals {
            last_signal = life.now;
        }
    }
    assert!(last_signal - began <= MS * 500, "{last_signal:?}");
    assert_eq!(life.now - began, MS * 1000);
    assert_eq!(life.did.iter().filter(|action| matches!(action, Action::Kill(_))).count(), 100);
}

#[test]
fn what_runs_at_shutdown_runs_before_anything_stops() {
    let hook = rules(Kind::Shutdown { timeout_ms: 3000 }, RestartPolicy::Never);
    let mut life = Life::new([service(), hook.clone(), hook]);
    assert_eq!((life.started(), life.readiness_reports()), (vec![0], 1));
    life.happens(Event::Stop { power: Power::Off });
    assert_eq!((life.started(), life.signalled()), (vec![0, 1, 2], vec![]));
    life.ends(1, Outcome::Code(0));
    let began = life.now;
    life.sleeps();
    assert_eq!(life.now - began, SECOND * 3, "a stuck one is killed in time");
    assert!(life.did.contains(&Action::Kill(2)));
    life.ends(2, Outcome::Signal(9));
    assert_eq!(life.signalled(), [0]);
    life.ends(0, Outcome::Signal(15));
    assert!(life.is_off());
}

#[test]
fn what_cannot_be_killed_does_not_hold_the_machine() {
    let mut life = Life::new([service()]);
    life.happens(Event::Stop { power: Power::Off });
    life.sleeps();
    life.sleeps();
    assert!(life.is_off());
    assert!(life.told(0, Fact::Ended(Outcome::Stuck)));
}

#[test]
fn what_cannot_be_killed_is_waited_for_and_then_does_what_was_wanted() {
    for (order, after) in [(Order::Restart, vec![0, 0]), (Order::Stop, vec![0])] {
        let mut life = Life::new([service()]);
        life.happens(Event::Order { service: 0, order });
        life.sleeps();
        life.sleeps();
        assert!(life.told(0, Fact::Lingers));
        assert_eq!(life.started(), [0], "two at a time would be one too many");
        life.now += SECOND * 100;
        life.ends(0, Outcome::Signal(9));
        assert_eq!(life.started(), after, "{order:?}");
    }
}

#[test]
fn what_lingers_is_left_behind_by_a_machine_that_ends() {
    let mut life = Life::new([service()]);
    life.happens(Event::Order { service: 0, order: Order::Restart });
    life.sleeps();
    life.sleeps();
    life.happens(Event::Stop { power: Power::Off });
    assert!(life.is_off());
    assert!(life.told(0, Fact::Ended(Outcome::Stuck)));
}

#[test]
fn the_first_stop_counts() {
    let mut life = Life::new([service()]);
    life.happens(Event::Stop { power: Power::Off });
    life.happens(Event::Stop { power: Power::Reboot });
    life.ends(0, Outcome::Code(0));
    assert_eq!(life.did.last(), Some(&Action::End(Power::Off, 0)));
}
