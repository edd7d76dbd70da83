//! Claims about `step` that hold for all machines and lives that proptest can think of.

use std::collections::BTreeSet;

use manifest::{Awaited, Condition, Dependency, GiveUp, OnUnhealthy, Probe, RestartPolicy, Wait};
use proptest::prelude::*;

use super::tests::{Life, MS, SECOND, health, rules, service};
use super::*;
use crate::rules::Rules;

/// What is so in the beginning, of as many things as are waited for at the most.
const MACHINE: [bool; 3] = [true, false, true];

/// Something that can happen to a machine at any time.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Ends(usize, Outcome),
    Says(usize, bool),
    Answers(usize, bool),
    Orders(usize, Order),
    Becomes(usize, bool),
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
    let order = prop_oneof![Just(Order::Start), Just(Order::Stop), Just(Order::Restart)];
    let fate = prop_oneof![
        8 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Fate::Ends(which, outcome)),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, is_ready)| Fate::Says(which, is_ready)),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, passed)| Fate::Answers(which, passed)),
        2 => (any::<usize>(), order).prop_map(|(which, order)| Fate::Orders(which, order)),
        2 => (0..MACHINE.len(), any::<bool>()).prop_map(|(which, holds)| Fate::Becomes(which, holds)),
        4 => (0..90_000u64).prop_map(Fate::Wait),
        4 => Just(Fate::Deadline),
        1 => Just(Fate::Stop),
        1 => Just(Fate::Stranger),
    ];
    prop::collection::vec(fate, 0..80)
}

fn kinds() -> impl Strategy<Value = Kind> {
    let on_failure =
        prop_oneof![Just(OnFailure::AbortBoot), Just(OnFailure::Degrade), Just(OnFailure::Ignore)];
    prop_oneof![
        4 => Just(Kind::Service),
        1 => on_failure.prop_map(|on_failure| Kind::Oneshot { on_failure }),
        1 => (0..5000u64).prop_map(|timeout_ms| Kind::Shutdown { timeout_ms }),
    ]
}

fn waits() -> impl Strategy<Value = Vec<Wait>> {
    let until =
        prop_oneof![Just(Awaited::Network), Just(Awaited::Clock), Just(Awaited::Path("/a".to_owned()))];
    let on_failure =
        prop_oneof![Just(OnFailure::AbortBoot), Just(OnFailure::Degrade), Just(OnFailure::Ignore)];
    let timeout = prop_oneof![Just(0), 1..30_000u64];
    let wait = (until, timeout, on_failure).prop_map(|(until, timeout_ms, on_failure)| Wait {
        until,
        timeout_ms,
        on_failure,
    });
    prop::collection::vec(wait, 0..3)
}

fn any_rules() -> impl Strategy<Value = Rules> {
    use RestartPolicy::{Always, Never, OnFailure};
    let policy = prop_oneof![Just(Never), Just(OnFailure), Just(Always)];
    let ready = prop_oneof![
        Just(ReadyBy::Started),
        Just(ReadyBy::Notify),
        Just(ReadyBy::Healthy),
        Just(ReadyBy::Probe(Probe::Tcp(1))),
    ];
    let on_unhealthy =
        prop_oneof![Just(OnUnhealthy::Restart), Just(OnUnhealthy::None), Just(OnUnhealthy::Reboot)];
    let then = prop_oneof![Just(Then::Stop), Just(Then::Reboot), Just(Then::Poweroff)];
    let give_up = prop::option::of((1..5u32, 1..600_000u64, then));
    let times = (prop::option::of(1..30_000u64), prop::option::of(1..30_000u64), 0..2000u32);
    (kinds(), policy, ready, prop::option::of(on_unhealthy), give_up, times, waits()).prop_map(
        |(kind, policy, ready, on_unhealthy, give_up, (within, watchdog, grace), wait_for)| {
            let mut rules = rules(kind, if matches!(kind, Kind::Shutdown { .. }) { Never } else { policy });
            rules.restart.give_up = give_up.map(|(after, within_ms, then)| GiveUp { after, within_ms, then });
            rules.restart.backoff.jitter_percent = 20;
            let is_asked = on_unhealthy.is_some() || ready == ReadyBy::Healthy;
            rules.health = is_asked.then(|| health(on_unhealthy.unwrap_or(OnUnhealthy::None)));
            rules.ready = ready;
            rules.ready_within = within.map(ms);
            rules.watchdog = watchdog.map(ms);
            rules.grace = MS * grace;
            rules.wait_for = wait_for.into();
            rules
        },
    )
}

