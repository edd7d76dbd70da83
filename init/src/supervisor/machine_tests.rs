//! Claims about `step`: some in scripted lives of a machine, some for all lives that proptest can think of.

use std::collections::BTreeSet;

use manifest::{Kind, OnFailure, Restart};
use proptest::prelude::*;

use super::super::service::{BACKOFF_FIRST, BACKOFF_LAST};
use super::*;

const MS: Duration = Duration::from_millis(1);

fn rules(kind: Kind, restart: Restart) -> Rules {
    Rules { kind, restart, grace: MS * 1000 }
}

fn service(restart: Restart) -> Rules {
    rules(Kind::Service, restart)
}

fn oneshot(restart: Restart, on_failure: OnFailure) -> Rules {
    rules(Kind::Oneshot { on_failure }, restart)
}

/// A machine whose starts succeed: process 1000 + n is the n-th one that was started.
struct Life {
    state: State,
    now: Duration,
    starts: Vec<(Index, Duration)>,
    did: Vec<Action>,
}

impl Life {
    fn new(rules: impl IntoIterator<Item = Rules>) -> Self {
        let mut life = Self { state: State::new(rules), now: MS, starts: vec![], did: vec![] };
        life.happens(Event::Tick);
        life
    }

    fn happens(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut actions = vec![];
            step(&mut self.state, event, self.now, &mut actions);
            for action in &actions {
                if let Action::Start(service) = *action {
                    let pid = Pid::from_raw(1000 + i32::try_from(self.starts.len()).unwrap());
                    self.starts.push((service, self.now));
                    events.push(Event::Executed { service });
                    events.push(Event::Started { service, pid });
                }
            }
            self.did.extend(actions);
        }
    }

    fn ends(&mut self, service: Index, outcome: Outcome) {
        let pid = self.state.services[service].run.pid().unwrap();
        self.happens(Event::Exited { pid, outcome });
    }

    /// Time passes until the next deadline, which there must be.
    fn sleeps(&mut self) {
        self.now = self.now.max(self.state.deadline().unwrap());
        self.happens(Event::Tick);
    }

    fn started(&self) -> Vec<Index> {
        self.starts.iter().map(|&(service, _)| service).collect()
    }

    fn is_off(&self) -> bool {
        matches!(self.did.last(), Some(Action::End(..)))
    }
}

#[test]
fn oneshots_run_one_after_the_other_and_services_all_at_once() {
    let once = oneshot(Restart::Never, OnFailure::AbortBoot);
    let mut life = Life::new([once, once, service(Restart::Always), service(Restart::Always)]);
    assert_eq!(life.started(), [0]);
    life.ends(0, Outcome::Code(0));
    assert_eq!(life.started(), [0, 1]);
    assert!(!life.did.contains(&Action::Ready));
    life.ends(1, Outcome::Code(0));
    assert_eq!(life.started(), [0, 1, 2, 3]);
    assert_eq!(life.did.iter().filter(|&&action| action == Action::Ready).count(), 1);
    assert_eq!(life.state.deadline(), None, "an idle machine has nothing to wake up for");
}

#[test]
fn a_machine_without_services_is_ready_at_once() {
    assert_eq!(Life::new([]).did, [Action::Ready]);
}

#[test]
fn a_failed_oneshot_ends_the_machine_with_its_code() {
    for (outcome, code) in [(Outcome::Code(3), 3), (Outcome::Signal(11), 139)] {
        let mut life = Life::new([oneshot(Restart::Never, OnFailure::AbortBoot), service(Restart::Always)]);
        life.ends(0, outcome);
        assert_eq!(life.did.last(), Some(&Action::End(Power::Off, code)));
        assert_eq!(life.started(), [0]);
    }
}

