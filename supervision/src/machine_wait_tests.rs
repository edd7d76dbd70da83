//! Claims about waits for the machine: its network, its clock, and paths.

use manifest::{Awaited, Condition, RestartPolicy, Wait};

use super::tests::{Life, MS, SECOND, after, edge, oneshot, rules, service};
use super::*;
use crate::rules::Rules;

pub fn wait(until: Awaited) -> Wait {
    Wait { until, timeout_ms: 0, on_failure: OnFailure::Degrade }
}

fn within(until: Awaited, timeout_ms: u64, on_failure: OnFailure) -> Wait {
    Wait { until, timeout_ms, on_failure }
}

fn path(path: &str) -> Awaited {
    Awaited::Path(path.to_owned())
}

fn waiting(wait_for: &[Wait], rules: Rules) -> Rules {
    Rules { wait_for: wait_for.into(), ..rules }
}

#[test]
fn a_service_starts_when_the_machine_is_as_it_wants_it() {
    let both = [wait(Awaited::Network), wait(path("/a"))];
    let machine = [waiting(&both, service()), waiting(&[wait(path("/a"))], service()), service()];
    let mut life = Life::of_machine(machine, &[false, false]);
    assert_eq!((life.started(), life.readiness_reports()), (vec![2], 0));
    assert!(life.told(0, Fact::Awaits(0)) && life.told(0, Fact::Awaits(1)) && life.told(1, Fact::Awaits(1)));
    life.becomes(1, true);
    assert_eq!(life.started(), [2, 1]);
    life.becomes(0, true);
    assert_eq!((life.started(), life.readiness_reports()), (vec![2, 1, 0], 1));
    assert_eq!((life.state.awaited(), life.state.deadline()), (vec![], None), "nobody looks any more");
}

#[test]
fn the_machine_is_looked_at_before_every_start() {
    let mut life = Life::of_machine([waiting(&[wait(Awaited::Network)], service())], &[true]);
    assert_eq!(life.started(), [0]);
    assert!(!life.told(0, Fact::Awaits(0)), "there was nothing to wait for");
    life.becomes(0, false);
    assert!(life.signalled().is_empty(), "who runs is not stopped");
    life.ends(0, Outcome::Code(1));
    life.sleeps();
    assert_eq!(life.started(), [0]);
    assert!(life.told(0, Fact::Awaits(0)));
    life.becomes(0, true);
    assert_eq!(life.started(), [0, 0]);
}

#[test]
fn the_machine_is_not_looked_at_for_those_who_wait_for_others() {
    let slow = Rules { ready: ReadyBy::Notify, ..service() };
    let waits = [within(Awaited::Clock, 1000, OnFailure::AbortBoot)];
    let web = waiting(&waits, after(&[edge(0, Condition::Ready)], service()));
    let mut life = Life::of_machine([slow, web], &[false]);
    assert_eq!((life.state.awaited(), life.state.deadline()), (vec![], None));
    life.now += SECOND * 10;
    life.happens(Event::Ready { service: 0 });
    assert_eq!(life.state.awaited(), [0]);
    assert_eq!(life.state.deadline(), Some(life.now + SECOND), "its time begins here");
    life.ends(0, Outcome::Signal(11));
    assert_eq!(life.state.awaited(), [], "and ends when it has to wait for others again");
    assert_eq!(life.state.services[1].run, Run::Waiting);
}

#[test]
fn what_does_not_come_in_time_does_what_its_wait_says() {
    for (on_failure, starts, ends) in [
        (OnFailure::AbortBoot, vec![0], true),
        (OnFailure::Degrade, vec![0], false),
        (OnFailure::Ignore, vec![0, 1, 2], false),
    ] {
        let waits = [within(path("/a"), 500, on_failure)];
        let chained = after(&[edge(1, Condition::Started)], service());
        let mut life = Life::of_machine([service(), waiting(&waits, service()), chained], &[false]);
        assert_eq!(life.started(), [0]);
        life.sleeps();
        assert_eq!((life.now, life.started()), (MS * 501, starts), "{on_failure:?}");
        assert_eq!(life.state.is_ending(), ends);
        assert_eq!(life.told(1, Fact::Unmet(0)), on_failure != OnFailure::Ignore);
        assert_eq!(life.told(2, Fact::Skipped(1)), on_failure == OnFailure::Degrade);
        if ends {
            life.ends(0, Outcome::Signal(15));
            assert_eq!(life.did.last(), Some(&Action::End(Power::Off, 124)), "as timeout(1) has it");
        }
    }
}

#[test]
fn the_time_of_a_wait_begins_anew_with_each() {
    let waits = [within(Awaited::Network, 60_000, OnFailure::Degrade)];
    let once = oneshot(RestartPolicy::OnFailure, OnFailure::AbortBoot);
    let mut life = Life::of_machine([waiting(&waits, once)], &[true]);
    life.now += SECOND * 100;
    life.becomes(0, false);
    life.ends(0, Outcome::Code(1));
    life.sleeps();
    assert_eq!(life.state.deadline(), Some(life.now + SECOND * 60));
    life.becomes(0, true);
    assert_eq!((life.started(), life.state.deadline()), (vec![0, 0], None));
}

#[test]
fn who_runs_at_shutdown_waits_no_longer_than_it_may_run() {
    let hook = rules(Kind::Shutdown { timeout_ms: 3000 }, RestartPolicy::Never);
    let waits = [wait(Awaited::Network)];
    let mut life = Life::of_machine([service(), waiting(&waits, hook)], &[false]);
    assert_eq!(life.state.awaited(), [], "not before");
    life.happens(Event::Stop { power: Power::Off });
    assert_eq!((life.state.awaited(), life.signalled()), (vec![0], vec![]));
    let began = life.now;
    life.sleeps();
    assert_eq!((life.now - began, life.signalled()), (SECOND * 3, vec![0]));
    assert!(life.told(1, Fact::Unmet(0)));
}

#[test]
fn what_the_machine_is_waited_for_can_be_stopped_started_and_ended() {
    let mut life = Life::of_machine([waiting(&[wait(Awaited::Clock)], service())], &[false]);
    let order = |order| Event::Order { service: 0, order };
    life.happens(order(Order::Stop));
    assert_eq!((life.state.services[0].run, life.state.awaited()), (Run::Held, vec![]));
    life.becomes(0, true);
    assert_eq!(life.started(), []);
    life.becomes(0, false);
    life.happens(order(Order::Start));
    assert_eq!((life.started(), life.state.awaited()), (vec![], vec![0]));
    life.happens(Event::Stop { power: Power::Off });
    assert!(life.is_off() && life.state.awaited().is_empty());
}