/// Where to, what for, what then, and whether together.
type Edge = (usize, Condition, OnFailure, bool);

/// Up to eight services, each of which may depend on earlier ones: every graph without a cycle can be written so.
fn machines() -> impl Strategy<Value = Vec<Rules>> {
    let condition = prop_oneof![
        Just(Condition::Started),
        Just(Condition::Ready),
        Just(Condition::Healthy),
        Just(Condition::Completed)
    ];
    let on_failure =
        prop_oneof![Just(OnFailure::AbortBoot), Just(OnFailure::Degrade), Just(OnFailure::Ignore)];
    let edge = (any::<usize>(), condition, on_failure, any::<bool>());
    prop::collection::vec((any_rules(), prop::collection::vec(edge, 0..3)), 0..8).prop_map(|all| {
        let kinds: Vec<Kind> = all.iter().map(|(rules, _)| rules.kind).collect();
        let is_hook = |index: usize| matches!(kinds[index], Kind::Shutdown { .. });
        let with_edges = |(index, (rules, edges)): (usize, (Rules, Vec<Edge>))| {
            let edges = edges.into_iter().filter_map(|(other, condition, on_failure, restart_with)| {
                let service = other.checked_rem(index)?;
                // The builder sees to it that what runs at shutdown and the rest do not wait for each other.
                (is_hook(service) == is_hook(index)).then_some(Dependency {
                    service,
                    condition,
                    on_failure,
                    restart_with,
                })
            });
            Rules { depends_on: edges.collect(), ..rules }
        };
        all.into_iter().enumerate().map(with_edges).collect()
    })
}

