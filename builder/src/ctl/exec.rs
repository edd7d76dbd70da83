//! `coracle ctl exec`: a program in a service's container, with the streams, signals and terminal of this process.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use manifest::control::{Answer, Ask, Exec, Stream, WINDOW};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;

use super::channel::{Channel, PATIENCE, Writer};
use super::status::Status;
use super::terminal::{self, Raw, Saved};
use crate::cli;
use crate::error::{Context, Error, Result};

/// How much of the input goes into one request: in base64 it has to fit into a line.
const CHUNK: usize = 16 * 1024;

/// What a shell says of a program that nobody reads: 128 and SIGPIPE.
const NOBODY_READS: u8 = 141;

/// Runs a program in a container, and returns its exit code.
pub fn exec(channel: &mut Channel, options: &cli::Exec) -> Result<u8> {
    if options.terminal && options.interactive && !terminal::is_there() {
        return Err(Error::new("cannot give the program a terminal: the input here is none")
            .hint("leave out `-t`, so that it reads what is piped into it"));
    }
    let service = Status::ask(channel)?.find(&options.service)?.name.clone();
    let ask = Ask::Exec(Exec {
        service,
        argv: options.argv.clone(),
        env: options.env.clone(),
        cwd: options.working_dir.clone(),
        terminal: options.terminal.then(terminal::size),
    });
    let signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH]).doing(|| "listen for signals")?;
    let id = channel.begin(ask)?;
    let Answer::Started = channel.next(id, Some(PATIENCE))? else {
        return Err(Error::new("the machine does not say that the program has started"));
    };
    let raw = if options.terminal && options.interactive { Some(Raw::enter()?) } else { None };
    let saved = raw.as_ref().map(Raw::saved);
    let line = Line { writer: channel.writer(), id };
    let (to_program, has_terminal) = (line.clone(), options.terminal);
    thread::spawn(move || pass_signals(signals, &to_program, has_terminal, saved.as_ref()));
    let input: Option<Box<dyn Read + Send>> = match (options.interactive, options.terminal) {
        (true, _) => Some(Box::new(Stdin)),
        // A terminal where nobody types: its input has no end, as it has not elsewhere.
        (false, true) => None,
        (false, false) => Some(Box::new(io::empty())),
    };
    attend(channel, &line, input, &mut io::stdout(), &mut io::stderr())
}

/// The way to a session, for several threads.
#[derive(Clone)]
struct Line {
    writer: Writer,
    id: u64,
}

impl Line {
    /// Whether it could be said; when not, the thread that waits for answers learns of the connection's end as well.
    fn say(&self, ask: Ask) -> bool {
        self.writer.say(self.id, ask).is_ok()
    }
}

/// What is typed or piped here, at once when it comes and not when a buffer is full.
struct Stdin;

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(io::stdin(), buffer)?)
    }
}

/// Carries what the program reads and writes, to its end.
fn attend(
    channel: &Channel,
    line: &Line,
    input: Option<Box<dyn Read + Send>>,
    output: &mut impl Write,
    error: &mut impl Write,
) -> Result<u8> {
    let window = Arc::new(Window::default());
    if let Some(input) = input {
        let (to_program, window) = (line.clone(), Arc::clone(&window));
        thread::spawn(move || pass_input(input, &to_program, &window));
    }
    loop {
        let written = match channel.next(line.id, None)? {
            Answer::Output { stream: Stream::Output, data } => write(output, &data),
            Answer::Output { stream: Stream::Error, data } => write(error, &data),
            Answer::Taken { bytes } => {
                window.widen(bytes);
                Ok(())
            }
            Answer::Exit { code } => return Ok(code),
            Answer::Done => return Err(Error::new("the machine does not say how the program has ended")),
            _ => Ok(()),
        };
        match written {
            Err(cause) if cause.kind() == ErrorKind::BrokenPipe => {
                line.say(Ask::Cancel);
                return Ok(NOBODY_READS);
            }
            written => written.doing(|| "write what the program writes")?,
        }
    }
}

fn write(to: &mut impl Write, data: &[u8]) -> io::Result<()> {
    to.write_all(data)?;
    to.flush()
}

/// Hands the input on, no more at a time than the machine has room for.
fn pass_input(mut input: impl Read, line: &Line, window: &Window) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let room = window.wait().min(CHUNK);
        let read = match input.read(&mut buffer[..room]) {
            Err(cause) if cause.kind() == ErrorKind::Interrupted => continue,
            // A terminal that has gone has nothing more to say, either.
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        window.narrow(read);
        if !line.say(Ask::Input { data: buffer[..read].to_vec() }) {
            return;
        }
    }
    line.say(Ask::InputEnd);
}

