//! A program that a client runs in a container: its process, and what goes to it and comes from it.
//!
//! It counts as the service's own process, in all limits and filters, and ends with the service. Input is taken into a
//! window, so that one program that reads nothing holds nobody else up; output is read when the client has room for it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use manifest::control::{self, Answer, Size, Stream, WINDOW};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::unistd::{Pid, fchown, pipe2};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read, write};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{Winsize, tcsetwinsize};
use supervision::Outcome;

use crate::container::{self, Failure, Process, Progress, Running, Started, Status, Stdio};
use crate::error::{Error, Result};
use crate::supervisor::source::Source;
use crate::supervisor::supervised::Supervised;
use crate::sys;

/// What one answer carries at most.
const OUTPUT_MAX: usize = 8 * 1024;

/// A program that runs, or has run.
pub struct Program {
    /// Whether somebody still listens.
    is_wanted: bool,
    pid: Pid,
    /// While its start is underway.
    status: Option<Status>,
    /// For the sentence about a failed start.
    process: Process,
    failure: Option<Failure>,
    streams: Streams,
    /// What it has not read yet.
    input: VecDeque<u8>,
    input_ends: bool,
    /// What has left the window since the client was told.
    taken: usize,
    outcome: Option<Outcome>,
}

/// What its standard descriptors are on this side.
enum Streams {
    /// A terminal that has not been made yet. It comes over this socket, and gets this size.
    Expected(UnixStream, Size),
    Terminal(File),
    Pipes {
        input: Option<File>,
        output: Option<File>,
        error: Option<File>,
    },
    /// All is read.
    None,
}

/// What became of a piece of input or output.
enum Piece {
    Some(usize),
    /// Later, perhaps.
    None,
    /// Never again.
    End,
}

impl Program {
    /// Starts it in a service's container, whose first process is `first`.
    pub fn begin(
        request: &control::Exec,
        service: &Supervised,
        first: Pid,
        (epoll, slot): (&Epoll, usize),
    ) -> Result<Self> {
        let failed = |errno| Error::new("prepare", "the program's input and output", errno);
        let process = service.launch.process().other(&request.argv, &request.env, request.cwd.as_deref())?;
        let running = Running::of(&service.launch, &service.group, first)?;
        let (started, streams) = match request.terminal {
            Some(size) => {
                let cannot = |error| Error::io("prepare", "the program's terminal", &error);
                let (own, its) = UnixStream::pair().map_err(cannot)?;
                own.set_nonblocking(true).map_err(cannot)?;
                let started = container::enter(&running, &process, Stdio::Terminal(its.as_fd()))?;
                (started, Streams::Expected(own, size))
            }
            None => {
                let (input, own_input) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
                let (own_output, output) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
                let (own_error, error) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
                // Programs open them anew by /dev/stdout: their owner is allowed to.
                let (uid, gid) = service.launch.owner();
                for its in [&input, &output, &error] {
                    fchown(its, Some(uid), Some(gid)).map_err(failed)?;
                }
                for own in [&own_input, &own_output, &own_error] {
                    fcntl(own, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
                }
                let stdio =
                    Stdio::Given { input: input.as_fd(), output: output.as_fd(), error: error.as_fd() };
                let started = container::enter(&running, &process, stdio)?;
                let own = |descriptor: OwnedFd| Some(File::from(descriptor));
                let streams =
                    Streams::Pipes { input: own(own_input), output: own(own_output), error: own(own_error) };
                (started, streams)
            }
        };
        let Started { pid, status, .. } = started;
        let program = Self {
            is_wanted: true,
            pid,
            status: Some(status),
            process,
            failure: None,
            streams,
            input: VecDeque::new(),
            input_ends: false,
            taken: 0,
            outcome: None,
        };
        let watched =
            program.descriptors().into_iter().try_for_each(|descriptor| watch(epoll, slot, descriptor));
        if let Err(errno) = watched {
            program.signal(libc::SIGKILL);
            return Err(failed(errno));
        }
        Ok(program)
    }

    /// Everything that it waits for.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let streams: Vec<BorrowedFd<'_>> = match &self.streams {
            Streams::Expected(socket, _) => vec![socket.as_fd()],
            Streams::Terminal(terminal) => vec![terminal.as_fd()],
            Streams::Pipes { input, output, error } => {
                [input, output, error].into_iter().flatten().map(File::as_fd).collect()
            }
            Streams::None => vec![],
        };
        self.status.iter().map(AsFd::as_fd).chain(streams).collect()
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Takes note of its end, and says whether nobody wants to know.
    pub fn ended(&mut self, outcome: Outcome) -> bool {
        self.outcome = Some(outcome);
        !self.is_wanted
    }