#[test]
fn a_failed_oneshot_may_be_ignored_or_tried_again() {
    let mut life = Life::new([oneshot(Restart::Never, OnFailure::Ignore), service(Restart::Always)]);
    life.ends(0, Outcome::Code(3));
    assert_eq!(life.started(), [0, 1]);

    let mut life = Life::new([oneshot(Restart::OnFailure, OnFailure::AbortBoot), service(Restart::Always)]);
    life.ends(0, Outcome::Code(3));
    assert_eq!(life.started(), [0]);
    life.sleeps();
    assert_eq!(life.started(), [0, 0]);
    life.ends(0, Outcome::Code(0));
    assert_eq!(life.started(), [0, 0, 1]);
}

#[test]
fn an_early_death_is_restarted_no_sooner_than_the_backoff() {
    let mut life = Life::new([service(Restart::Always)]);
    for _ in 0..12 {
        life.ends(0, Outcome::Code(1));
        life.happens(Event::Tick);
        life.sleeps();
    }
    let pauses: Vec<Duration> = life.starts.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
    assert_eq!(pauses[0], BACKOFF_FIRST);
    assert!(pauses.windows(2).all(|pair| pair[1] == (pair[0] * 2).min(BACKOFF_LAST)), "{pauses:?}");
}

#[test]
fn a_clone_that_fails_is_a_failed_run() {
    let mut state = State::new([service(Restart::Always)]);
    let mut actions = vec![];
    step(&mut state, Event::Tick, MS, &mut actions);
    step(&mut state, Event::NotStarted { service: 0 }, MS, &mut actions);
    assert!(actions.contains(&Action::TellRestart(0, BACKOFF_FIRST)));
    assert_eq!(state.deadline(), Some(MS + BACKOFF_FIRST));
}

#[test]
fn services_stop_in_reverse_each_when_the_one_after_it_has_ended() {
    let mut life = Life::new([service(Restart::Always); 3]);
    life.happens(Event::Stop { power: Power::Off });
    for stopping in [2, 1, 0] {
        let pid = life.state.services[stopping].run.pid().unwrap();
        assert_eq!(life.did.last(), Some(&Action::Signal(stopping, pid)));
        life.ends(stopping, Outcome::Signal(15));
    }
    assert_eq!(life.did.last(), Some(&Action::End(Power::Off, 0)));
}

#[test]
fn stuck_services_cost_the_grace_period_once_and_each_has_half_of_it() {
    let mut life = Life::new([service(Restart::Always); 100]);
    let began = life.now;
    life.happens(Event::Stop { power: Power::Reboot });
    let mut last_signal = began;
    while !life.did.iter().any(|action| matches!(action, Action::Kill(_))) {
        let signals = life.did.iter().filter(|action| matches!(action, Action::Signal(..))).count();
        life.sleeps();
        if life.did.iter().filter(|action| matches!(action, Action::Signal(..))).count() > signals {
            last_signal = life.now;
        }
    }
    assert!(last_signal - began <= MS * 500, "{last_signal:?}");
    assert_eq!(life.now - began, MS * 1000);
    assert_eq!(life.did.iter().filter(|action| matches!(action, Action::Kill(_))).count(), 100);
}

#[test]
fn what_cannot_be_killed_does_not_hold_the_machine() {
    let mut life = Life::new([service(Restart::Always)]);
    life.happens(Event::Stop { power: Power::Off });
    life.sleeps();
    life.sleeps();
    assert!(life.is_off());
    assert!(life.did.contains(&Action::TellEnd(0, Outcome::Stuck)));
}

#[test]
fn the_first_stop_counts() {
    let mut life = Life::new([service(Restart::Always)]);
    life.happens(Event::Stop { power: Power::Off });
    life.happens(Event::Stop { power: Power::Reboot });
    life.ends(0, Outcome::Code(0));
    assert_eq!(life.did.last(), Some(&Action::End(Power::Off, 0)));
}

/// Something that can happen to a machine at any time.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Ends(usize, Outcome),
    Wait(u64),
    Deadline,
    Stop,
    Stranger,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let outcome = prop_oneof![
        any::<u8>().prop_map(Outcome::Code),
        (1..65).prop_map(Outcome::Signal),
        Just(Outcome::Code(0)),
    ];
    let fate = prop_oneof![
        8 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Fate::Ends(which, outcome)),
        4 => (0..90_000u64).prop_map(Fate::Wait),
        4 => Just(Fate::Deadline),
        1 => Just(Fate::Stop),
        1 => Just(Fate::Stranger),
    ];
    prop::collection::vec(fate, 0..60)
}