fn meets(life: &mut Life, fate: Fate) {
    let alive: Vec<Pid> = life.state.services.iter().filter_map(|service| service.run.pid()).collect();
    let count = life.state.services.len();
    match fate {
        Fate::Ends(which, outcome) if !alive.is_empty() => {
            life.happens(Event::Exited { pid: alive[which % alive.len()], outcome });
        }
        Fate::Says(which, true) if count > 0 => life.happens(Event::Ready { service: which % count }),
        Fate::Says(which, false) if count > 0 => life.happens(Event::Alive { service: which % count }),
        Fate::Answers(which, passed) if count > 0 => {
            life.happens(Event::Answered { service: which % count, passed });
        }
        Fate::Orders(which, order) if count > 0 => {
            life.happens(Event::Order { service: which % count, order })
        }
        Fate::Becomes(which, holds) => life.becomes(which, holds),
        Fate::Wait(ms) => {
            life.now += MS * u32::try_from(ms).unwrap();
            life.happens(Event::Tick);
        }
        Fate::Deadline if life.state.deadline().is_some() => life.sleeps(),
        Fate::Stop => life.happens(Event::Stop { power: Power::Off }),
        Fate::Stranger => life.happens(Event::Exited { pid: Pid(7), outcome: Outcome::Code(0) }),
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_process_belongs_to_two_services(rules in machines(), fates in fates()) {
        let mut life = Life::of_machine(rules, &MACHINE);
        for fate in fates {
            meets(&mut life, fate);
            let pids: Vec<Pid> = life.state.services.iter().filter_map(|s| s.run.pid()).collect();
            prop_assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), pids.len());
        }
    }

    #[test]
    fn every_deadline_is_met_when_its_time_has_come(rules in machines(), fates in fates()) {
        let mut life = Life::of_machine(rules, &MACHINE);
        for fate in fates {
            meets(&mut life, fate);
            life.happens(Event::Tick);
            prop_assert!(life.state.deadline().is_none_or(|deadline| deadline > life.now), "it would spin");
        }
    }

    #[test]
    fn nothing_starts_before_what_it_waits_for(rules in machines(), fates in fates()) {
        let mut life = Life::of_machine(rules.clone(), &MACHINE);
        let mut seen = life.starts.len();
        let mut before = State::new(rules, 1);
        for fate in fates {
            for &(service, _) in life.starts.get(seen..).unwrap_or_default() {
                // Started within one event: its dependencies had come far enough before it, or came so by it.
                let edges = &before.services[service].rules.depends_on;
                let verdicts = [&before, &life.state].map(|state| graph::verdict(&state.services, edges));
                // Another edge may have ended the machine in the same moment.
                let is_gone = life.state.is_ending() || life.state.services[service].run.pid().is_none();
                prop_assert!(verdicts.contains(&Verdict::Start) || is_gone, "{service} {verdicts:?}");
            }
            seen = life.starts.len();
            before = life.state.clone();
            meets(&mut life, fate);
        }
    }

    #[test]
    fn nothing_starts_on_a_machine_that_is_not_as_it_wants_it(rules in machines(), fates in fates()) {
        let mut life = Life::of_machine(rules, &MACHINE);
        let mut seen = 0;
        for fate in fates {
            for &(service, _) in life.starts.get(seen..).unwrap_or_default() {
                for wait in &life.state.services[service].rules.wait_for {
                    let place = life.state.conditions().iter().position(|known| *known == wait.until);
                    let is_over = wait.on_failure == OnFailure::Ignore
                        && (wait.timeout_ms > 0 || life.state.services[service].is_of_shutdown());
                    prop_assert!(is_over || place.is_some_and(|place| life.machine[place]), "{service} {wait:?}");
                }
            }
            seen = life.starts.len();
            prop_assert!(!life.state.is_uncertain(), "it would wait for nothing");
            meets(&mut life, fate);
        }
    }

    #[test]
    fn restarts_are_bounded_by_the_backoff(seconds in 1..600u64) {
        let mut life = Life::new([service()]);
        let end = SECOND * u32::try_from(seconds).unwrap();
        while life.now < end {
            life.ends(0, Outcome::Code(1));
            life.sleeps();
        }
        // 100 ms doubled eight times are 25.5 s; after that two a minute.
        prop_assert!(life.starts.len() as u64 <= 10 + seconds / 30 + 1);
    }

    #[test]
    fn nothing_starts_once_services_stop_and_the_machine_always_ends(rules in machines(), fates in fates()) {
        let longest = rules.iter().map(|rules| rules.grace).max().unwrap_or_default();
        let hooks = rules.iter().filter(|rules| matches!(rules.kind, Kind::Shutdown { .. })).count();
        let mut life = Life::of_machine(rules, &MACHINE);
        for fate in fates {
            meets(&mut life, fate);
        }
        life.happens(Event::Stop { power: Power::Off });
        let (began, starts) = (life.now, life.starts.len());
        while !life.is_off() {
            life.sleeps();
        }
        prop_assert!(life.starts.len() <= starts + hooks);
        // Each may have waited for the machine for as long as it may run.
        let for_hooks = (SECOND * 5 * 2 + KILL_PATIENCE) * u32::try_from(hooks).unwrap();
        prop_assert!(life.now <= began + for_hooks + longest + KILL_PATIENCE * 2);
        prop_assert_eq!(life.did.iter().filter(|action| matches!(action, Action::End(..))).count(), 1);
        prop_assert_eq!(life.state.deadline(), None);
    }

    #[test]
    fn services_that_obey_stop_in_reverse_topological_order(rules in machines(), fates in fates()) {
        // Without a grace period there is no time to wait for each other.
        let mut life = Life::of_machine(rules.into_iter().map(|rules| Rules { grace: SECOND, ..rules }), &MACHINE);
        for fate in fates {
            meets(&mut life, fate);
        }
        let mut seen = life.did.len();
        life.happens(Event::Stop { power: Power::Off });
        while !life.is_off() {
            for action in life.did.split_off(seen) {
                let Action::Signal(service, _) = action else { continue };
                for (index, other) in life.state.services.iter().enumerate() {
                    let needs = other.rules.depends_on.iter().any(|edge| edge.service == service);
                    prop_assert!(!(needs && other.run.is_alive()), "{index} needs {service}");
                }
            }
            seen = life.did.len();
            let stopping = life.state.services.iter().position(|service| {
                let is_hook = service.is_of_shutdown() && service.run.pid().is_some();
                is_hook || matches!(service.run, Run::Stopping { .. } | Run::Killed { .. })
            });
            match stopping {
                Some(service) => life.ends(service, Outcome::Code(0)),
                None if life.is_off() => {}
                None => {
                    let awaited = life.state.awaited();
                    prop_assert!(!awaited.is_empty(), "nobody does anything any more");
                    awaited.into_iter().for_each(|condition| life.becomes(condition, true));
                }
            }
        }
        prop_assert!(life.is_off());
    }
}
