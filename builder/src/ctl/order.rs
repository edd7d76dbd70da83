//! `coracle ctl start`, `stop` and `restart`: an order, and what comes of it.

use std::collections::VecDeque;

use manifest::Name;
use manifest::control::{Answer, Ask, Cause, End, Event, Order, Service, ServiceKind, ServiceState, What};

use super::channel::{Channel, PATIENCE};
use super::status::Status;
use super::table::plain;
use crate::error::{Error, Result};
use crate::progress::say;

/// Orders something of services, one after the other in the given order, and waits for what comes of it.
pub fn order(channel: &mut Channel, wanted: &[String], order: Order, waits: bool) -> Result<()> {
    let status = Status::ask(channel)?;
    let names = status.named(wanted)?;
    let since = status.machine.last_event + 1;
    // Begun before the orders: nothing that comes of them is missed.
    let events = channel.begin(Ask::Events { since, follow: true })?;
    let mut early = VecDeque::new();
    for name in &names {
        let id = channel.begin(Ask::Order { service: name.clone(), order })?;
        answer(channel, id, events, &mut early)?;
    }
    if !waits {
        return Ok(());
    }
    let mut waits: Vec<Wait> = names.into_iter().map(|name| Wait::new(name, order)).collect();
    look(channel, events, &mut early, &mut waits)?;
    while waits.iter().any(|wait| wait.outcome.is_none()) {
        let event = match early.pop_front() {
            Some(event) => event,
            None => match channel.next(events, None)? {
                Answer::Event(event) => event,
                _ => continue,
            },
        };
        waits.iter_mut().for_each(|wait| wait.take(&event));
    }
    let failures: Vec<String> = waits.into_iter().filter_map(|wait| wait.outcome?.err()).collect();
    if failures.is_empty() { Ok(()) } else { Err(Error::new(failures.join("; "))) }
}

/// Waits for the end of a session; events that come meanwhile are kept.
fn answer(channel: &Channel, id: u64, events: u64, early: &mut VecDeque<Event>) -> Result<Vec<Answer>> {
    let mut answers = Vec::new();
    loop {
        match channel.next_of(&[id, events], Some(PATIENCE))? {
            (of, Answer::Event(event)) if of == events => early.push_back(event),
            (of, Answer::Done) if of == id => return Ok(answers),
            (of, answer) if of == id => answers.push(answer),
            _ => {}
        }
    }
}

/// Looks how the services are after the order: for some, nothing has to happen any more.
fn look(channel: &mut Channel, events: u64, early: &mut VecDeque<Event>, waits: &mut [Wait]) -> Result<()> {
    let id = channel.begin(Ask::Status)?;
    let mut last_event = 0;
    for answer in answer(channel, id, events, early)? {
        let service = match answer {
            Answer::Machine(machine) => {
                last_event = machine.last_event;
                continue;
            }
            Answer::Service(service) => service,
            _ => continue,
        };
        for wait in waits.iter_mut().filter(|wait| wait.service == service.name) {
            wait.look(&service, last_event);
            if service.state == ServiceState::Waiting && !service.waits_for.is_empty() {
                say(format_args!("`{}` waits for {}", service.name, plain(&service.waits_for.join(", "))));
            }
        }
    }
    Ok(())
}

/// What is waited for after an order.
#[derive(Debug)]
struct Wait {
    service: Name,
    order: Order,
    kind: ServiceKind,
    /// The event after which the run that was ordered goes on: what has ended before was another one.
    begun: Option<u64>,
    /// Why it has failed, where it has. The first outcome counts: what happens later comes of something else.
    outcome: Option<Result<(), String>>,
}

impl Wait {
    fn new(service: Name, order: Order) -> Self {
        Self { service, order, kind: ServiceKind::Service, begun: None, outcome: None }
    }

    /// Takes note of how the service was after the order, when so many events had happened.
    fn look(&mut self, service: &Service, last_event: u64) {
        use ServiceState::{Completed, Failed, Ready, Skipped, Starting, Stopped};
        self.kind = service.kind;
        match (self.order, service.state) {
            (Order::Stop, Stopped | Completed | Failed | Skipped) => self.outcome = Some(Ok(())),
            // It was so before, and is none the worse for it.
            (Order::Start, Ready) if self.kind == ServiceKind::Service => self.outcome = Some(Ok(())),
            (Order::Start | Order::Restart, Starting) => self.begun = Some(last_event),
            _ => {}
        }
    }

