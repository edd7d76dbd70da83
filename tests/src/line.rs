//! The line to one probe: requests go in, answers and events come out.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use probe::{Answer, Event, Identity, Message, Metadata, Outcome, Output, Refusal, Request};

/// The most that an answer may take: emulated machines are slow, and share the processors with a second one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The most that QEMU needs until its sockets are there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection to the port of one probe, open for as long as the machine is.
pub struct Line {
    name: String,
    stream: RefCell<BufReader<UnixStream>>,
    events: RefCell<Vec<Event>>,
    /// How many starts of the probe a test has waited for.
    starts_seen: RefCell<usize>,
}

impl Line {
    /// Connects to QEMU's end of the port, as soon as it is there.
    pub(crate) fn connect(name: &str, socket: &Path) -> Result<Self, String> {
        let begun = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(_) if begun.elapsed() < CONNECT_TIMEOUT => thread::sleep(Duration::from_millis(10)),
                Err(error) => return Err(format!("cannot connect to `{}`: {error}", socket.display())),
            }
        };
        stream
            .set_read_timeout(Some(ANSWER_TIMEOUT))
            .map_err(|error| format!("cannot set a timeout: {error}"))?;
        Ok(Self {
            name: name.to_owned(),
            stream: RefCell::new(BufReader::new(stream)),
            events: RefCell::default(),
            starts_seen: RefCell::default(),
        })
    }

    /// Waits until the probe has been started once more than at the last call, and returns when its first
    /// instruction ran, in nanoseconds of the machine's clock.
    pub fn next_start(&self) -> u64 {
        let wanted = *self.starts_seen.borrow();
        loop {
            let start = self.starts().get(wanted).copied();
            if let Some(first_ns) = start {
                *self.starts_seen.borrow_mut() += 1;
                return first_ns;
            }
            match self.receive() {
                Some(Message::Event(_)) => {}
                other => panic!("probe `{}`: expected its start, got {other:?}", self.name),
            }
        }
    }

    /// All starts so far that have been read.
    fn starts(&self) -> Vec<u64> {
        let first =
            |event: &Event| if let Event::Started { first_ns } = event { Some(*first_ns) } else { None };
        self.events.borrow().iter().filter_map(first).collect()
    }

    /// Asks; a refusal is a result.
    pub fn try_ask(&self, request: &Request) -> Result<Answer, Refusal> {
        self.send(request);
        self.answer()
    }

    /// The answer to what was [sent](Self::send).
    pub fn answer(&self) -> Result<Answer, Refusal> {
        loop {
            match self.receive() {
                Some(Message::Answer(answer)) => return Ok(answer),
                Some(Message::Refusal(refusal)) => return Err(refusal),
                Some(Message::Event(_)) => {}
                None => panic!("the machine ended before probe `{}` answered", self.name),
            }
        }
    }

    /// Asks, and waits for no answer: the machine may end before there is one.
    pub fn send(&self, request: &Request) {
        // QEMU throws away what is sent to a port that the guest has not opened.
        if *self.starts_seen.borrow() == 0 {
            self.next_start();
        }
        let mut line = serde_json::to_vec(request).unwrap();
        line.push(b'\n');
        let sent = self.stream.borrow().get_ref().write_all(&line);
        sent.unwrap_or_else(|error| panic!("cannot ask probe `{}`: {error}", self.name));
    }

    /// Asks; a refusal ends the test.
    pub fn ask(&self, request: &Request) -> Answer {
        self.try_ask(request)
            .unwrap_or_else(|refusal| panic!("probe `{}`, {request:?}: {}", self.name, refusal.reason))
    }

    /// The next message; events are noted as well. Nothing when the machine has ended.
    fn receive(&self) -> Option<Message> {
        let mut line = String::new();
        match self.stream.borrow_mut().read_line(&mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset) => return None,
            Err(error) => panic!("no word from probe `{}` for {ANSWER_TIMEOUT:?}: {error}", self.name),
        }
        let message = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("probe `{}` said {line:?}: {error}", self.name));
        if let Message::Event(event) = message {
            self.events.borrow_mut().push(event);
        }
        Some(message)
    }

    /// Reads what is left when the machine has ended, and returns all events since the beginning.
    pub(crate) fn into_events(self) -> Vec<Event> {
        while self.receive().is_some() {}
        self.events.into_inner()
    }

    /// Who the probe is.
    pub fn identity(&self) -> Identity {
        match self.ask(&Request::Identity) {
            Answer::Identity(identity) => *identity,
            other => panic!("{other:?} is no identity"),
        }
    }

    /// A file's contents.
    pub fn read(&self, path: &str) -> String {
        self.text(&Request::Read { path: path.to_owned() })
    }

    /// A symbolic link's target.
    pub fn link(&self, path: &str) -> String {
        self.text(&Request::Link { path: path.to_owned() })
    }

    /// An extended attribute in hexadecimal.
    pub fn attribute(&self, path: &str, name: &str) -> String {
        self.text(&Request::Attribute { path: path.to_owned(), name: name.to_owned() })
    }

    fn text(&self, request: &Request) -> String {
        match self.ask(request) {
            Answer::Text(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }

    /// A folder's names, sorted.
    pub fn list(&self, path: &str) -> Vec<String> {
        match self.ask(&Request::List { path: path.to_owned() }) {
            Answer::Names(names) => names,
            other => panic!("{other:?} is no list of names"),
        }
    }

    /// Metadata, links not followed.
    pub fn stat(&self, path: &str) -> Metadata {
        match self.ask(&Request::Stat { path: path.to_owned() }) {
            Answer::Metadata(metadata) => metadata,
            other => panic!("{other:?} is no metadata"),
        }
    }

    /// Whether there is anything at the path.
    pub fn exists(&self, path: &str) -> bool {
        self.try_ask(&Request::Stat { path: path.to_owned() }).is_ok()
    }

    /// Writes a file; the error number when it cannot be written.
    pub fn write(&self, path: &str, contents: &str) -> Result<(), i32> {
        let request = Request::Write { path: path.to_owned(), contents: contents.to_owned() };
        self.try_ask(&request).map(drop).map_err(|refusal| refusal.errno)
    }

    /// Runs a program to its end.
    pub fn run(&self, argv: &[&str]) -> Output {
        match self.ask(&Request::Run { argv: argv.iter().map(|word| (*word).to_owned()).collect() }) {
            Answer::Output(output) => output,
            other => panic!("{other:?} is no output"),
        }
    }

    /// Makes system calls in processes of their own by a program that [`caller`](crate::caller) made.
    pub fn call(&self, program: &str, calls: &[[u64; 7]]) -> Vec<Outcome> {
        match self.ask(&Request::Call { program: program.to_owned(), calls: calls.to_vec() }) {
            Answer::Outcomes(outcomes) => outcomes,
            other => panic!("{other:?} are no outcomes"),
        }
    }

    /// Ends the probe.
    pub fn exit(&self, code: i32) {
        self.ask(&Request::Exit { code });
    }
}
