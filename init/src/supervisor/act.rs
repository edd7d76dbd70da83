//! What the loop does because `step` says so.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::Duration;

use manifest::report::Report;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use supervision::{Action, Event, Fact, Index, Outcome, Power, Question, step, tell};

use super::ask::{self, Asked};
use super::history::{End, Entry, Record};
use super::main_loop::Supervisor;
use super::signal::{self, Delivery};
use super::source::Source;
use crate::clock::{self, nanoseconds};
use crate::container::{self, Failure, Numbered, Stdio};
use crate::{report, shutdown, sys};

/// With more services the line that tells how the machine came up would not fit on its way to the console.
const REPORTED: usize = 128;
/// How long the last words may take to reach a console that is slow.
const LAST_WORDS: Duration = Duration::from_millis(50);

impl Supervisor {
    pub(super) fn tell_failure(&mut self, index: Index, failure: &Failure) {
        let Some(service) = self.services.get_mut(index) else { return };
        let why = service.launch.explain(failure);
        self.console.say(format_args!("cannot start `{}`: cannot {why}", service.name));
        service.failure = Some(why.into());
    }

    /// Lets `event` happen, and does what follows, and what follows from that.
    pub(super) fn apply(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        let mut actions = Vec::new();
        while let Some(event) = events.pop_front() {
            let now = clock::now();
            if let Event::Executed { service } = event
                && let Some(service) = self.services.get_mut(service)
            {
                service.story.executed.get_or_insert(now);
            }
            step(&mut self.state, event, now, &mut actions);
            for action in actions.drain(..) {
                events.extend(self.perform(action, now));
            }
        }
    }

    /// Does one thing that was decided at `time`, and says what happened by that.
    fn perform(&mut self, action: Action, time: Duration) -> Option<Event> {
        match action {
            Action::Start(index) => {
                let event = self.start(index);
                // Very many may start in one turn of the loop, on a machine that all of them keep busy.
                self.attend_watchdog();
                return event;
            }
            Action::Signal(index, pid) => self.signal(index, Pid::from_raw(pid.0)),
            Action::Kill(index) => self.kill(index),
            Action::Ask(index, question) => return self.ask(index, question),
            Action::Forget(index) => self.stop_asking(index),
            Action::Tell(index, fact) => self.tell_fact(index, fact, time),
            Action::TellStop(power) => {
                self.times.stop = Some(time);
                self.console.say(format_args!("the machine {}", tell::power(power)));
                self.history.note(Record { time, service: None, entry: Entry::Stops(power) });
            }
            Action::Ready => self.tell_ready(),
            Action::End(power, code) => self.end(power, code),
        }
        None
    }

    fn tell(&mut self, index: Index, what: std::fmt::Arguments<'_>) {
        if let Some(service) = self.services.get(index) {
            self.console.say(format_args!("`{}` {what}", service.name));
        }
    }

    /// Keeps a fact with the time at which it was decided, and says it if it is news.
    fn tell_fact(&mut self, index: Index, fact: Fact, time: Duration) {
        let entry = match fact {
            Fact::Ended(outcome) => Entry::Ended(self.end_of(index, outcome)),
            fact => Entry::Fact(fact),
        };
        if tell::is_news(fact) {
            let name = |index: Index| {
                self.services.get(index).map(|other| other.name.to_string()).unwrap_or_default()
            };
            let predicate = match &entry {
                // Why it could not be started has been said already.
                Entry::Ended(end) => end.in_short(),
                entry => entry.predicate(name, self.state.conditions()),
            };
            self.tell(index, format_args!("{predicate}"));
        }
        if let Some(service) = self.services.get_mut(index) {
            service.story.note(&entry, time);
            if let Entry::Ended(end) = &entry {
                service.last = Some(end.clone());
            }
        }
        self.history.note(Record { time, service: Some(index), entry });
    }

    /// Finds out what an outcome does not tell.
    fn end_of(&mut self, index: Index, outcome: Outcome) -> End {
        let Some(service) = self.services.get_mut(index) else { return End::new(outcome) };
        service.says = None;
        if let Some(why) = service.failure.take() {
            return End::of_start(outcome, why);
        }
        // Memory that is not there ends a service by a signal that could as well be somebody else's.
        if outcome == Outcome::Signal(Signal::SIGKILL as i32) {
            match service.group.shortage() {
                Ok(None) => {}
                Ok(Some(shortage)) => return End::of_memory(outcome, shortage),
                Err(error) => self.console.say(format_args!("{error}")),
            }
        }
        End::new(outcome)
    }

    fn ask(&mut self, index: Index, question: Question) -> Option<Event> {
        let failed = Event::Answered { service: index, passed: false };
        let rules = self.state.services().get(index)?;
        let (Some(probe), Some(first)) = (rules.probe(question), rules.run.pid()) else {
            return Some(failed);
        };
        let service = self.services.get_mut(index)?;
        let asked = Asked {
            launch: &service.launch,
            group: &service.group,
            first: Pid::from_raw(first.0),
            check: service.check.as_deref(),
            null: self.null.as_fd(),
        };
        match ask::ask(probe, &asked) {
            Ok(child) => {
                service.asking = Some(child);
                None
            }
            Err(error) => {
                self.console.say(format_args!("cannot ask `{}`: {error}", service.name));
                Some(failed)
            }
        }
    }

