//! The loop itself. From its first turn on, nothing may end the process or make it wait anywhere else.

use std::fs::OpenOptions;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use manifest::control::{Previous, TARGET};
use manifest::{Manifest, Name};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use supervision::{Event, Index, Outcome, Power, Rules, State};

use super::buttons::Button;
use super::conditions::Conditions;
use super::control::Control;
use super::history::History;
use super::notify::Word;
use super::output::READ_SIZE;
use super::reap;
use super::sinks::Sinks;
use super::source::Source;
use super::supervised::Supervised;
use crate::clock::{self, nanoseconds};
use crate::container::{self, Origin, Parent, Progress, Shared};
use crate::error::{Error, Result};
use crate::log::{Console, Line, Speaker};
use crate::net::Network;
use crate::pool::Pool;
use crate::watchdog::Watchdog;

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

/// How many signals are read, and how many processes are reaped, in a turn: others may end as fast as that.
const ENDS: usize = 64;

/// How long a turn goes on reaping. What ends may start again in the same moment, and a start takes its time: clients and
/// others wait for that meanwhile.
const REAPING: Duration = Duration::from_millis(20);

/// How often a dead service's pipe is read at most: once is all that it holds, unless somebody else writes to it.
const LAST_READINGS: usize = 4;

/// The moments that the report tells.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// init's first instruction.
    pub init: Duration,
    /// When services could start.
    pub supervised: Option<Duration>,
    /// The first clone.
    pub first_start: Option<Duration>,
    /// When everything had come as far as it should.
    pub ready: Option<Duration>,
    /// When the end began.
    pub stop: Option<Duration>,
}

impl From<Duration> for Times {
    /// Of a machine whose init has begun then, and that is all.
    fn from(init: Duration) -> Self {
        Self { init, supervised: None, first_start: None, ready: None, stop: None }
    }
}

/// The supervised machine, with everything that it waits for.
pub struct Supervisor {
    pub(super) name: Name,
    pub(super) state: State,
    pub(super) services: Vec<Supervised>,
    pub(super) epoll: Epoll,
    pub(super) signals: SignalFd,
    pub(super) buttons: Vec<Button>,
    pub(super) network: Network,
    pub(super) conditions: Conditions,
    pub(super) watchdog: Option<Watchdog>,
    /// Whether more processes may have ended than one turn reaps.
    pub(super) has_unreaped: bool,
    pub(super) console: Console,
    pub(super) console_is_watched: bool,
    pub(super) sinks: Sinks,
    pub(super) history: History,
    pub(super) control: Control,
    /// Every container's standard input.
    pub(super) null: OwnedFd,
    /// Where containers have their descriptors from: this process, whose further ones are no business of theirs.
    pub(super) origin: Origin,
    pub(super) times: Times,
    /// How the boot before ended, if that is known.
    pub(super) previous: Option<Previous>,
    /// What one reading goes to; kept, so that reading allocates nothing. Only what is ever read to takes memory.
    pub(super) buffer: Box<[MaybeUninit<u8>]>,
}

