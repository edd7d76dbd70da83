//! Lets any number of clients talk to the machine over its one port `coracle.ctl`.
//!
//! Nothing that goes wrong here disturbs the run. Per client, one thread reads and one writes; the thread that reads the
//! machine's line waits for nobody, so that no client can keep the others waiting.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use manifest::Name;
use manifest::control::{Request, Response};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::Serialize;

use super::switchboard::{Client, Sent, Switchboard};
use crate::error::{Context, Result};
use crate::machines::{Machines, Record};
use crate::progress::say;

/// The longest line that is taken, of clients and of the machine.
const LINE_MAX: u64 = 1 << 20;
/// A client for whom so much waits does not read.
const WAITING_MAX: usize = 8 << 20;
/// How many clients there may be at a time. Each has two threads.
const CLIENTS_MAX: usize = 100;
/// How often a machine is greeted that has not answered: QEMU may lose what nobody in the machine reads yet.
const GREET_AGAIN: Duration = Duration::from_millis(500);
/// And how often one that did not answer for a minute.
const GREET_SELDOM: Duration = Duration::from_secs(10);
/// How long clients may take to read what has been said when the machine has ended.
const FAREWELL: Duration = Duration::from_secs(2);

/// The broker of a machine that runs.
#[derive(Debug)]
pub struct Broker {
    hall: Arc<Hall>,
    /// The way to the machine, to be closed whoever is writing.
    machine: UnixStream,
    /// Where clients find the machine, until its end.
    _record: Record,
}

/// What the threads share.
#[derive(Debug)]
struct Hall {
    /// The way to the machine. Whoever waits for it holds nothing else.
    machine: Mutex<UnixStream>,
    state: Mutex<State>,
    /// Told when a client has gone.
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    board: Switchboard,
    guests: BTreeMap<Client, Guest>,
    /// The number of the last client.
    last: Client,
    /// How many have not read all that was said to them.
    writers: usize,
    is_over: bool,
}

/// A client that is there.
#[derive(Debug)]
struct Guest {
    stream: UnixStream,
    queue: Sender<Vec<u8>>,
    /// How many bytes are in the queue.
    waiting: Arc<AtomicUsize>,
}

impl Broker {
    /// Records the machine and serves those who come, over `machine`, the other end of which is QEMU's.
    pub fn start(name: &Name, machine: &UnixStream) -> Result<Self> {
        Self::start_in(Machines::here()?, name, machine)
    }

    fn start_in(machines: Machines, name: &Name, machine: &UnixStream) -> Result<Self> {
        let (record, listener) = machines.record(name)?;
        let copy = || machine.try_clone().doing(|| "copy the machine's line");
        let (line, to_machine, machine) = (copy()?, copy()?, copy()?);
        let state = Mutex::default();
        let hall = Arc::new(Hall { machine: Mutex::new(to_machine), state, left: Condvar::new() });
        let (one, two, three) = (Arc::clone(&hall), Arc::clone(&hall), Arc::clone(&hall));
        thread::spawn(move || one.welcome(&listener));
        thread::spawn(move || two.hear(line));
        thread::spawn(move || three.greet());
        Ok(Self { hall, machine, _record: record })
    }
}