    /// The child ends at once, and is reaped as anybody's.
    fn stop_asking(&mut self, index: Index) {
        if let Some(child) = self.forget(index)
            && let Err(errno) = sys::send_signal(child, Signal::SIGKILL as i32)
        {
            self.console.say(format_args!("cannot end a question: {}", errno.desc()));
        }
    }

    /// The child that asks a service something is not waited for any more.
    pub(super) fn forget(&mut self, index: Index) -> Option<Pid> {
        self.services.get_mut(index).and_then(|service| service.asking.take())
    }

    fn start(&mut self, index: Index) -> Option<Event> {
        let service = self.services.get_mut(index)?;
        self.times.first_start.get_or_insert_with(clock::now);
        service.failure = None;
        let ready = service
            .ready
            .as_deref()
            .map(|(number, ready)| Numbered { number: *number, descriptor: ready.writer() });
        let stdio = Stdio::Log { input: self.null.as_fd(), output: service.output.writer(), ready };
        let started =
            container::start(&service.launch, &mut service.group, stdio, &self.origin).map(|started| {
                let event = EpollEvent::new(EpollFlags::EPOLLIN, Source::Start(index).encode());
                match self.epoll.add(&started.status, event) {
                    Ok(()) => service.status = Some(started.status),
                    // Its failure would go unsaid, but not unseen: the exit code tells as well.
                    Err(errno) => self.console.say(format_args!("cannot watch a start: {}", errno.desc())),
                }
                service.ending = started.ending;
                started.pid
            });
        match started {
            Ok(pid) => {
                service.ring.begin_run(pid.as_raw());
                Some(Event::Started { service: index, pid: supervision::Pid(pid.as_raw()) })
            }
            Err(error) => {
                self.console.say(format_args!("cannot start `{}`: {error}", service.name));
                let why = error.to_string();
                service.failure = Some(why.strip_prefix("cannot ").unwrap_or(&why).into());
                Some(Event::NotStarted { service: index })
            }
        }
    }

    fn signal(&mut self, index: Index, pid: Pid) {
        let Some(service) = self.services.get_mut(index) else { return };
        // Layers and memory have nothing to write back. To take a container's mounts apart costs RCU grace
        // periods and the ends of ten file systems, while the next service waits for its signal. Of a machine
        // that goes on, they would stay with all that is in them.
        if self.state.is_ending() && !service.launch.has_volumes() {
            // Without a descriptor to spare it takes that long after all.
            service.mounts = container::keep_mounts(pid).ok();
        }
        match signal::send(pid, service.stop.signal) {
            Ok(Delivery::Sent) => {}
            Ok(Delivery::Futile) => {
                self.tell(index, format_args!("does not handle its stop signal, and is killed"));
                self.kill(index);
            }
            // ESRCH cannot be: it is not reaped, so its pid is its own.
            Err(errno) => {
                self.console.say(format_args!("cannot signal `{}`: {}", service.name, errno.desc()));
                self.kill(index);
            }
        }
    }

    pub(super) fn kill(&mut self, index: Index) {
        let Some(service) = self.services.get_mut(index) else { return };
        if let Err(error) = service.group.kill() {
            self.console.say(format_args!("cannot kill `{}`: {error}", service.name));
        }
    }

    fn tell_ready(&mut self) {
        let now = clock::now();
        self.times.ready = Some(now);
        self.history.note(Record { time: now, service: None, entry: Entry::Ready });
        let report = Report::Ready {
            init_ns: nanoseconds(self.times.init),
            first_start_ns: nanoseconds(self.times.first_start.unwrap_or(now)),
            ready_ns: nanoseconds(now),
        };
        let took = now.saturating_sub(self.times.init).as_secs_f32();
        self.console.say(format_args!("ready after {took:.2} s"));
        self.send(&report);
        // For whoever keeps what comes out of a serial line. A person is better served by `coracle ctl boot`.
        if !self.console.is_painted()
            && self.services.len() <= REPORTED
            && let Some(line) = self.boot_report()
        {
            self.console.say(format_args!("{line}"));
        }
        // What the boot's work was done in, for as long as the machine lives.
        sys::give_back_memory();
    }

    fn send(&mut self, report: &Report) {
        if let Err(error) = report::send(report) {
            self.console.say(format_args!("{error}"));
        }
    }

    fn feed_watchdog(&mut self) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.feed(clock::now(), &mut self.console);
        }
    }

    fn end(&mut self, power: Power, code: u8) -> ! {
        // It takes no longer than half of the shortest time-out.
        self.feed_watchdog();
        self.finish_files();
        // What follows waits for disks, and has one whole time-out: the kernel stops the watchdog when it ends the
        // machine itself, and a disk that never answers does not keep it from that.
        self.feed_watchdog();
        shutdown::unmount();
        let off = clock::now();
        let stop = self.times.stop.unwrap_or(off);
        self.send(&Report::Exit { code, stop_ns: nanoseconds(stop), off_ns: nanoseconds(off) });
        let took = off.saturating_sub(stop).as_millis();
        self.console.say(format_args!("everything has ended, within {took} ms"));
        self.finish_syslog();
        self.console.drain(LAST_WORDS);
        shutdown::end(power)
    }
}
