//! The control channel: whoever may talk to the machine, and what comes of it.
//!
//! The loop calls [`Supervisor::serve`] before it waits. It does a bounded piece for each client and says whether there is more to
//! do at once, so that no client holds up another one or a service.

mod answer;
mod connection;
#[cfg(feature = "exec")]
mod exec;
#[cfg(not(feature = "exec"))]
#[path = "no_exec.rs"]
mod exec;
mod listener;
mod session;
mod usage;

use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use manifest::Name;
use manifest::control::{self, Answer, Ask, BootReport, PORT, REQUEST_MAX, Request, VERSION};
use nix::libc;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::unistd::Pid;
use supervision::{Event, Index, Order, Outcome};

use super::main_loop::Supervisor;
use super::source::Source;
use crate::clock;
use crate::error::{Error, Result};
use crate::log::Console;
use crate::ports;
use answer::View;
use connection::{Connection, Line};
use exec::{Programs, Slot};
use listener::{Listener, Visitor};
use session::{Next, Session, Work};

/// How many clients there can be at a time, beside the host's port.
const CONNECTIONS: usize = 32;
/// How many who want to be clients are looked at in a turn.
const VISITORS: usize = 32;
/// How many answers may be underway on one connection.
const SESSIONS: usize = 64;
/// How many lines of one client are answered in a turn, and how many parts of answers are made.
const PARTS: usize = 256;
/// When there was no descriptor for a client, until it is tried again.
const SHORTAGE_PAUSE: Duration = Duration::from_secs(1);
/// From the first look for the host's port to the next; each further pause is twice as long.
const PORT_FIRST_PAUSE: Duration = Duration::from_millis(10);
/// With a longer pause the port is not looked for any more: its announcement has had ten seconds.
const PORT_LAST_PAUSE: Duration = Duration::from_secs(6);

/// All clients.
#[derive(Default)]
pub struct Control {
    /// The host's port, once it is there, has the first place.
    clients: Vec<Option<Client>>,
    listeners: Vec<Listener>,
    /// Which of them has the next turn.
    turn: usize,
    /// Until when nobody is accepted, because there was no descriptor for the last one.
    shortage: Option<Duration>,
    /// Whether somebody on the vsock was sent away, which is said once.
    has_refused: bool,
    programs: Programs,
    /// When the port is looked for next, and how long after that.
    port: Option<(Duration, Duration)>,
}

/// A connection and what it has asked for.
struct Client {
    connection: Connection,
    sessions: Vec<Session>,
    /// Whether it is the host's port, which is never closed.
    is_port: bool,
}

