//! A connection to a machine, and the sessions on it.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use manifest::control::{Answer, Ask, Request, Response, VERSION};

use super::address::Address;
use super::find::Place;
use super::table::plain;
use crate::error::{Context, Error, Result};

/// How long a machine may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The longest line that is taken.
const LINE_MAX: u64 = 1 << 20;
/// How many answers wait to be looked at before the machine has to wait.
const QUEUE: usize = 256;

/// A connection to a machine.
#[derive(Debug)]
pub struct Channel {
    writer: Writer,
    /// Ends with the connection.
    answers: Receiver<Response>,
    /// The number of the last session.
    last: u64,
    /// How the machine is called in messages.
    shown: String,
    address: Address,
}

/// The way to the machine, for as many threads as there are.
#[derive(Debug, Clone)]
pub struct Writer(Arc<Mutex<UnixStream>>);

/// What has come of a wait.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// A part of an answer, of a session.
    Answer(u64, Answer),
    /// Nothing, for as long as was waited.
    Nothing,
    /// The end of the connection.
    End,
}

impl Channel {
    /// Connects, and makes sure that both speak the same version.
    pub fn open(place: &Place) -> Result<Self> {
        let shown = place.shown.clone();
        let stream = place.address.connect().doing(|| format!("connect to `{shown}`"))?;
        // A machine that does not read any more would keep us here for ever.
        stream.set_write_timeout(Some(PATIENCE)).doing(|| "set up the connection")?;
        let input = stream.try_clone().doing(|| "set up the connection")?;
        let (sender, answers) = mpsc::sync_channel(QUEUE);
        thread::spawn(move || read(input, &sender));
        let writer = Writer(Arc::new(Mutex::new(stream)));
        // On a port of its own QEMU, answers for a client before this one may still be underway: other numbers.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let last = since.as_secs() << 20 | u64::from(since.subsec_micros());
        let mut channel = Self { writer, answers, last, shown, address: place.address.clone() };
        channel.greet()?;
        Ok(channel)
    }

    fn greet(&mut self) -> Result<()> {
        // Ends what a client before this one may have left of a line.
        self.writer.write(b"\n").map_err(|error| self.cannot_talk(&error))?;
        let hello = self.begin(Ask::Hello)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.hear(deadline.checked_duration_since(Instant::now())) {
                Heard::Answer(id, Answer::Hello { version, .. }) if id == hello => {
                    return check(version, &self.shown);
                }
                // What was said before.
                Heard::Answer(..) => {}
                Heard::Nothing => return Err(self.is_silent()),
                Heard::End => return Err(self.has_ended()),
            }
        }
    }

    /// Begins a session.
    pub fn begin(&mut self, ask: Ask) -> Result<u64> {
        self.last += 1;
        self.say(self.last, ask)?;
        Ok(self.last)
    }

    /// Goes on with a session.
    pub fn say(&self, id: u64, ask: Ask) -> Result<()> {
        self.writer.say(id, ask).map_err(|error| self.cannot_talk(&error))
    }

    /// The way to the machine, for another thread.
    pub fn writer(&self) -> Writer {
        self.writer.clone()
    }

    /// Waits for the next answer: so long, or for ever.
    pub fn hear(&self, patience: Option<Duration>) -> Heard {
        let heard = match patience {
            Some(patience) => self.answers.recv_timeout(patience),
            None => self.answers.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match heard {
            Ok(Response { id, answer }) => Heard::Answer(id, answer),
            Err(RecvTimeoutError::Timeout) => Heard::Nothing,
            Err(RecvTimeoutError::Disconnected) => Heard::End,
        }
    }

    /// The next answer that belongs to a session: an error of the machine's is one, and so is a silence that is too
    /// long.
    pub fn next(&self, id: u64, patience: Option<Duration>) -> Result<Answer> {
        self.next_of(&[id], patience).map(|(_, answer)| answer)
    }

    /// Likewise of several sessions.
    pub fn next_of(&self, ids: &[u64], patience: Option<Duration>) -> Result<(u64, Answer)> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        loop {
            let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            match self.hear(rest) {
                Heard::Answer(of, Answer::Error { why }) if of == 0 || ids.contains(&of) => {
                    return Err(Error::new(plain(&why)));
                }
                Heard::Answer(of, answer) if ids.contains(&of) => return Ok((of, answer)),
                // Of a session that nobody waits for any more.
                Heard::Answer(..) => {}
                Heard::Nothing => return Err(self.is_silent()),
                Heard::End => return Err(self.has_ended()),
            }
        }
    }

    /// All parts of the answer to a question.
    pub fn all(&mut self, ask: Ask) -> Result<Vec<Answer>> {
        let mut all = Vec::new();
        self.each(ask, Some(PATIENCE), |answer| {
            all.push(answer);
            Ok(())
        })?;
        Ok(all)
    }

    /// Each part of an answer as it comes: the next within so long, or whenever.
    pub fn each(
        &mut self,
        ask: Ask,
        patience: Option<Duration>,
        mut take: impl FnMut(Answer) -> Result<()>,
    ) -> Result<()> {
        let id = self.begin(ask)?;
        loop {
            match self.next(id, patience)? {
                Answer::Done => return Ok(()),
                answer => take(answer)?,
            }
        }
    }

    /// Why there is no answer, when the connection is still there.
    pub fn is_silent(&self) -> Error {
        Error::new(format!("the machine `{}` does not answer within {} s", self.shown, PATIENCE.as_secs())).hint(
            "it may still boot, have no control channel, or talk to another client that is not `coracle run`",
        )
    }

    fn cannot_talk(&self, error: &io::Error) -> Error {
        // What the write's time limit is told as.
        if error.kind() == ErrorKind::WouldBlock { self.is_silent() } else { self.has_ended() }
    }

    /// Why there will be no answer any more.
    pub fn has_ended(&self) -> Error {
        let shown = &self.shown;
        if self.address.connect().is_ok() {
            let hint = match &self.address {
                Address::File(_) => "it has too many clients, or this one did not read for too long",
                Address::Vsock { .. } | Address::VsockFile { .. } => {
                    "it has too many clients, this one did not read for too long, or it is not the machine's host"
                }
            };
            return Error::new(format!("the connection to the machine `{shown}` was closed")).hint(hint);
        }
        Error::new(format!("the machine `{shown}` has ended"))
    }
}

