//! A machine of the tests: a thread behind a socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use manifest::Name;
use manifest::control::{
    Answer, Ask, Machine, MachineState, Now, Request, Response, Service, ServiceKind, ServiceState, VERSION,
};

use super::address::Address;
use super::channel::Channel;
use super::find::Place;

/// A machine that does what a test says.
pub struct Fake {
    folder: tempfile::TempDir,
}

impl Fake {
    /// It answers requests as `answer` does, and ends when that panics. Greetings are answered.
    pub fn machine(answer: impl FnMut(u64, Ask, &mut dyn FnMut(u64, Answer)) + Send + 'static) -> Self {
        Self::start(VERSION, answer)
    }

    /// It speaks another version.
    pub fn of_version(version: u32) -> Self {
        Self::start(version, |_, _, _| {})
    }

    /// There is none.
    pub fn nowhere() -> Place {
        Place::new(Address::File("/nonexistent/ctl".into()), "fake")
    }

    fn start(
        version: u32,
        mut answer: impl FnMut(u64, Ask, &mut dyn FnMut(u64, Answer)) + Send + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("ctl")).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // One client is all there will be.
            drop(listener);
            for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
                let Ok(Request { id, ask }) = serde_json::from_str(&line) else { continue };
                if ask == Ask::Hello {
                    say(&mut stream, id, Answer::Hello { version, name: name("fake") });
                } else {
                    answer(id, ask, &mut |id, answer| say(&mut stream, id, answer));
                }
            }
        });
        Self { folder }
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        Place::new(Address::File(self.folder.path().join("ctl")), "fake")
    }

    /// A connection to it.
    pub fn channel(&self) -> Channel {
        Channel::open(&self.place()).unwrap()
    }
}

fn say(stream: &mut UnixStream, id: u64, answer: Answer) {
    let mut line = serde_json::to_vec(&Response { id, answer }).unwrap();
    line.push(b'\n');
    // A client that has heard enough has gone.
    drop(stream.write_all(&line));
}

/// A name.
pub fn name(text: &str) -> Name {
    Name::try_from(text.to_owned()).unwrap()
}

/// A moment, in milliseconds after the machine's start: at noon of 28 November 2026.
pub fn at(milliseconds: u64) -> Now {
    Now { monotonic_ns: milliseconds * 1_000_000, unix_ms: 1_795_867_200_000 + milliseconds }
}

/// The machine `shop`, a quarter of an hour after its start.
pub fn machine() -> Machine {
    Machine { name: name("shop"), now: at(900_000), state: MachineState::Ready, last_event: 40 }
}

/// A service that is ready since its first start.
pub fn service(text: &str) -> Service {
    Service {
        name: name(text),
        kind: ServiceKind::Service,
        state: ServiceState::Ready,
        pid: Some(217),
        since_ns: Some(1_500_000_000),
        starts_at_ns: None,
        healthy: None,
        starts: 1,
        last: None,
        says: None,
        waits_for: Vec::new(),
        log_bytes: 0,
        log_dropped: 0,
    }
}