impl Control {
    /// Makes the sockets of `services`, and listens to the vsock if `allowed` says so.
    pub fn new<'a>(
        allowed: manifest::Control,
        services: impl Iterator<Item = &'a Name>,
        epoll: &Epoll,
    ) -> Result<Self> {
        let mut listeners: Vec<Listener> = services.map(Listener::of_service).collect::<Result<_>>()?;
        if let Some(port) = allowed.vsock {
            listeners.push(Listener::vsock(port)?);
        }
        for (place, listener) in listeners.iter().enumerate() {
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
            epoll
                .add(listener.descriptor(), EpollEvent::new(flags, Source::Listener(place).encode()))
                .map_err(|errno| Error::new("wait for", "clients of the control channel", errno))?;
        }
        let port = Some((clock::now(), PORT_FIRST_PAUSE));
        let programs = Programs::new(allowed);
        Ok(Self { clients: vec![None], listeners, programs, port, ..Self::default() })
    }

    /// When something has to be done even if nobody says anything.
    pub fn deadline(&self) -> Option<Duration> {
        self.port.map(|(next, _)| next).into_iter().chain(self.shortage).min()
    }

    /// Takes note of an event of a listener.
    pub fn wake_listener(&mut self, place: usize) {
        if let Some(listener) = self.listeners.get_mut(place) {
            listener.wake();
        }
    }

    /// Takes note of an event of a connection, and whether its other side is gone.
    pub fn wake_client(&mut self, place: usize, is_gone: bool, epoll: &Epoll) {
        let Some(Some(client)) = self.clients.get_mut(place) else { return };
        client.connection.wake();
        if is_gone {
            self.hang_up(place, epoll);
        }
    }

    /// Takes note of the end of a process. Says whether it was a client's.
    pub fn reaped(&mut self, pid: Pid, outcome: Outcome) -> bool {
        self.programs.reaped(pid, outcome)
    }

    /// Ends everything that a client has asked for, and the client itself unless it is the port.
    fn hang_up(&mut self, place: usize, epoll: &Epoll) {
        let Some(slot) = self.clients.get_mut(place) else { return };
        let Some(client) = slot else { return };
        let sessions = std::mem::take(&mut client.sessions);
        if client.is_port {
            client.connection.reset();
        } else {
            // Explicitly: see `exec`.
            let (Ok(()) | Err(_)) = epoll.delete(client.connection.descriptor());
            *slot = None;
        }
        sessions.into_iter().for_each(|session| self.cancel(&session.work, epoll));
    }

    /// What runs for a session that nobody listens to any more is killed.
    fn cancel(&mut self, work: &Work, epoll: &Epoll) {
        if let Work::Exec(slot) = work {
            self.programs.cancel(*slot, epoll);
        }
    }

    /// Looks for the host's port, for a while after the boot: its announcement takes its time.
    fn find_port(&mut self, epoll: &Epoll) {
        let Some((next, pause)) = self.port else { return };
        let now = clock::now();
        if now < next {
            return;
        }
        self.port = (pause < PORT_LAST_PAUSE).then_some((now + pause, pause * 2));
        let Some(node) = ports::node(PORT) else { return };
        let options = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(node);
        // Somebody else has it: a service whose config says so.
        let Ok(file) = options else { return };
        if let Some(place) = self.clients.first_mut()
            && watch(epoll, 0, &file).is_ok()
        {
            *place = Some(Client::new(file.into(), true));
            self.port = None;
        }
    }

    /// Takes clients that wait, as many as there is room for. Returns whether there may be more who are to be looked at.
    fn accept(&mut self, epoll: &Epoll, console: &mut Console) -> bool {
        if self.shortage.is_some_and(|until| clock::now() < until) {
            return false;
        }
        self.shortage = None;
        for _ in 0..VISITORS {
            let free = self.clients.iter().skip(1).position(Option::is_none).map(|place| place + 1);
            let place = free.unwrap_or(self.clients.len());
            if place > CONNECTIONS {
                return false;
            }
            match self.next_visitor() {
                None => return false,
                // Nobody says when there is one again.
                Some(Visitor::Shortage) => {
                    self.shortage = Some(clock::now() + SHORTAGE_PAUSE);
                    return false;
                }
                Some(Visitor::Client(stream)) if watch(epoll, place, &stream).is_ok() => {
                    if place == self.clients.len() {
                        self.clients.push(None);
                    }
                    if let Some(slot) = self.clients.get_mut(place) {
                        *slot = Some(Client::new(stream, false));
                    }
                }
                Some(Visitor::Stranger(number)) if !self.has_refused => {
                    self.has_refused = true;
                    console.say(format_args!(
                        "sent somebody away from the control channel: {number} on the vsock is not the host"
                    ));
                }
                Some(Visitor::Client(_) | Visitor::Stranger(_) | Visitor::Nobody) => {}
            }
        }
        true
    }

    /// Looks at one listener where somebody may be. They have turns, so that nobody who comes again and again keeps the
    /// clients of others waiting.
    fn next_visitor(&mut self) -> Option<Visitor> {
        let (before, after) = self.listeners.split_at_mut_checked(self.turn)?;
        let mut all = after.iter_mut().chain(before).enumerate();
        let (steps, listener) = all.find(|(_, listener)| listener.is_waiting())?;
        let visitor = listener.accept();
        self.turn = (self.turn + steps + 1) % self.listeners.len();
        Some(visitor)
    }
}

impl Client {
    fn new(stream: OwnedFd, is_port: bool) -> Self {
        Self { connection: Connection::new(stream), sessions: Vec::new(), is_port }
    }

    fn error(&mut self, id: u64, why: impl Into<String>) {
        self.connection.send(id, Answer::Error { why: why.into() });
    }