fn machines() -> impl Strategy<Value = Vec<Rules>> {
    let restart = prop_oneof![Just(Restart::Never), Just(Restart::OnFailure), Just(Restart::Always)];
    let on_failure = prop_oneof![Just(OnFailure::AbortBoot), Just(OnFailure::Ignore)];
    let kind = prop_oneof![
        3 => Just(Kind::Service),
        1 => on_failure.prop_map(|on_failure| Kind::Oneshot { on_failure }),
    ];
    let rules = (kind, restart, 0..2000u32).prop_map(|(kind, restart, grace)| Rules {
        kind,
        restart,
        grace: MS * grace,
    });
    prop::collection::vec(rules, 0..8).prop_map(|mut all| {
        all.sort_by_key(|rules| rules.kind == Kind::Service);
        all
    })
}

fn meets(life: &mut Life, fate: Fate) {
    let alive: Vec<Pid> = life.state.services.iter().filter_map(|service| service.run.pid()).collect();
    match fate {
        Fate::Ends(which, outcome) if !alive.is_empty() => {
            life.happens(Event::Exited { pid: alive[which % alive.len()], outcome });
        }
        Fate::Wait(ms) => {
            life.now += MS * u32::try_from(ms).unwrap();
            life.happens(Event::Tick);
        }
        Fate::Deadline if life.state.deadline().is_some() => life.sleeps(),
        Fate::Stop => life.happens(Event::Stop { power: Power::Off }),
        Fate::Stranger => {
            life.happens(Event::Exited { pid: Pid::from_raw(7), outcome: Outcome::Code(0) });
        }
        Fate::Ends(..) | Fate::Deadline => {}
    }
}

proptest! {
    #[test]
    fn no_process_belongs_to_two_services(rules in machines(), fates in fates()) {
        let mut life = Life::new(rules);
        for fate in fates {
            meets(&mut life, fate);
            let pids: Vec<Pid> = life.state.services.iter().filter_map(|s| s.run.pid()).collect();
            prop_assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), pids.len());
        }
    }

    #[test]
    fn nothing_starts_once_the_machine_stops_and_it_always_ends(rules in machines(), fates in fates()) {
        let longest = rules.iter().map(|rules| rules.grace).max().unwrap_or_default();
        let mut life = Life::new(rules);
        for fate in fates {
            meets(&mut life, fate);
        }
        life.happens(Event::Stop { power: Power::Off });
        let (began, starts) = (life.now, life.starts.len());
        while !life.is_off() {
            life.sleeps();
        }
        prop_assert_eq!(life.starts.len(), starts);
        prop_assert!(life.now <= began + longest + KILL_PATIENCE * 2);
        prop_assert_eq!(life.did.iter().filter(|action| matches!(action, Action::End(..))).count(), 1);
        prop_assert_eq!(life.state.deadline(), None);
    }

    #[test]
    fn stop_signals_go_in_reverse_order(count in 1..12usize, stuck in any::<u16>()) {
        let mut life = Life::new(vec![service(Restart::Always); count]);
        life.happens(Event::Stop { power: Power::Off });
        while !life.is_off() {
            let obedient = life.state.services.iter().position(|service| {
                matches!(service.run, Run::Stopping { pid, .. } if stuck >> (pid.as_raw() - 1000) & 1 == 0)
            });
            match obedient {
                Some(service) => life.ends(service, Outcome::Code(0)),
                None => life.sleeps(),
            }
        }
        let signalled: Vec<Index> = life.did.iter().filter_map(|action| match action {
            Action::Signal(service, _) => Some(*service),
            _ => None,
        }).collect();
        prop_assert_eq!(signalled, (0..count).rev().collect::<Vec<_>>());
    }
}
