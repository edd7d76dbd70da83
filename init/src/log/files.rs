//! What is said, given to the process that writes it to files.
//!
//! That is a child of PID 1 with a program of its own: init's, called in another way. It reads a pipe that PID 1 never waits
//! for. When it ends before the machine does, another one takes its place.

use std::ffi::{CString, c_int};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, pipe2, read, write};
use rustix::thread::CapabilitySet;

use super::Line;
use super::feed::{Feed, Said, Voice};
use super::frame::Frame;
use super::outbox::Outbox;
use super::timestamp::Timestamp;
use super::writer::{self, Rotation};
use crate::container;
use crate::sys::{self, Strings};
use crate::{clock, fatal, mounts};

/// How the program is told that it is to write files.
const WORD: &str = "write-logs";
/// The pause before a writer that has ended is replaced; each next one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A writer that has lived so long was no attempt.
const LASTING: Duration = Duration::from_secs(60);
/// Longer news of a writer are cut.
const NEWS_MAX: usize = 4096;

/// The way to the files.
pub struct Files {
    program: Program,
    /// The writer's own, so that no limit of services is its limit.
    cgroup: File,
    feed: Feed,
    outbox: Outbox,
    /// Whether there is more than the outbox had room for.
    has_more: bool,
    writer: Option<Writer>,
    /// Not started before then.
    until: Duration,
    pause: Duration,
    /// Holds the pipes that come and go, so that the supervisor has but one to wait for.
    epoll: Epoll,
}

/// The process.
struct Writer {
    pid: Pid,
    since: Duration,
    /// None when it has been told that nothing follows.
    lines: Option<OwnedFd>,
    /// Whether the pipe is waited for.
    is_watched: bool,
    news: OwnedFd,
}

/// What it runs.
struct Program {
    path: CString,
    arguments: Strings,
    environment: Strings,
}

impl Files {
    /// The way to files in a folder of the machine. The writer starts when there is something to write.
    pub fn new(settings: &manifest::Files, cgroup: File) -> nix::Result<Self> {
        let words = [
            "init".to_owned(),
            WORD.to_owned(),
            settings.folder.clone(),
            settings.max_size.to_string(),
            settings.max_files.to_string(),
        ];
        let words: Result<Vec<CString>, _> = words.into_iter().map(CString::new).collect();
        let program = Program {
            // By the link that leads to this very program, wherever it is.
            path: c"/proc/self/exe".to_owned(),
            arguments: Strings::new(&words.map_err(|_| Errno::EINVAL)?),
            environment: Strings::new(&[]),
        };
        Ok(Self {
            program,
            cgroup,
            feed: Feed::default(),
            outbox: Outbox::default(),
            has_more: false,
            writer: None,
            until: Duration::ZERO,
            pause: FIRST_PAUSE,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        })
    }

    /// What to wait for.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// When [`attend`](Self::attend) is due even if nothing comes.
    pub fn deadline(&self) -> Option<Duration> {
        (self.writer.is_none() && self.is_waiting()).then_some(self.until)
    }

    /// Whether something is to be written.
    fn is_waiting(&self) -> bool {
        self.has_more || !self.outbox.is_empty()
    }