    /// Whether nobody will miss it. The port is not let go of, but begins anew: its host may have another client for it.
    fn is_over(&self) -> bool {
        let connection = &self.connection;
        connection.is_broken()
            || !self.is_port && connection.has_ended() && self.sessions.is_empty() && connection.is_flushed()
    }
}

fn watch(epoll: &Epoll, place: usize, descriptor: &impl AsFd) -> nix::Result<()> {
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    epoll.add(descriptor, EpollEvent::new(flags, Source::Client(place).encode()))
}

impl Supervisor {
    /// Does a piece of what clients want. Returns whether there is more to do at once.
    pub(super) fn serve(&mut self) -> bool {
        let mut control = std::mem::take(&mut self.control);
        control.find_port(&self.epoll);
        let mut progress = control.accept(&self.epoll, &mut self.console);
        for place in 0..control.clients.len() {
            progress |= self.serve_client(&mut control, place);
            let is_over = |client: &Option<Client>| client.as_ref().is_some_and(Client::is_over);
            if control.clients.get(place).is_some_and(is_over) {
                control.hang_up(place, &self.epoll);
                progress = true;
            }
        }
        self.control = control;
        progress
    }

    fn serve_client(&mut self, control: &mut Control, place: usize) -> bool {
        // Out of its place, so that what it asks for can change the others.
        let Some(mut client) = control.clients.get_mut(place).and_then(Option::take) else { return false };
        let mut progress = client.connection.flush();
        progress |= client.connection.read(&mut self.buffer);
        for _ in 0..PARTS {
            if !client.connection.has_room() {
                break;
            }
            let Some(line) = client.connection.next_line() else { break };
            progress = true;
            match line {
                Line::TooLong => client.error(0, format!("a request has at most {REQUEST_MAX} bytes")),
                Line::Text(line) => match serde_json::from_slice::<Request>(&line) {
                    Ok(request) => self.take(control, &mut client, request),
                    Err(error) => client.error(0, format!("this is no request: {error}")),
                },
            }
        }
        progress |= self.answer(control, &mut client);
        progress |= client.connection.flush();
        if let Some(slot) = control.clients.get_mut(place) {
            *slot = Some(client);
        }
        progress
    }

    /// How the machine came up, as one line.
    pub(super) fn boot_report(&self) -> Option<String> {
        let view = self.view();
        let nodes = (0..self.services.len()).filter_map(|index| answer::node(&view, index)).collect();
        serde_json::to_string(&BootReport { boot: answer::boot(&view), nodes }).ok()
    }