impl Writer {
    /// Goes on with a session, or begins one.
    pub fn say(&self, id: u64, ask: Ask) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Request { id, ask })?;
        line.push(b'\n');
        self.write(&line)
    }

    fn write(&self, line: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(line)
    }
}

fn check(version: u32, shown: &str) -> Result<()> {
    if version == VERSION {
        return Ok(());
    }
    let sentence = format!(
        "the machine `{shown}` speaks version {version} of the control channel, and this program version {VERSION}"
    );
    Err(Error::new(sentence).hint("use the `coracle` that built the machine, or build it anew"))
}

/// Reads answers until the end of the connection, or until nobody takes them any more.
fn read(input: UnixStream, sender: &SyncSender<Response>) {
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut input).take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        // The first line may be the rest of one for another client, and of a line that is too long the rest is another.
        let Ok(response) = serde_json::from_slice(&line) else { continue };
        if sender.send(response).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, service};
    use super::*;

    #[test]
    fn a_question_has_all_its_answers_and_other_sessions_do_not_get_between() {
        let fake = Fake::machine(|id, ask, say| match ask {
            Ask::Status => {
                say(id + 100, Answer::Done);
                say(id, Answer::Service(service("web")));
                say(id, Answer::Done);
            }
            _ => say(id, Answer::Error { why: "no service is called `x`".to_owned() }),
        });
        let mut channel = Channel::open(&fake.place()).unwrap();
        assert_eq!(channel.all(Ask::Status), Ok(vec![Answer::Service(service("web"))]));
        assert_eq!(channel.all(Ask::Usage).unwrap_err().to_string(), "no service is called `x`");
    }

    #[test]
    fn a_machine_of_another_version_is_told_with_both() {
        let fake = Fake::of_version(7);
        assert_eq!(
            Channel::open(&fake.place()).unwrap_err().to_string(),
            "the machine `fake` speaks version 7 of the control channel, and this program version 1"
        );
    }

    #[test]
    fn a_machine_that_ends_says_so_in_the_middle() {
        let fake = Fake::machine(|_, ask, _| assert_eq!(ask, Ask::Hello, "the fake machine ends here"));
        let mut channel = Channel::open(&fake.place()).unwrap();
        let error = channel.all(Ask::Status).unwrap_err();
        assert_eq!(error.to_string(), "the machine `fake` has ended");
    }

    #[test]
    fn a_socket_that_nobody_listens_to_is_named() {
        let place = Fake::nowhere();
        let error = Channel::open(&place).unwrap_err().to_string();
        assert!(error.starts_with("cannot connect to `fake`: "), "{error}");
    }
}