/// How many bytes of input the machine has room for.
struct Window {
    room: Mutex<usize>,
    widened: Condvar,
}

impl Default for Window {
    fn default() -> Self {
        Self { room: Mutex::new(WINDOW), widened: Condvar::new() }
    }
}

impl Window {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room, and says how much.
    fn wait(&self) -> usize {
        let room = self.widened.wait_while(self.lock(), |room| *room == 0);
        *room.unwrap_or_else(PoisonError::into_inner)
    }

    fn narrow(&self, bytes: usize) {
        let mut room = self.lock();
        *room = room.saturating_sub(bytes);
    }

    /// Not further than it ever was, whatever the machine says.
    fn widen(&self, bytes: usize) {
        let mut room = self.lock();
        *room = room.saturating_add(bytes).min(WINDOW);
        self.widened.notify_all();
    }
}

/// Hands signals on. With a terminal, keys reach the program as keys: a signal is then meant for this process, which
/// ends, and the program with it.
fn pass_signals(mut signals: Signals, line: &Line, has_terminal: bool, saved: Option<&Saved>) {
    for number in signals.forever() {
        match number {
            SIGWINCH if has_terminal => drop(line.say(Ask::Resize(terminal::size()))),
            SIGWINCH => {}
            _ if !has_terminal => drop(line.say(Ask::Signal { number })),
            _ => {
                line.say(Ask::Cancel);
                if let Some(saved) = saved {
                    saved.restore();
                }
                std::process::exit(128 + number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, name};
    use super::*;

    fn cat() -> Ask {
        Ask::Exec(Exec {
            service: name("web"),
            argv: vec!["cat".to_owned()],
            env: Vec::new(),
            cwd: None,
            terminal: None,
        })
    }

    /// Runs a program of a fake machine, and returns its code and what it wrote.
    fn run(fake: &Fake, input: Vec<u8>) -> (Result<u8>, Vec<u8>, Vec<u8>) {
        let mut channel = fake.channel();
        let line = Line { id: channel.begin(cat()).unwrap(), writer: channel.writer() };
        let (mut output, mut error) = (Vec::new(), Vec::new());
        let input = Box::new(io::Cursor::new(input));
        (attend(&channel, &line, Some(input), &mut output, &mut error), output, error)
    }

    #[test]
    fn all_of_the_input_arrives_and_never_more_than_the_window_at_a_time() {
        let (mut underway, mut all) = (0, 0);
        let fake = Fake::machine(move |id, ask, say| match ask {
            Ask::Exec(_) => say(id, Answer::Started),
            Ask::Input { data } => {
                underway += data.len();
                all += data.len();
                assert!(underway <= WINDOW);
                say(id, Answer::Output { stream: Stream::Output, data });
                // As late as possible: only when the client has to wait, or has nothing more.
                if underway == WINDOW {
                    say(id, Answer::Taken { bytes: underway });
                    underway = 0;
                }
            }
            Ask::InputEnd => {
                say(id, Answer::Output { stream: Stream::Error, data: all.to_string().into_bytes() });
                say(id, Answer::Exit { code: 7 });
            }
            other => panic!("{other:?} is not expected"),
        });
        let input: Vec<u8> = (0..=255).cycle().take(5 * WINDOW + 77).collect();
        let (code, output, error) = run(&fake, input.clone());
        assert_eq!((code, output == input), (Ok(7), true));
        assert_eq!(error, input.len().to_string().into_bytes());
    }

    #[test]
    fn a_program_may_end_with_input_left() {
        let fake = Fake::machine(|id, ask, say| {
            if let Ask::Exec(_) = ask {
                say(id, Answer::Started);
                say(id, Answer::Exit { code: 0 });
            }
        });
        assert_eq!(run(&fake, vec![0; 10 * WINDOW]).0, Ok(0));
    }

    #[test]
    fn a_program_that_nobody_reads_is_ended() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sender, asked) = std::sync::mpsc::channel();
        let fake = Fake::machine(move |id, ask, say| match ask {
            Ask::Exec(_) => say(id, Answer::Output { stream: Stream::Output, data: b"y".to_vec() }),
            ask => sender.send(ask).unwrap(),
        });
        let mut channel = fake.channel();
        let line = Line { id: channel.begin(cat()).unwrap(), writer: channel.writer() };
        assert_eq!(attend(&channel, &line, None, &mut Closed, &mut io::sink()), Ok(NOBODY_READS));
        assert_eq!(asked.recv().unwrap(), Ask::Cancel);
    }
}