    fn view(&self) -> View<'_> {
        View {
            name: &self.name,
            state: &self.state,
            services: &self.services,
            history: &self.history,
            times: &self.times,
            previous: self.previous.as_ref(),
        }
    }

    /// Goes on with every answer, each a bit.
    fn answer(&mut self, control: &mut Control, client: &mut Client) -> bool {
        let mut progress = false;
        let mut place = 0;
        while place < client.sessions.len() {
            let Some(session) = client.sessions.get_mut(place) else { break };
            let mut is_over = false;
            for _ in 0..PARTS {
                if !client.connection.has_room() {
                    break;
                }
                let next = match session.work {
                    Work::Exec(slot) => control.programs.next(slot, &self.epoll),
                    ref mut work => work.next(&self.view()),
                };
                match next {
                    Next::Nothing => break,
                    Next::Part(answer) => client.connection.send(session.id, answer),
                    Next::End(answer) => {
                        client.connection.send(session.id, answer);
                        is_over = true;
                        break;
                    }
                }
                progress = true;
            }
            if is_over {
                client.sessions.remove(place);
                progress = true;
            } else {
                place += 1;
            }
        }
        // Whoever was last has the first turn next time.
        if client.sessions.len() > 1 {
            client.sessions.rotate_left(1);
        }
        progress
    }

    /// Does what a line asks for, or begins to.
    fn take(&mut self, control: &mut Control, client: &mut Client, request: Request) {
        let Request { id, ask } = request;
        let known = client.sessions.iter().position(|session| session.id == id);
        match (ask, known) {
            (Ask::Hello, _) => {
                let sessions = std::mem::take(&mut client.sessions);
                sessions.iter().for_each(|session| control.cancel(&session.work, &self.epoll));
                client.connection.send(id, Answer::Hello { version: VERSION, name: self.name.clone() });
                client.connection.send(id, Answer::Done);
            }
            (Ask::Cancel, Some(known)) => {
                let session = client.sessions.remove(known);
                control.cancel(&session.work, &self.epoll);
                client.connection.send(id, Answer::Done);
            }
            // It has ended meanwhile, as its client will read.
            (Ask::Cancel | Ask::Input { .. } | Ask::InputEnd | Ask::Resize(_) | Ask::Signal { .. }, None) => {
            }
            (
                ask @ (Ask::Input { .. } | Ask::InputEnd | Ask::Resize(_) | Ask::Signal { .. }),
                Some(known),
            ) => {
                if let Some(Session { work: Work::Exec(slot), .. }) = client.sessions.get(known)
                    && let Err(why) = control.programs.tell(*slot, ask)
                {
                    control.programs.cancel(*slot, &self.epoll);
                    client.sessions.remove(known);
                    client.error(id, why);
                }
            }
            (_, Some(_)) => client.error(0, format!("session {id} has not ended")),
            (_, None) if client.sessions.len() >= SESSIONS => {
                client.error(id, format!("{SESSIONS} answers are underway already: cancel one first"));
            }
            (ask, None) => {
                let work = self.begin(control, ask);
                client.sessions.push(Session { id, work });
            }
        }
    }

    fn begin(&mut self, control: &mut Control, ask: Ask) -> Work {
        let result = match ask {
            Ask::Order { service, order } => self.obey(&service, order),
            Ask::Power { power } => {
                self.stop("the control channel", power);
                Ok(())
            }
            Ask::Exec(request) => match self.run_program(control, &request) {
                Ok(slot) => return Work::Exec(slot),
                Err(why) => Err(why),
            },
            ask => match Work::begin(ask, &self.view()) {
                Some(work) => return work,
                None => Err("this belongs to a session".to_owned()),
            },
        };
        Work::Over(match result {
            Ok(()) => Answer::Done,
            Err(why) => Answer::Error { why },
        })
    }

    fn obey(&mut self, name: &Name, order: Order) -> std::result::Result<(), String> {
        let index = self.view().find(name)?;
        if self.state.is_ending() {
            return Err("the machine goes down".to_owned());
        }
        if self.state.services().get(index).is_some_and(|service| service.is_of_shutdown()) {
            return Err(format!("`{name}` runs when the machine goes down, and only then"));
        }
        let word = match order {
            Order::Start => "start",
            Order::Stop => "stop",
            Order::Restart => "restart",
        };
        self.console.say(format_args!("asked to {word} `{name}` by the control channel"));
        self.apply(Event::Order { service: index, order });
        Ok(())
    }

    fn run_program(
        &mut self,
        control: &mut Control,
        request: &control::Exec,
    ) -> std::result::Result<Slot, String> {
        let index: Index = self.view().find(&request.service)?;
        let (Some(life), Some(service)) = (self.state.services().get(index), self.services.get(index)) else {
            return Err(format!("no service is called `{}`", request.service));
        };
        control.programs.begin(request, (service, &life.run), &self.epoll)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::epoll::EpollCreateFlags;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_port_that_is_broken_begins_anew_and_another_client_is_gone() {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let mut control = Control { clients: vec![None, None], ..Control::default() };
        for (place, is_port) in [(0, true), (1, false)] {
            let (machine, other) = UnixStream::pair().unwrap();
            let mut client = Client::new(machine.into(), is_port);
            client.sessions.push(Session { id: 1, work: Work::Status(None) });
            client.connection.send(1, Answer::Done);
            drop(other);
            client.connection.flush();
            assert!(client.connection.is_broken() && client.is_over());
            control.clients[place] = Some(client);
            control.hang_up(place, &epoll);
        }
        let port = control.clients[0].as_ref().unwrap();
        assert!(!port.is_over() && port.sessions.is_empty() && port.connection.has_room());
        assert!(control.clients[1].is_none());
    }
}