    /// Passes on what `voices` have said, as far as it goes. Returns what is to be said about that.
    pub fn attend<'a>(
        &mut self,
        now: Duration,
        voices: impl Fn(usize) -> Option<Voice<'a>>,
    ) -> Option<String> {
        self.fill(now, voices);
        let mut news = None;
        if self.writer.is_none() && self.until <= now && self.is_waiting() {
            self.until = now + self.pause;
            match self.start(now) {
                Ok(writer) => self.writer = Some(writer),
                Err(errno) => news = Some(format!("cannot start the log's writer: {}", errno.desc())),
            }
        }
        self.write();
        news.or_else(|| self.hear())
    }

    /// Takes note of the end of a process. Returns what is to be said about that, if it was the writer.
    pub fn reap(&mut self, pid: Pid, now: Duration) -> Option<String> {
        let writer = self.writer.take_if(|writer| writer.pid == pid)?;
        self.pause = match now.saturating_sub(writer.since) >= LASTING {
            true => FIRST_PAUSE,
            false => (self.pause * 2).min(LONGEST_PAUSE),
        };
        self.until = now + self.pause;
        self.outbox.rewind();
        // Explicitly, because a child on its way to exec may hold copies. One that is not watched is not there.
        for pipe in writer.lines.iter().chain([&writer.news]) {
            let (Ok(()) | Err(_)) = self.epoll.delete(pipe);
        }
        let last = news_from(&writer.news);
        Some(
            last.unwrap_or_else(|| "the log's writer has ended, with what it had not yet written".to_owned()),
        )
    }

    /// Writes what is left, and waits until the writer has ended, but no longer than `patience`.
    pub fn finish<'a>(&mut self, patience: Duration, voices: impl Fn(usize) -> Option<Voice<'a>>) {
        let deadline = clock::now() + patience;
        loop {
            let now = clock::now();
            // Nobody would read it: the machine ends, and what is told on the console does not come to the files.
            drop(self.attend(now, &voices));
            let is_waiting = self.is_waiting();
            let Some(writer) = &mut self.writer else { return };
            if !is_waiting {
                writer.lines = None;
                if is_at_end(&writer.news) {
                    return;
                }
            }
            let left = deadline.saturating_sub(now);
            let timeout = EpollTimeout::try_from(left).unwrap_or(EpollTimeout::ZERO);
            if left.is_zero() || self.epoll.wait(&mut [EpollEvent::empty()], timeout).is_err() {
                // A disk that does not answer keeps what it has.
                let (Ok(()) | Err(_)) = sys::send_signal(writer.pid, Signal::SIGKILL as c_int);
                return;
            }
        }
    }

    /// Adds frames to the outbox while there is room.
    fn fill<'a>(&mut self, now: Duration, voices: impl Fn(usize) -> Option<Voice<'a>>) {
        let Self { feed, outbox, .. } = self;
        // A clock that was set since tells earlier times right as well.
        let start = clock::of_day().saturating_sub(now);
        let mut line = Vec::new();
        self.has_more = true;
        while outbox.has_room() {
            let Some(Said { name, entry }) = feed.next(&voices) else {
                self.has_more = false;
                return;
            };
            let time = Timestamp(start + entry.time);
            line.clear();
            if entry.dropped > 0 {
                let notice = format!("{time} [coracle] {} lines are missing\n", entry.dropped);
                line.extend(notice.as_bytes());
            }
            line.extend(format!("{time} ").as_bytes());
            line.extend(&entry.text);
            line.push(b'\n');
            outbox.add(|bytes| Frame { name, line: &line }.write(bytes));
        }
    }

    fn start(&self, now: Duration) -> nix::Result<Writer> {
        let (input, lines) = pipe2(OFlag::O_CLOEXEC)?;
        let (news, output) = pipe2(OFlag::O_CLOEXEC)?;
        for own in [&lines, &news] {
            fcntl(own, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        // Its own copy of the machine's mounts, in which it may write.
        let pid = sys::clone_into(Some(self.cgroup.as_fd()), libc::CLONE_NEWNS, || {
            fatal::catch_panics_of_child();
            match become_writer(&self.program, &input, &output) {
                Ok(never) => match never {},
                Err(errno) => errno as c_int,
            }
        })?;
        self.epoll.add(&news, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Writer { pid, since: now, lines: Some(lines), is_watched: false, news })
    }

    /// Gives the writer what its pipe takes.
    fn write(&mut self) {
        let is_waiting = self.is_waiting();
        let Some(Writer { lines: Some(lines), is_watched, .. }) = &mut self.writer else { return };
        while !self.outbox.rest().is_empty() {
            match write(&*lines, self.outbox.rest()) {
                Ok(length) => self.outbox.take(length),
                Err(Errno::EINTR) => {}
                // It is full; or nobody reads it any more, and the end of that process comes as a signal.
                Err(_) => break,
            }
        }
        let is_waiting = is_waiting && (self.has_more || !self.outbox.is_empty());
        if is_waiting != *is_watched {
            let done = match is_waiting {
                true => self.epoll.add(&*lines, EpollEvent::new(EpollFlags::EPOLLOUT, 0)),
                false => self.epoll.delete(&*lines),
            };
            *is_watched = is_waiting && done.is_ok();
        }
    }

    /// What the writer says.
    fn hear(&self) -> Option<String> {
        self.writer.as_ref().and_then(|writer| news_from(&writer.news))
    }
}

/// One reading of news, in one line.
fn news_from(news: &OwnedFd) -> Option<String> {
    let mut buffer = [0; NEWS_MAX];
    let length = read(news, &mut buffer).ok().filter(|length| *length > 0)?;
    let lines: Vec<String> = buffer
        .get(..length)?
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| Line(line).to_string())
        .collect();
    Some(lines.join("; "))
}

/// Whether nobody writes to a pipe any more.
fn is_at_end(news: &OwnedFd) -> bool {
    read(news, &mut [0; NEWS_MAX]) == Ok(0)
}

enum Never {}

/// In the child: becomes the writer, which has of all that PID 1 may do the one thing that it needs.
fn become_writer(program: &Program, input: &OwnedFd, output: &OwnedFd) -> nix::Result<Never> {
    mounts::unseal()?;
    // Files may belong to a service that has the folder as a volume.
    container::keep_capabilities(CapabilitySet::DAC_OVERRIDE)?;
    sys::duplicate(input.as_fd(), 0)?;
    sys::duplicate(output.as_fd(), 1)?;
    sys::close_on_exec_from(2)?;
    Err(sys::execute(&program.path, &program.arguments.pointers(), &program.environment.pointers()))
}

/// Whether a program with these arguments is to be the writer, and if so, its whole life.
pub fn serve(arguments: &[String]) -> Option<c_int> {
    let [_, word, folder, max_size, max_files] = arguments else { return None };
    let (WORD, Ok(max_size), Ok(max_files)) = (word.as_str(), max_size.parse(), max_files.parse()) else {
        return None;
    };
    let (input, output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let served =
        writer::open_folder(Path::new(folder)).map_err(|error| error.to_string()).and_then(|folder| {
            writer::run(folder, Rotation { max_size, max_files }, input, output)
                .map_err(|error| error.to_string())
        });
    match served {
        Ok(()) => Some(0),
        Err(error) => {
            // Said, if somebody still listens.
            let (Ok(()) | Err(_)) = writeln!(std::io::stdout(), "{error}");
            Some(1)
        }
    }
}
