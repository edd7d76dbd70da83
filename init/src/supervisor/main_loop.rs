//! The loop itself. From its first turn on, nothing may end the process or make it wait anywhere else.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use manifest::report::Report;
use manifest::{Manifest, Name, Probe, ReadyBy, Stop};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use supervision::{Action, Event, Fact, Index, Outcome, Power, Question, Rules, State, step, tell};

use super::ask::{self, Asked};
use super::buttons::Button;
use super::conditions::Conditions;
use super::notify::{Notify, Word};
use super::output::{Line, Output, READ_SIZE};
use super::reap;
use super::signal::{self, Delivery};
use super::source::Source;
use crate::clock::{self, nanoseconds};
use crate::container::{self, Failure, Filter, Group, Launch, Numbered, Parent, Process, Progress, Stdio};
use crate::error::{Error, Result};
use crate::log::Console;
use crate::net::Network;
use crate::watchdog::Watchdog;
use crate::{report, shutdown, sys};

/// What a signal to PID 1 asks for. Ctrl-Alt-Del arrives as SIGINT; SIGUSR1 and SIGUSR2 are what busybox's
/// users know.
const SIGNALS: [(Signal, Power); 6] = [
    (Signal::SIGTERM, Power::Off),
    (Signal::SIGINT, Power::Off),
    (Signal::SIGPWR, Power::Off),
    (Signal::SIGUSR2, Power::Off),
    (Signal::SIGUSR1, Power::Halt),
    (Signal::SIGQUIT, Power::Reboot),
];

/// How long the last words may take to reach a console that is slow.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// How often a dead service's pipe is read at most: that is all it holds, unless somebody else writes to it.
const LAST_READINGS: usize = 4;

/// The moments that the report tells.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// init's first instruction.
    pub init: Duration,
    /// The first clone.
    pub first_start: Option<Duration>,
    /// When the end began.
    pub stop: Option<Duration>,
}

/// A service and what belongs to it in the kernel.
struct Supervised {
    name: Name,
    stop: Stop,
    launch: Launch,
    group: Group,
    output: Output,
    /// While a start is underway.
    status: Option<OwnedFd>,
    /// Where it says how it is, if it can.
    notify: Option<Notify>,
    /// Where it writes a line when it is ready, if it does, and the descriptor that it has for that.
    ready: Option<(u32, Output)>,
    /// The program that checks its health, if there is one.
    check: Option<Process>,
    /// The child that asks it something at the moment.
    asking: Option<Pid>,
    /// Its mounts, once the machine ends and they need no end of their own.
    mounts: Option<File>,
}

/// The supervised machine, with everything that it waits for.
pub struct Supervisor {
    state: State,
    services: Vec<Supervised>,
    epoll: Epoll,
    signals: SignalFd,
    buttons: Vec<Button>,
    network: Network,
    conditions: Conditions,
    watchdog: Option<Watchdog>,
    console: Console,
    console_is_watched: bool,
    /// Every container's standard input.
    null: OwnedFd,
    times: Times,
    /// What one reading goes to; kept, so that reading allocates nothing.
    buffer: Vec<u8>,
}

impl Supervisor {
    /// Gets everything ready that can fail.
    pub fn new(manifest: &Manifest, network: Network, mut console: Console, times: Times) -> Result<Self> {
        let failed = |errno| Error::new("prepare", "the supervisor", errno);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        let mut mask: SigSet = SIGNALS.iter().map(|&(signal, _)| signal).collect();
        mask.add(Signal::SIGCHLD);
        let signals =
            SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(failed)?;
        let null = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(|error| Error::io("open", "/dev/null", &error))?;
        let buttons = Button::find();
        let filters = Filter::prepare_all(&manifest.seccomp);
        let parent = Parent::make(manifest.services.iter().map(|service| &service.container))?;
        let mut services = Vec::with_capacity(manifest.services.len());
        for service in &manifest.services {
            console.widen(service.name.as_str().len());
            let limits = &service.container.limits;
            if let Some(memory) = parent.exceeded_by(limits) {
                let (name, memory) = (&service.name, memory >> 20);
                console.say(format_args!("`{name}` may have more memory than the machine's {memory} MiB"));
            }
            services.push(Supervised {
                name: service.name.clone(),
                stop: service.stop,
                launch: Launch::prepare(&service.container, &filters)?,
                group: parent.group(service.name.as_str(), limits)?,
                output: Output::new().map_err(failed)?,
                status: None,
                notify: match service.container.sockets.as_slice() {
                    [] => None,
                    _ => Some(Notify::new(service.name.as_str())?),
                },
                ready: match service.ready.by {
                    ReadyBy::Fd(number) => Some((number, Output::new().map_err(failed)?)),
                    _ => None,
                },
                check: check(service, &filters)?,
                asking: None,
                mounts: None,
            });
        }
        // Chance is for jitter only.
        let state = State::new(manifest.services.iter().map(Rules::of), nanoseconds(clock::now()));
        let supervisor = Self {
            state,
            services,
            epoll,
            signals,
            buttons,
            network,
            conditions: Conditions::default(),
            watchdog: None,
            console,
            console_is_watched: false,
            null: null.into(),
            times,
            buffer: vec![0; READ_SIZE],
        };
        supervisor.watch_all().map_err(failed)?;
        Ok(supervisor)
    }