    /// Whether its process has.
    pub fn has_ended(&self) -> bool {
        self.outcome.is_some()
    }

    /// Takes input that a client has sent, or says why not.
    pub fn push(&mut self, data: &[u8]) -> std::result::Result<(), String> {
        if self.input_ends {
            return Err("its input has ended".to_owned());
        }
        if self.input.len() + self.taken + data.len() > WINDOW {
            return Err(format!("more than {WINDOW} bytes of input are underway"));
        }
        self.input.extend(data);
        Ok(())
    }

    /// There is no more input.
    pub fn end_input(&mut self) {
        self.input_ends = true;
    }

    /// Changes the size of its terminal, if it has one.
    pub fn resize(&mut self, new: Size) {
        match &mut self.streams {
            Streams::Expected(_, size) => *size = new,
            Streams::Terminal(terminal) => set_size(terminal, new),
            Streams::Pipes { .. } | Streams::None => {}
        }
    }

    /// Sends a signal to its process, unless that has ended.
    pub fn signal(&self, number: i32) {
        if self.outcome.is_none() {
            // It is not reaped yet, so the number is its own. A signal number is checked by the kernel.
            let (Ok(()) | Err(_)) = sys::send_signal(self.pid, number);
        }
    }

    /// Kills it, with what it has started in its session. Nobody listens any more.
    pub fn abandon(&mut self, epoll: &Epoll) {
        self.is_wanted = false;
        if self.outcome.is_none() {
            let group = Pid::from_raw(-self.pid.as_raw());
            // Before its session is made there is no such group, and the process alone.
            let (Ok(()) | Err(_)) = sys::send_signal(group, libc::SIGKILL);
            self.signal(libc::SIGKILL);
        }
        self.close(epoll);
    }

    /// Lets go of what it waits for.
    fn close(&mut self, epoll: &Epoll) {
        for descriptor in self.descriptors() {
            forget(epoll, descriptor);
        }
        self.status = None;
        self.streams = Streams::None;
    }

    /// The next thing to say to the client.
    pub fn next(&mut self, epoll: &Epoll, slot: usize) -> Option<Answer> {
        if let Some(answer) = self.start(epoll) {
            return Some(answer);
        }
        self.receive_terminal(epoll, slot);
        self.feed(epoll);
        if self.taken > 0 {
            return Some(Answer::Taken { bytes: std::mem::take(&mut self.taken) });
        }
        if let Some((stream, data)) = self.read(epoll) {
            return Some(Answer::Output { stream, data });
        }
        // Its last words are read, though somebody whom it has left behind may still hold the pipe.
        let outcome = self.outcome?;
        self.close(epoll);
        Some(match &self.failure {
            Some(failure) => Answer::Error { why: format!("cannot {}", self.process.explain(failure)) },
            None => Answer::Exit { code: outcome.code() },
        })
    }

    fn start(&mut self, epoll: &Epoll) -> Option<Answer> {
        let progress = self.status.as_mut()?.progress();
        if progress == Progress::Underway {
            return None;
        }
        if let Some(status) = self.status.take() {
            forget(epoll, status.as_fd());
        }
        match progress {
            Progress::Failed(failure) => {
                self.failure = Some(failure);
                None
            }
            Progress::Executed | Progress::Underway => Some(Answer::Started),
        }
    }