impl Drop for Broker {
    /// Lets clients read the machine's last words.
    fn drop(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        // QEMU is gone, or was never there, in which case this end is all that there is.
        drop(self.machine.shutdown(Shutdown::Write));
        let mut state = self.hall.lock();
        while let Some(rest) = deadline.checked_duration_since(Instant::now())
            && (state.writers > 0 || !state.is_over)
        {
            (state, _) = self.hall.left.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Hall {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the machine greetings until it answers.
    fn greet(&self) {
        let begun = Instant::now();
        while let Some(greeting) = self.next_greeting() {
            self.send(&greeting);
            let is_late = begun.elapsed() > Duration::from_secs(60);
            thread::sleep(if is_late { GREET_SELDOM } else { GREET_AGAIN });
        }
    }

    fn next_greeting(&self) -> Option<Request> {
        let mut state = self.lock();
        if state.is_over { None } else { state.board.greet() }
    }

    /// Takes clients as they come.
    fn welcome(self: &Arc<Self>, listener: &UnixListener) {
        for stream in listener.incoming() {
            if let Err(error) = stream.and_then(|stream| self.admit(stream)) {
                say(format_args!("cannot talk to a client of `coracle ctl`: {error}"));
                // Such as a lack of descriptors, which is not over at once.
                thread::sleep(GREET_AGAIN);
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: UnixStream) -> io::Result<()> {
        let (input, output) = (stream.try_clone()?, stream.try_clone()?);
        let (queue, queued) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let guest = Guest { stream, queue, waiting: Arc::clone(&waiting) };
        let mut state = self.lock();
        if state.guests.len() >= CLIENTS_MAX || state.is_over {
            return Ok(());
        }
        state.last += 1;
        state.writers += 1;
        let client = state.last;
        state.guests.insert(client, guest);
        drop(state);
        let (reader, writer) = (Arc::clone(self), Arc::clone(self));
        thread::spawn(move || reader.attend(client, input));
        thread::spawn(move || {
            write_all(output, &queued, &waiting);
            writer.lock().writers -= 1;
            writer.left.notify_all();
        });
        Ok(())
    }

    /// Reads a client's lines until it goes.
    fn attend(&self, client: Client, input: UnixStream) {
        let mut input = BufReader::new(input);
        let mut line = Vec::new();
        while let Ok(true) = read_line(&mut input, &mut line) {
            let sent = self.lock().board.client_says(client, &line);
            self.deliver(sent);
        }
        // It may have said all that it wanted to, and still listen.
        if line.is_empty() {
            while !self.is_served(client) && is_there(input.get_ref()) {}
        }
        let sent = self.lock().board.client_leaves(client);
        self.deliver(sent);
        self.lock().guests.remove(&client);
    }

    fn is_served(&self, client: Client) -> bool {
        let state = self.lock();
        let is_flushed = |guest: &Guest| guest.waiting.load(Ordering::Relaxed) == 0;
        state.guests.get(&client).is_none_or(is_flushed) && state.board.is_idle(client)
    }

    /// Reads the machine's lines until its end.
    fn hear(&self, machine: UnixStream) {
        let mut machine = BufReader::new(machine);
        let mut line = Vec::new();
        let mut has_complained = false;
        while let Ok(true) = read_line(&mut machine, &mut line) {
            let heard = self.lock().board.machine_says(&line);
            if heard.is_none() && !has_complained {
                has_complained = true;
                say("the machine's control channel says what nobody here understands");
            }
            // To clients alone: the machine is never written to from here, where it would wait for this thread.
            self.deliver(heard.unwrap_or_default());
        }
        let mut state = self.lock();
        state.is_over = true;
        // Their threads write what is left, and end.
        state.guests.clear();
        self.left.notify_all();
    }

    fn deliver(&self, sent: Vec<Sent>) {
        for one in sent {
            match one {
                Sent::Machine(request) => self.send(&request),
                Sent::Client(client, response) => self.answer(client, &response),
            }
        }
    }

    fn send(&self, request: &impl Serialize) {
        let line = as_line(request);
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        // A machine that has ended is noticed by the thread that reads.
        drop(machine.write_all(&line));
    }

    fn answer(&self, client: Client, response: &Response) {
        let line = as_line(response);
        let mut state = self.lock();
        let Some(guest) = state.guests.get(&client) else { return };
        let waiting = guest.waiting.fetch_add(line.len(), Ordering::Relaxed) + line.len();
        // Fails when its thread has ended, because the client has.
        if waiting > WAITING_MAX || guest.queue.send(line).is_err() {
            // Both threads notice, and the one that reads cancels its sessions.
            drop(guest.stream.shutdown(Shutdown::Both));
            state.guests.remove(&client);
        }
    }
}

/// Whether somebody still listens there, after a moment.
fn is_there(stream: &UnixStream) -> bool {
    let moment = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    let mut watched = [PollFd::new(stream, PollFlags::empty())];
    // What is not asked for is told all the same: that the other side has hung up.
    matches!(poll(&mut watched, Some(&moment)), Ok(0) | Err(Errno::INTR))
}

fn as_line(message: &impl Serialize) -> Vec<u8> {
    // What is defined here has no maps with other keys than text: it can be written.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Reads a line without its end. False at the end of all, and of a line that is too long or has no end.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    input.take(LINE_MAX).read_until(b'\n', line)?;
    Ok(line.pop_if(|byte| *byte == b'\n').is_some())
}

/// Writes what is in a client's queue, until the queue is given up and empty.
fn write_all(mut output: UnixStream, queued: &Receiver<Vec<u8>>, waiting: &AtomicUsize) {
    for line in queued {
        if output.write_all(&line).is_err() {
            break;
        }
        waiting.fetch_sub(line.len(), Ordering::Relaxed);
    }
    drop(output.shutdown(Shutdown::Both));
}

#[cfg(test)]
mod tests {
    use manifest::control::{Answer, Ask, Stream, VERSION};

    use super::*;

    /// A broker, and the machine's end of its line.
    struct Scene {
        machine: BufReader<UnixStream>,
        broker: Option<Broker>,
        machines: Machines,
        _folder: tempfile::TempDir,
    }

    struct Visitor(BufReader<UnixStream>);

    fn name() -> Name {
        Name::try_from("shop".to_owned()).unwrap()
    }

    fn scene() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("machines");
        let (ours, theirs) = UnixStream::pair().unwrap();
        let broker = Broker::start_in(Machines::at(&place).unwrap(), &name(), &ours).unwrap();
        let machines = Machines::at(&place).unwrap();
        Scene { machine: BufReader::new(theirs), broker: Some(broker), machines, _folder: folder }
    }

    fn message<T: serde::de::DeserializeOwned>(stream: &mut BufReader<UnixStream>) -> Option<T> {
        let mut line = String::new();
        let length = stream.read_line(&mut line).unwrap_or(0);
        (length > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    /// Whether there is something to read, or soon will be.
    fn has_news(stream: &mut BufReader<UnixStream>) -> bool {
        stream.get_ref().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let has_news = stream.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
        stream.get_ref().set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        has_news
    }

    impl Scene {
        /// The next request that is of a client. Greetings are answered on the way: there may be several.
        fn next(&mut self) -> Request {
            loop {
                let request: Request = message(&mut self.machine).unwrap();
                if request.ask != Ask::Hello {
                    return request;
                }
                self.say(request.id, Answer::Hello { version: VERSION, name: name() });
            }
        }

        fn say(&self, id: u64, answer: Answer) {
            self.machine.get_ref().write_all(&as_line(&Response { id, answer })).unwrap();
        }

        fn visitor(&self) -> Visitor {
            let found = self.machines.list().unwrap();
            Visitor(BufReader::new(UnixStream::connect(self.machines.socket(&found[0])).unwrap()))
        }

        /// A client that has been told who is there.
        fn guest(&mut self) -> Visitor {
            let mut visitor = self.visitor();
            visitor.ask(1, Ask::Hello);
            while !has_news(&mut visitor.0) {
                if has_news(&mut self.machine) {
                    let Request { id, ask: Ask::Hello } = message(&mut self.machine).unwrap() else {
                        panic!("nobody has asked for anything")
                    };
                    self.say(id, Answer::Hello { version: VERSION, name: name() });
                }
            }
            visitor.hear_hello();
            visitor
        }
    }

    impl Visitor {
        fn ask(&mut self, id: u64, ask: Ask) {
            self.0.get_mut().write_all(&as_line(&Request { id, ask })).unwrap();
        }

        fn hear_hello(&mut self) {
            assert!(matches!(self.hear(), Some(Response { id: 1, answer: Answer::Hello { .. } })));
            assert_eq!(self.hear(), Some(Response { id: 1, answer: Answer::Done }));
        }

        fn hear(&mut self) -> Option<Response> {
            message(&mut self.0)
        }
    }

    fn note(text: &str) -> Answer {
        Answer::Error { why: text.to_owned() }
    }

    #[test]
    fn clients_may_come_before_the_machine_does_and_each_gets_its_own_answers() {
        let mut scene = scene();
        let mut early = scene.visitor();
        early.ask(1, Ask::Hello);
        let mut late = scene.guest();
        early.hear_hello();
        early.ask(2, Ask::Status);
        let first = scene.next();
        late.ask(2, Ask::Usage);
        let second = scene.next();
        scene.say(second.id, note("late"));
        scene.say(first.id, note("early"));
        for (visitor, text) in [(&mut early, "early"), (&mut late, "late")] {
            assert_eq!(visitor.hear(), Some(Response { id: 2, answer: note(text) }));
        }
    }

    #[test]
    fn the_sessions_of_a_client_that_goes_are_cancelled() {
        let mut scene = scene();
        let mut visitor = scene.guest();
        visitor.ask(2, Ask::Events { since: 0, follow: true });
        let asked = scene.next();
        drop(visitor);
        assert_eq!(scene.next(), Request { id: asked.id, ask: Ask::Cancel });
    }

    #[test]
    fn a_client_that_has_said_all_it_wants_still_gets_its_answers() {
        let mut scene = scene();
        let mut visitor = scene.guest();
        visitor.ask(2, Ask::Status);
        visitor.0.get_ref().shutdown(Shutdown::Write).unwrap();
        let id = scene.next().id;
        scene.say(id, Answer::Done);
        assert_eq!(visitor.hear(), Some(Response { id: 2, answer: Answer::Done }));
        assert_eq!(visitor.hear(), None);
    }

    #[test]
    fn a_client_that_does_not_read_is_let_go_and_the_others_notice_nothing() {
        let mut scene = scene();
        let (mut lazy, mut other) = (scene.guest(), scene.guest());
        lazy.ask(2, Ask::Events { since: 0, follow: true });
        let flood = scene.next().id;
        other.ask(2, Ask::Status);
        let status = scene.next().id;
        let text = "x".repeat(512 << 10);
        for _ in 0..WAITING_MAX / text.len() + 2 {
            let data = text.clone().into_bytes();
            scene.say(flood, Answer::Output { stream: Stream::Output, data });
        }
        assert_eq!(scene.next(), Request { id: flood, ask: Ask::Cancel });
        scene.say(status, Answer::Done);
        assert_eq!(other.hear(), Some(Response { id: 2, answer: Answer::Done }));
    }

    #[test]
    fn a_line_without_an_end_ends_its_client() {
        let mut scene = scene();
        let (mut endless, mut other) = (scene.guest(), scene.guest());
        // Fails in the middle, when the broker has had enough.
        drop(endless.0.get_mut().write_all(&vec![b'x'; 2 << 20]));
        assert_eq!(endless.hear(), None);
        other.ask(2, Ask::Status);
        assert_eq!(scene.next().ask, Ask::Status);
    }

    #[test]
    fn clients_read_the_machines_last_words_and_nobody_finds_it_afterwards() {
        let mut scene = scene();
        let mut visitor = scene.guest();
        visitor.ask(2, Ask::Status);
        let id = scene.next().id;
        for bytes in 0..1000 {
            scene.say(id, Answer::Taken { bytes });
        }
        scene.machine.get_ref().shutdown(Shutdown::Both).unwrap();
        let broker = scene.broker.take();
        let end = thread::spawn(move || drop(broker));
        for bytes in 0..1000 {
            assert_eq!(visitor.hear(), Some(Response { id: 2, answer: Answer::Taken { bytes } }));
        }
        assert_eq!(visitor.hear(), None);
        end.join().unwrap();
        assert_eq!(scene.machines.list().unwrap(), []);
    }
}