    /// Takes note of what has happened since the order.
    fn take(&mut self, event: &Event) {
        if let What::MachineStops { .. } = event.what {
            self.outcome.get_or_insert(Err(format!("the machine {}", plain(&event.text))));
        }
        if event.service.as_ref() != Some(&self.service) {
            return;
        }
        let has_begun = self.begun.is_some_and(|begun| event.sequence > begun);
        let failed = || Err(format!("`{}` {}", self.service, plain(&event.text)));
        let outcome = match (&event.what, self.order) {
            (What::Ended(_), Order::Stop) => Ok(()),
            (_, Order::Stop) => return,
            (What::Started { .. }, _) => {
                self.begun.get_or_insert(event.sequence);
                return;
            }
            (What::Ready, Order::Start | Order::Restart)
                if self.kind == ServiceKind::Service && has_begun =>
            {
                Ok(())
            }
            // A oneshot is ready when it has done what it is for.
            (What::Ended(end), _)
                if has_begun && self.kind != ServiceKind::Service && end.code == Some(0) =>
            {
                Ok(())
            }
            (What::Ended(_), _) if has_begun => failed(),
            // A start that fails has no process: what it was about stands in the event alone.
            (What::Ended(End { cause: Cause::Start, .. }) | What::Skipped | What::GivenUp, _) => failed(),
            _ => return,
        };
        self.outcome.get_or_insert(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, at, machine, name, service};
    use super::*;

    fn event(sequence: u64, what: What, text: &str) -> Event {
        Event { sequence, now: at(sequence), service: Some(name("web")), what, text: text.to_owned() }
    }

    fn ended(sequence: u64, code: u8) -> Event {
        let text = format!("ended with code {code}");
        let end = End { cause: Cause::Exit, code: Some(code), signal: None, text: text.clone() };
        event(sequence, What::Ended(end), &text)
    }

    fn started(sequence: u64) -> Event {
        event(sequence, What::Started { pid: 9 }, "starts")
    }

    fn ready(sequence: u64) -> Event {
        event(sequence, What::Ready, "is ready")
    }

    /// What comes of an order that leaves the service like this, when forty events had happened.
    fn outcome(
        order: Order,
        kind: ServiceKind,
        state: ServiceState,
        events: &[Event],
    ) -> Option<Result<(), String>> {
        let mut wait = Wait::new(name("web"), order);
        wait.look(&Service { kind, state, ..service("web") }, 40);
        events.iter().for_each(|event| wait.take(event));
        wait.outcome
    }

    #[test]
    fn an_order_is_done_when_what_it_wants_is_there_and_not_before() {
        use ServiceKind::{Oneshot, Service as Long};
        use ServiceState::{Backoff, Completed, Ready, Starting, Stopped, Stopping};
        let fine = Some(Ok(()));
        let failed = |text: &str| Some(Err(format!("`web` {text}")));
        for (order, kind, state, events, expected) in [
            (Order::Restart, Long, Stopping, vec![ended(41, 3), started(42)], None),
            (Order::Restart, Long, Stopping, vec![ended(41, 3), started(42), ready(43)], fine.clone()),
            (
                Order::Restart,
                Long,
                Stopping,
                vec![ended(41, 0), started(42), ended(43, 3)],
                failed("ended with code 3"),
            ),
            // The end and the start of before are read after the look, in which the new run was there.
            (Order::Restart, Long, Starting, vec![ended(39, 3), started(40), ready(41)], fine.clone()),
            (Order::Restart, Long, Starting, vec![ended(41, 3)], failed("ended with code 3")),
            (Order::Start, Long, Ready, vec![], fine.clone()),
            (Order::Start, Long, Backoff, vec![started(41), ready(42)], fine.clone()),
            (
                Order::Start,
                Long,
                Stopped,
                vec![event(41, What::Skipped, "is not started")],
                failed("is not started"),
            ),
            (Order::Start, Oneshot, Stopped, vec![started(41), ready(42)], None),
            (Order::Start, Oneshot, Stopped, vec![started(41), ready(42), ended(43, 0)], fine.clone()),
            (Order::Start, Oneshot, Starting, vec![ended(43, 1)], failed("ended with code 1")),
            (Order::Stop, Long, Stopping, vec![event(41, What::Killed, "is killed")], None),
            (Order::Stop, Long, Stopping, vec![ended(41, 143)], fine.clone()),
            (Order::Stop, Long, Stopped, vec![], fine.clone()),
            (Order::Stop, Oneshot, Completed, vec![], fine),
        ] {
            let said = format!("{order:?} {kind:?} {state:?} {events:?}");
            assert_eq!(outcome(order, kind, state, &events), expected, "{said}");
        }
    }

    #[test]
    fn events_of_others_count_for_nothing_and_the_machines_end_for_all() {
        let other = Event { service: Some(name("db")), ..ready(42) };
        let stops = What::MachineStops { power: manifest::control::Power::Off };
        let end = Event { service: None, ..event(43, stops, "powers off") };
        let state = ServiceState::Stopping;
        assert_eq!(outcome(Order::Restart, ServiceKind::Service, state, &[started(41), other.clone()]), None);
        assert_eq!(
            outcome(Order::Restart, ServiceKind::Service, state, &[started(41), other, end]),
            Some(Err("the machine powers off".to_owned()))
        );
    }

    #[test]
    fn nothing_is_ordered_when_one_of_the_names_is_unknown() {
        let fake = Fake::machine(|id, ask, say| {
            assert_eq!(ask, Ask::Status);
            say(id, Answer::Machine(machine()));
            say(id, Answer::Service(service("web")));
            say(id, Answer::Done);
        });
        let names = ["web", "wbe"].map(str::to_owned);
        let error = order(&mut fake.channel(), &names, Order::Restart, true).unwrap_err();
        assert_eq!(error.to_string(), "no service is called `wbe` (did you mean `web`?)");
    }

    #[test]
    fn an_order_follows_the_events_from_before_it_to_its_outcome() {
        let mut follows = 0;
        let fake = Fake::machine(move |id, ask, say| match ask {
            Ask::Status => {
                say(id, Answer::Machine(machine()));
                say(id, Answer::Service(Service { state: ServiceState::Stopping, ..service("web") }));
                say(id, Answer::Done);
                if follows > 0 {
                    say(follows, Answer::Event(ready(43)));
                }
            }
            Ask::Events { since: 41, follow: true } => follows = id,
            Ask::Order { order: Order::Restart, .. } => {
                say(follows, Answer::Event(ended(41, 0)));
                say(id, Answer::Done);
                say(follows, Answer::Event(started(42)));
            }
            other => panic!("{other:?} is not expected"),
        });
        assert_eq!(order(&mut fake.channel(), &["web".to_owned()], Order::Restart, true), Ok(()));
    }
}