    fn watch_all(&self) -> nix::Result<()> {
        let watch =
            |fd, source: Source| self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, source.encode()));
        watch(self.signals.as_fd(), Source::Signals)?;
        if let Some(network) = self.network.descriptor() {
            watch(network, Source::Network)?;
        }
        for (index, button) in self.buttons.iter().enumerate() {
            watch(button.descriptor(), Source::Button(index))?;
        }
        for (index, service) in self.services.iter().enumerate() {
            watch(service.output.reader(), Source::Output(index))?;
            if let Some((_, ready)) = &service.ready {
                watch(ready.reader(), Source::Ready(index))?;
            }
            if let Some(notify) = &service.notify {
                watch(notify.descriptor(), Source::Notify(index))?;
            }
        }
        Ok(())
    }

    /// Supervises until the machine ends. From here on `watchdog` is fed by this loop, and by nothing else.
    pub fn run(mut self, watchdog: Option<Watchdog>) -> ! {
        self.watchdog = watchdog;
        let mut events = [EpollEvent::empty(); 32];
        self.apply(Event::Tick);
        loop {
            self.look();
            self.console.flush();
            self.watch_console();
            // Nothing but a signal could fail it, and signals are blocked: all arguments are ours.
            let count = self.epoll.wait(&mut events, self.timeout()).unwrap_or(0);
            for event in events.iter().take(count) {
                if let Some(source) = Source::decode(event.data()) {
                    self.attend(source);
                }
            }
            let now = clock::now();
            if self.state.deadline().is_some_and(|deadline| deadline <= now) {
                self.apply(Event::Tick);
            }
            if self.network.deadline().is_some_and(|deadline| deadline <= now) {
                self.network.attend(now, &mut self.console);
            }
            if let Some(watchdog) = &mut self.watchdog {
                watchdog.attend(now, &mut self.console);
            }
        }
    }

    /// Until the next deadline, rounded up: a wake-up just before it would be one too many.
    fn timeout(&self) -> EpollTimeout {
        let watchdog = self.watchdog.as_ref().map(Watchdog::deadline);
        let deadlines =
            [self.state.deadline(), self.conditions.deadline(), self.network.deadline(), watchdog];
        let Some(deadline) = deadlines.into_iter().flatten().min() else { return EpollTimeout::NONE };
        let milliseconds = deadline.saturating_sub(clock::now()).as_nanos().div_ceil(1_000_000);
        // A time-out that is too long to be one ends early, and the loop comes back here.
        i32::try_from(milliseconds)
            .ok()
            .and_then(|milliseconds| EpollTimeout::try_from(milliseconds).ok())
            .unwrap_or(EpollTimeout::MAX)
    }

    /// Waits for the console only while something waits to be said.
    fn watch_console(&mut self) {
        let Some(descriptor) = self.console.descriptor() else { return };
        let pending = self.console.is_pending();
        if pending == self.console_is_watched {
            return;
        }
        let changed = if pending {
            self.epoll.add(descriptor, EpollEvent::new(EpollFlags::EPOLLOUT, Source::Console.encode()))
        } else {
            self.epoll.delete(descriptor)
        };
        // A console that cannot be waited for is tried again with the next line.
        self.console_is_watched = pending && changed.is_ok();
    }

    fn attend(&mut self, source: Source) {
        match source {
            Source::Signals => self.read_signals(),
            // It is flushed before each wait.
            Source::Console => {}
            Source::Network => self.network.attend(clock::now(), &mut self.console),
            Source::Button(index) => self.read_button(index),
            Source::Output(index) => {
                self.read_output(index);
            }
            Source::Start(index) => self.read_status(index),
            Source::Notify(index) => self.read_notify(index),
            Source::Ready(index) => self.read_ready(index),
        }
    }

    /// Looks at what services wait for of the machine.
    fn look(&mut self) {
        while self.conditions.are_due(&self.state, &self.network, clock::now()) {
            let seen = self.conditions.look(&self.state, &self.network, clock::now());
            seen.into_iter().for_each(|event| self.apply(event));
        }
    }

    fn read_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let asked =
                SIGNALS.iter().find(|(signal, _)| u32::try_from(*signal as i32) == Ok(info.ssi_signo));
            if let Some(&(signal, power)) = asked {
                let cause = if signal == Signal::SIGINT { "Ctrl-Alt-Del" } else { signal.as_str() };
                self.stop(cause, power);
            }
        }
        while let Some((pid, outcome)) = reap::next() {
            if let Some(service) = self.services.iter().position(|service| service.asking == Some(pid)) {
                self.forget(service);
                self.apply(Event::Answered { service, passed: outcome == Outcome::Code(0) });
                continue;
            }
            let pid = supervision::Pid(pid.as_raw());
            if let Some(index) = self.state.service_of(pid) {
                self.read_status(index);
                self.read_notify(index);
                self.read_ready(index);
                self.read_last_words(index);
                if self.services.get(index).is_some_and(|service| service.launch.can_leave_processes()) {
                    self.kill(index);
                }
            }
            self.apply(Event::Exited { pid, outcome });
        }
    }

    /// Begins the machine's end, unless it has begun.
    fn stop(&mut self, cause: &str, power: Power) {
        if self.times.stop.is_none() {
            self.console.say(format_args!("asked to end by {cause}"));
        }
        self.apply(Event::Stop { power });
    }

    fn read_button(&mut self, index: Index) {
        let Some(button) = self.buttons.get_mut(index) else { return };
        match button.was_pressed() {
            Ok(true) => self.stop("the power button", Power::Off),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                // A device that is gone would wake the loop for ever.
                let forgotten = self.epoll.delete(button.descriptor());
                let removed = if forgotten.is_ok() { "removed" } else { "lost" };
                self.console.say(format_args!("a power button was {removed}: {error}"));
            }
            Ok(false) | Err(_) => {}
        }
    }

    /// Says what a service has written, one reading at a time: the others get their turn between. Returns
    /// whether there was something.
    fn read_output(&mut self, index: Index) -> bool {
        let Some(service) = self.services.get_mut(index) else { return false };
        let (console, name) = (&mut self.console, service.name.as_str());
        service.output.read(&mut self.buffer, &mut |line: Line<'_>| console.line(name, line))
    }

    fn read_last_words(&mut self, index: Index) {
        for _ in 0..LAST_READINGS {
            if !self.read_output(index) {
                break;
            }
        }
        let Some(service) = self.services.get_mut(index) else { return };
        let (console, name) = (&mut self.console, service.name.as_str());
        service.output.finish(&mut |line: Line<'_>| console.line(name, line));
    }

    /// Takes note of what a service says of itself.
    fn read_notify(&mut self, index: Index) {
        let Some(notify) = self.services.get(index).and_then(|service| service.notify.as_ref()) else {
            return;
        };
        let mut events = Vec::new();
        notify.read(&mut self.buffer, &mut |word| match word {
            Word::Ready => events.push(Event::Ready { service: index }),
            Word::Alive => events.push(Event::Alive { service: index }),
            // Nobody asks for it yet.
            Word::Status(_) => {}
        });
        events.into_iter().for_each(|event| self.apply(event));
    }

    /// A line, whatever is in it, says that the service is ready.
    fn read_ready(&mut self, index: Index) {
        let Some((_, ready)) = self.services.get_mut(index).and_then(|service| service.ready.as_mut()) else {
            return;
        };
        let mut is_ready = false;
        ready.read(&mut self.buffer, &mut |_| is_ready = true);
        if is_ready {
            self.apply(Event::Ready { service: index });
        }
    }

    /// Reads how far a start has come, and forgets the pipe when that is decided.
    fn read_status(&mut self, index: Index) {
        let Some(service) = self.services.get_mut(index) else { return };
        let Some(status) = &service.status else { return };
        let progress = container::progress(status);
        if progress == Progress::Underway {
            return;
        }
        // Explicitly, because a child that is on its way to exec may still hold a copy of the descriptor, and
        // would keep it in the epoll set.
        if let Err(errno) = self.epoll.delete(status) {
            self.console.say(format_args!("cannot forget a start of `{}`: {}", service.name, errno.desc()));
        }
        service.status = None;
        match progress {
            Progress::Failed(failure) => self.tell_failure(index, &failure),
            // The end of the child says the rest when it was killed before exec.
            Progress::Executed | Progress::Underway => self.apply(Event::Executed { service: index }),
        }
    }

    fn tell_failure(&mut self, index: Index, failure: &Failure) {
        let Some(service) = self.services.get(index) else { return };
        let why = service.launch.explain(failure);
        self.console.say(format_args!("cannot start `{}`: cannot {why}", service.name));
    }

    /// Lets `event` happen, and does what follows, and what follows from that.
    fn apply(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        let mut actions = Vec::new();
        while let Some(event) = events.pop_front() {
            step(&mut self.state, event, clock::now(), &mut actions);
            for action in actions.drain(..) {
                events.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Start(index) => return self.start(index),
            Action::Signal(index, pid) => self.signal(index, Pid::from_raw(pid.0)),
            Action::Kill(index) => self.kill(index),
            Action::Ask(index, question) => return self.ask(index, question),
            Action::Forget(index) => self.stop_asking(index),
            Action::Tell(index, fact) => self.tell_fact(index, fact),
            Action::TellStop(power) => {
                self.times.stop = Some(clock::now());
                self.console.say(format_args!("the machine {}", tell::power(power)));
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

    fn tell_fact(&mut self, index: Index, fact: Fact) {
        let name =
            |index: Index| self.services.get(index).map(|other| other.name.to_string()).unwrap_or_default();
        let mut predicate = tell::predicate(fact, name, self.state.conditions());
        // Memory that is not there ends a service by a signal that could as well be somebody else's.
        if let Fact::Ended(outcome @ Outcome::Signal(number)) = fact
            && number == Signal::SIGKILL as i32
            && let Some(service) = self.services.get_mut(index)
        {
            match service.group.shortage() {
                Ok(None) => {}
                Ok(Some(shortage)) => predicate = format!("{outcome}: {shortage}"),
                Err(error) => self.console.say(format_args!("{error}")),
            }
        }
        self.tell(index, format_args!("{predicate}"));
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
            check: service.check.as_ref(),
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

    fn forget(&mut self, index: Index) -> Option<Pid> {
        self.services.get_mut(index).and_then(|service| service.asking.take())
    }

    fn start(&mut self, index: Index) -> Option<Event> {
        let service = self.services.get_mut(index)?;
        self.times.first_start.get_or_insert_with(clock::now);
        let ready = service
            .ready
            .as_ref()
            .map(|(number, ready)| Numbered { number: *number, descriptor: ready.writer() });
        let stdio = Stdio::Log { input: self.null.as_fd(), output: service.output.writer(), ready };
        let started = container::start(&service.launch, &mut service.group, stdio).map(|started| {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, Source::Start(index).encode());
            match self.epoll.add(&started.status, event) {
                Ok(()) => service.status = Some(started.status),
                // Its failure would go unsaid, but not unseen: the exit code tells as well.
                Err(errno) => self.console.say(format_args!("cannot watch a start: {}", errno.desc())),
            }
            started.pid
        });
        match started {
            Ok(pid) => Some(Event::Started { service: index, pid: supervision::Pid(pid.as_raw()) }),
            Err(error) => {
                self.console.say(format_args!("cannot start `{}`: {error}", service.name));
                Some(Event::NotStarted { service: index })
            }
        }
    }

    fn signal(&mut self, index: Index, pid: Pid) {
        let Some(service) = self.services.get_mut(index) else { return };
        // Layers and memory have nothing to write back. To take a container's mounts apart costs RCU grace
        // periods and the ends of ten file systems, while the next service waits for its signal.
        if !service.launch.has_volumes() {
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

    fn kill(&mut self, index: Index) {
        let Some(service) = self.services.get_mut(index) else { return };
        if let Err(error) = service.group.kill() {
            self.console.say(format_args!("cannot kill `{}`: {error}", service.name));
        }
    }

    fn tell_ready(&mut self) {
        let now = clock::now();
        let report = Report::Ready {
            init_ns: nanoseconds(self.times.init),
            first_start_ns: nanoseconds(self.times.first_start.unwrap_or(now)),
            ready_ns: nanoseconds(now),
        };
        let took = now.saturating_sub(self.times.init).as_secs_f32();
        self.console.say(format_args!("ready after {took:.2} s"));
        self.send(&report);
    }

    fn send(&mut self, report: &Report) {
        if let Err(error) = report::send(report) {
            self.console.say(format_args!("{error}"));
        }
    }

    fn end(&mut self, power: Power, code: u8) -> ! {
        // What follows waits for disks, and has one whole time-out: the kernel stops the watchdog when it ends the
        // machine itself, and a disk that never answers does not keep it from that.
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.feed(clock::now(), &mut self.console);
        }
        shutdown::unmount();
        let off = clock::now();
        let stop = self.times.stop.unwrap_or(off);
        self.send(&Report::Exit { code, stop_ns: nanoseconds(stop), off_ns: nanoseconds(off) });
        let took = off.saturating_sub(stop).as_millis();
        self.console.say(format_args!("everything has ended, within {took} ms"));
        self.console.drain(LAST_WORDS);
        shutdown::end(power)
    }
}

/// The program that checks a service's health: in all but its command like the service's own.
fn check(service: &manifest::Service, filters: &[Rc<Filter>]) -> Result<Option<Process>> {
    let Some(Probe::Exec(argv)) = service.health.as_ref().map(|health| &health.probe) else {
        return Ok(None);
    };
    let container = manifest::Container { argv: argv.clone(), ..service.container.clone() };
    Process::prepare(&container, filters).map(Some)
}