    fn receive_terminal(&mut self, epoll: &Epoll, slot: usize) {
        let Streams::Expected(socket, size) = &self.streams else { return };
        let Some(terminal) = receive(socket) else { return };
        let size = *size;
        forget(epoll, socket.as_fd());
        self.streams = Streams::None;
        let ready = fcntl(&terminal, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .and_then(|_| watch(epoll, slot, terminal.as_fd()));
        // Without it the program's terminal hangs up, and the program with it.
        if ready.is_ok() {
            let terminal = File::from(terminal);
            set_size(&terminal, size);
            self.streams = Streams::Terminal(terminal);
        }
    }

    /// Gives it what it takes of its input.
    fn feed(&mut self, epoll: &Epoll) {
        let target = match &mut self.streams {
            Streams::Terminal(terminal) => Some(terminal),
            Streams::Pipes { input, .. } => input.as_mut(),
            Streams::Expected(..) => return,
            Streams::None => None,
        };
        let Some(target) = target else {
            // Nobody reads it any more.
            self.taken += self.input.len();
            self.input.clear();
            return;
        };
        let mut is_closed = false;
        while !self.input.is_empty() {
            let (front, _) = self.input.as_slices();
            match piece(write(&*target, front)) {
                Piece::Some(length) => {
                    self.input.drain(..length);
                    self.taken += length;
                }
                Piece::None => break,
                Piece::End => {
                    is_closed = true;
                    break;
                }
            }
        }
        if (is_closed || self.input_ends && self.input.is_empty())
            && let Streams::Pipes { input, .. } = &mut self.streams
            && let Some(input) = input.take()
        {
            forget(epoll, input.as_fd());
        }
    }

    /// Reads once.
    fn read(&mut self, epoll: &Epoll) -> Option<(Stream, Vec<u8>)> {
        let mut data = Vec::with_capacity(OUTPUT_MAX);
        match &mut self.streams {
            Streams::Terminal(terminal) => match piece(read(&*terminal, spare_capacity(&mut data))) {
                Piece::Some(_) => return Some((Stream::Output, data)),
                Piece::None => {}
                // EIO: nobody has it open any more.
                Piece::End => {
                    forget(epoll, terminal.as_fd());
                    self.streams = Streams::None;
                }
            },
            Streams::Pipes { output, error, .. } => {
                for (stream, pipe) in [(Stream::Output, output), (Stream::Error, error)] {
                    let Some(file) = pipe else { continue };
                    match piece(read(&*file, spare_capacity(&mut data))) {
                        Piece::Some(_) => return Some((stream, data)),
                        Piece::None => {}
                        Piece::End => {
                            forget(epoll, file.as_fd());
                            *pipe = None;
                        }
                    }
                }
            }
            Streams::Expected(..) | Streams::None => {}
        }
        None
    }
}

fn piece(result: rustix::io::Result<usize>) -> Piece {
    match result {
        Ok(0) => Piece::End,
        Ok(length) => Piece::Some(length),
        Err(Errno::AGAIN | Errno::INTR) => Piece::None,
        Err(_) => Piece::End,
    }
}

/// Edges only: whatever woke the loop is asked until it would block.
fn watch(epoll: &Epoll, slot: usize, descriptor: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    epoll.add(descriptor, EpollEvent::new(flags, Source::Exec(slot).encode()))
}

/// Explicitly, because a child on its way to exec may hold a copy, which would keep it in the set.
fn forget(epoll: &Epoll, descriptor: BorrowedFd<'_>) {
    // It was added, so it is there; and if not, that is as well.
    let (Ok(()) | Err(_)) = epoll.delete(descriptor);
}

fn set_size(terminal: &File, size: Size) {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // A terminal whose other side is gone has no size.
    let (Ok(()) | Err(_)) = tcsetwinsize(terminal, size);
}

/// The descriptor that has come over `socket`, if one has.
fn receive(socket: &UnixStream) -> Option<OwnedFd> {
    let mut text = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?;
    ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}