impl Supervisor {
    /// Gets everything ready that can fail. `watchdog` is fed meanwhile: with a thousand services it takes its time.
    pub fn new(
        manifest: &Manifest,
        network: Network,
        mut console: Console,
        times: Times,
        previous: Option<Previous>,
        mut watchdog: Option<Watchdog>,
    ) -> Result<Self> {
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
        let origin = Origin::this()?;
        let buttons = Button::find();
        let mut shared = Shared::new(&manifest.seccomp);
        let logs = manifest.services.iter().map(|service| service.logging.size).fold(0, u64::saturating_add);
        let parent = Parent::make(manifest.services.iter().map(|service| &service.container), logs)?;
        let mut services = Vec::with_capacity(manifest.services.len());
        for service in &manifest.services {
            console.widen(service.name.as_str().len());
            let limits = &service.container.limits;
            if let Some(memory) = parent.exceeded_by(limits) {
                let (name, memory) = (&service.name, memory >> 20);
                console.say(format_args!("`{name}` may have more memory than the machine's {memory} MiB"));
            }
            services.push(Supervised::prepare(service, &mut shared, &parent)?);
            if let Some(watchdog) = &mut watchdog {
                watchdog.attend(clock::now(), &mut console);
            }
        }
        let controlling = manifest
            .services
            .iter()
            .filter(|service| service.container.sockets.iter().any(|socket| socket.target == TARGET));
        let control = Control::new(manifest.control, controlling.map(|service| &service.name), &epoll)?;
        let mut known = Pool::default();
        let rules = manifest.services.iter().map(|service| known.keep(Rules::of(service)));
        // Chance is for jitter only.
        let state = State::new(rules, nanoseconds(clock::now()));
        let supervisor = Self {
            name: manifest.name.clone(),
            state,
            services,
            epoll,
            signals,
            buttons,
            network,
            conditions: Conditions::default(),
            watchdog,
            has_unreaped: false,
            console,
            console_is_watched: false,
            sinks: Sinks::prepare(manifest)?,
            history: History::default(),
            control,
            null: null.into(),
            origin,
            times,
            previous,
            buffer: Box::new_uninit_slice(READ_SIZE),
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
        if let Some(syslog) = &self.sinks.syslog {
            watch(syslog.descriptor(), Source::Syslog)?;
        }
        if let Some(files) = &self.sinks.files {
            watch(files.descriptor(), Source::Files)?;
        }
        for (index, button) in self.buttons.iter().enumerate() {
            watch(button.descriptor(), Source::Button(index))?;
        }
        for (index, service) in self.services.iter().enumerate() {
            watch(service.output.reader(), Source::Output(index))?;
            if let Some((_, ready)) = service.ready.as_deref() {
                watch(ready.reader(), Source::Ready(index))?;
            }
            if let Some(notify) = &service.notify {
                watch(notify.descriptor(), Source::Notify(index))?;
            }
        }
        Ok(())
    }

    /// Supervises until the machine ends. From here on the watchdog is fed by this loop, and by each start in it.
    pub fn run(mut self) -> ! {
        self.times.supervised = Some(clock::now());
        let mut events = [EpollEvent::empty(); 32];
        self.apply(Event::Tick);
        loop {
            self.look();
            self.attend_sinks();
            self.console.flush();
            self.watch_console();
            // Nothing but a signal could fail it, and signals are blocked: all arguments are ours.
            let has_more = self.serve() || self.has_unreaped;
            let timeout = if has_more { EpollTimeout::ZERO } else { self.timeout() };
            let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
            for event in events.iter().take(count) {
                if let Some(source) = Source::decode(event.data()) {
                    self.attend(source, event.events());
                }
            }
            if self.has_unreaped {
                self.reap();
            }
            let now = clock::now();
            if self.state.deadline().is_some_and(|deadline| deadline <= now) {
                self.apply(Event::Tick);
            }
            if self.network.deadline().is_some_and(|deadline| deadline <= now) {
                self.network.attend(now, &mut self.console);
            }
            self.attend_watchdog();
        }
    }

    /// Feeds the watchdog, unless it was fed a moment ago.
    pub(super) fn attend_watchdog(&mut self) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.attend(clock::now(), &mut self.console);
        }
    }

    /// Until the next deadline, rounded up: a wake-up just before it would be one too many.
    fn timeout(&self) -> EpollTimeout {
        let watchdog = self.watchdog.as_ref().map(Watchdog::deadline);
        let deadlines = [
            self.state.deadline(),
            self.conditions.deadline(),
            self.network.deadline(),
            self.control.deadline(),
            self.sinks.deadline(),
            watchdog,
        ];
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

    fn attend(&mut self, source: Source, seen: EpollFlags) {
        match source {
            Source::Signals => self.read_signals(),
            // They are attended before each wait.
            Source::Console | Source::Syslog | Source::Files => {}
            Source::Network => self.network.attend(clock::now(), &mut self.console),
            Source::Button(index) => self.read_button(index),
            Source::Output(index) => {
                self.read_output(index);
            }
            Source::Start(index) => self.read_status(index),
            Source::Notify(index) => self.read_notify(index),
            Source::Ready(index) => self.read_ready(index),
            Source::Listener(place) => self.control.wake_listener(place),
            Source::Client(place) => {
                let is_gone = seen.contains(EpollFlags::EPOLLHUP);
                self.control.wake_client(place, is_gone, &self.epoll);
            }
            // It is asked before each wait.
            Source::Exec(_) => {}
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
        for _ in 0..ENDS {
            let Ok(Some(info)) = self.signals.read_signal() else { break };
            let asked =
                SIGNALS.iter().find(|(signal, _)| u32::try_from(*signal as i32) == Ok(info.ssi_signo));
            if let Some(&(signal, power)) = asked {
                let cause = if signal == Signal::SIGINT { "Ctrl-Alt-Del" } else { signal.as_str() };
                self.stop(cause, power);
            }
        }
        self.reap();
    }

    /// Reaps some of those that have ended. A service that makes orphans without end is not to keep the loop here.
    fn reap(&mut self) {
        self.has_unreaped = true;
        let begun = clock::now();
        for _ in 0..ENDS {
            if clock::now() - begun > REAPING {
                break;
            }
            let Some((pid, mut outcome)) = reap::next() else {
                self.has_unreaped = false;
                break;
            };
            if let Some(service) = self.services.iter().position(|service| service.asking == Some(pid)) {
                self.forget(service);
                self.apply(Event::Answered { service, passed: outcome == Outcome::Code(0) });
                continue;
            }
            if self.control.reaped(pid, outcome) || self.reap_of_sinks(pid) {
                continue;
            }
            let pid = supervision::Pid(pid.as_raw());
            if let Some(index) = self.state.service_of(pid) {
                self.lend_no_more(index);
                self.read_status(index);
                self.read_notify(index);
                self.read_ready(index);
                self.read_last_words(index);
                outcome = self.read_ending(index).unwrap_or(outcome);
                if self.services.get(index).is_some_and(|service| service.launch.can_leave_processes()) {
                    self.kill(index);
                }
            }
            self.apply(Event::Exited { pid, outcome });
        }
    }

    /// Begins the machine's end, unless it has begun.
    pub(super) fn stop(&mut self, cause: &str, power: Power) {
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

    /// Keeps and says what a service has written, one reading at a time: the others get their turn between. Returns
    /// whether there was something.
    fn read_output(&mut self, index: Index) -> bool {
        let Some(service) = self.services.get_mut(index) else { return false };
        let bytes = service.output.read(&mut self.buffer);
        if bytes.is_empty() {
            return false;
        }
        service.ring.append(clock::now(), bytes);
        // Lines are looked for only where somebody sees them.
        if !self.console.is_silent() {
            let speaker = Speaker { name: service.name.as_str(), number: index };
            service.output.complete(bytes, &mut |line: Line<'_>| self.console.line(speaker, line));
        }
        true
    }

    fn read_last_words(&mut self, index: Index) {
        for _ in 0..LAST_READINGS {
            if !self.read_output(index) {
                break;
            }
        }
        let Some(service) = self.services.get_mut(index) else { return };
        let (console, speaker) = (&mut self.console, Speaker { name: service.name.as_str(), number: index });
        service.output.finish(&mut |line: Line<'_>| console.line(speaker, line));
        service.ring.finish(clock::now());
    }

    /// How a service's program has ended, where another process was the first one.
    fn read_ending(&mut self, index: Index) -> Option<Outcome> {
        let ending = self.services.get_mut(index)?.ending.take()?;
        ending.read().map(|end| match end {
            container::End::Code(code) => Outcome::Code(code),
            container::End::Signal(signal) => Outcome::Signal(signal.into()),
        })
    }

    /// Takes note of what a service says of itself.
    fn read_notify(&mut self, index: Index) {
        let Some(service) = self.services.get_mut(index) else { return };
        let Some(notify) = &service.notify else { return };
        let mut events = Vec::new();
        notify.read(&mut self.buffer, &mut |word| match word {
            Word::Ready => events.push(Event::Ready { service: index }),
            Word::Alive => events.push(Event::Alive { service: index }),
            Word::Status(status) => service.says = Some(status.into()),
        });
        events.into_iter().for_each(|event| self.apply(event));
    }

    /// A line, whatever is in it, says that the service is ready.
    fn read_ready(&mut self, index: Index) {
        let Some((_, ready)) = self.services.get_mut(index).and_then(|service| service.ready.as_deref_mut())
        else {
            return;
        };
        let mut is_ready = false;
        let bytes = ready.read(&mut self.buffer);
        ready.complete(bytes, &mut |_| is_ready = true);
        if is_ready {
            self.apply(Event::Ready { service: index });
        }
    }

    /// The child of a start that is dead takes nothing any more, and then its pipe has an end.
    fn lend_no_more(&mut self, index: Index) {
        if let Some(status) = self.services.get_mut(index).and_then(|service| service.status.as_mut()) {
            status.let_go();
        }
    }

    /// Reads how far a start has come, and forgets the pipe when that is decided.
    fn read_status(&mut self, index: Index) {
        let Some(service) = self.services.get_mut(index) else { return };
        let Some(status) = &mut service.status else { return };
        let progress = status.progress();
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
}
