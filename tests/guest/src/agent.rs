//! Serves requests from the port until it is told to end.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use probe::{Answer, Event, Message, Refusal, Request};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::{calls, facts};

/// How long to wait before looking again at a port that another process holds, or whose host side is not open:
/// reading such a port returns nothing at once instead of blocking.
const PORT_PAUSE: Duration = Duration::from_millis(10);

/// How often to look. A killed predecessor's descriptor is closed a moment after its death is seen.
const PORT_ATTEMPTS: u32 = 300;

/// Answers requests, one line each, for as long as the process lives.
pub fn serve(
    path: &str,
    ends_when_asked: bool,
    first_ns: u64,
    born_with: Vec<u32>,
) -> Result<ExitCode, String> {
    let port = open(path).map_err(|error| format!("cannot open `{path}`: {error}"))?;
    let port = Arc::new(port);
    // A container's first process gets no signal whose action is the default, so each needs a handler.
    let signals = Signals::new([SIGTERM, SIGINT, SIGQUIT])
        .map_err(|error| format!("cannot handle signals: {error}"))?;
    let port_of_signals = Arc::clone(&port);
    thread::spawn(move || report_signals(signals, &port_of_signals, ends_when_asked));

    send(&port, &Message::Event(Event::Started { first_ns }))
        .map_err(|error| format!("cannot write: {error}"))?;
    let mut lines = BufReader::new(&*port);
    loop {
        let mut line = String::new();
        match lines.read_line(&mut line) {
            Ok(0) => thread::sleep(PORT_PAUSE),
            Ok(_) => {
                let reply = reply(&line, first_ns, &born_with);
                send(&port, &reply).map_err(|error| format!("cannot write: {error}"))?;
                if let Ok(Request::Exit { code }) = serde_json::from_str(&line) {
                    std::process::exit(code);
                }
            }
            Err(error) => return Err(format!("cannot read `{path}`: {error}")),
        }
    }
}

fn open(path: &str) -> io::Result<File> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && attempt < PORT_ATTEMPTS => {
                thread::sleep(PORT_PAUSE);
            }
            result => return result,
        }
    }
}

fn report_signals(mut signals: Signals, port: &File, ends_when_asked: bool) {
    for signal in signals.forever() {
        let event = Event::Stopping { signal, at_ns: crate::monotonic_ns() };
        let sent = send(port, &Message::Event(event));
        if ends_when_asked {
            std::process::exit(i32::from(sent.is_err()));
        }
    }
}

/// One write a line: lines of the two threads do not mix.
fn send(mut port: &File, message: &Message) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    port.write_all(&line)
}

fn reply(line: &str, first_ns: u64, born_with: &[u32]) -> Message {
    let answer = serde_json::from_str(line)
        .map_err(io::Error::from)
        .and_then(|request: Request| answer(request, first_ns, born_with));
    match answer {
        Ok(answer) => Message::Answer(answer),
        Err(error) => Message::Refusal(Refusal {
            errno: error.raw_os_error().unwrap_or_default(),
            reason: error.to_string(),
        }),
    }
}

fn answer(request: Request, first_ns: u64, born_with: &[u32]) -> io::Result<Answer> {
    match request {
        Request::Identity => {
            facts::identity(first_ns, born_with.to_vec()).map(|identity| Answer::Identity(Box::new(identity)))
        }
        Request::Read { path } => facts::contents(&path),
        Request::Write { path, contents } => std::fs::write(path, contents).map(|()| Answer::Done),
        Request::Link { path } => {
            std::fs::read_link(path).map(|target| Answer::Text(target.to_string_lossy().into_owned()))
        }
        Request::List { path } => facts::names(&path).map(Answer::Names),
        Request::Stat { path } => facts::metadata(&path).map(Answer::Metadata),
        Request::Attribute { path, name } => facts::attribute(&path, &name),
        Request::Signal { pid, signal } => {
            let invalid = |what: String| io::Error::new(ErrorKind::InvalidInput, what);
            let target = Pid::from_raw(pid).ok_or_else(|| invalid(format!("{pid} is no process id")))?;
            let signal =
                Signal::from_named_raw(signal).ok_or_else(|| invalid(format!("{signal} is no signal")))?;
            kill_process(target, signal)?;
            Ok(Answer::Done)
        }
        Request::Exit { .. } => Ok(Answer::Done),
        Request::Orphan { milliseconds } => {
            let argv = ["/proc/self/exe", "orphan", &milliseconds.to_string()].map(str::to_owned);
            let printed = facts::output(&argv)?.stdout;
            let pid =
                printed.trim().parse().map_err(|_| io::Error::other(format!("no process id: {printed}")))?;
            Ok(Answer::Pid(pid))
        }
        Request::Call { program, calls } => calls::make(&program, &calls).map(Answer::Outcomes),
        Request::Notify { text } => {
            let path =
                std::env::var_os("NOTIFY_SOCKET").ok_or_else(|| io::Error::other("no NOTIFY_SOCKET"))?;
            UnixDatagram::unbound()?.send_to(text.as_bytes(), path).map(|_| Answer::Done)
        }
        Request::Run { argv } => facts::output(&argv).map(Answer::Output),
    }
}
