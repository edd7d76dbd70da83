//! The init of a container that has one: its first process, before the program, which reaps what others leave behind and passes
//! signals on to the program.
//!
//! It is init's own program in another role, executed by descriptor: nothing of the image is involved, and no
//! memory of PID 1's is in it. It may do nothing but what it is for: it has no capability but the one to signal, and system calls of
//! its own, fewer than any profile.

use std::ffi::{CString, c_int};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, pipe2, read, write};
use rustix::fs::{Mode, OFlags};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use rustix::thread::CapabilitySet;

use super::ids::Ids;
use super::{Filter, Process, Stdio, credentials};
use crate::error::{Error, Result, errno};
use crate::sys::{self, Strings};

/// How the program is called, which tells it what it is to be. The kernel calls PID 1 by its path.
const NAME: &str = "coracle-init";

/// Prepared once, as all of a container's start.
pub(super) struct Init {
    /// For its own calls.
    filter: Rc<Filter>,
}

/// What the first process has of the start that it came from.
pub(super) struct Parts<'a> {
    /// This program, whose path is out of reach by now.
    pub(super) own_program: OwnedFd,
    /// Where to say how the program has ended.
    pub(super) teller: BorrowedFd<'a>,
    /// The program's own.
    pub(super) process: &'a Process,
    pub(super) ids: &'a Ids,
    pub(super) stdio: Stdio<'a>,
}

/// Descriptors from here on are out of the way of those that the program is started with.
const BEYOND: i32 = 16;

/// This program's file, wherever it is.
pub(super) fn program() -> nix::Result<OwnedFd> {
    let file = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    file.and_then(|file| fcntl_dupfd_cloexec(file, BEYOND)).map_err(errno)
}

impl Init {
    pub(super) fn prepare(filter: Rc<Filter>) -> Self {
        Self { filter }
    }

    /// Becomes the init of the container in which `program` is a child of this process. Signals stay blocked from here
    /// on: none is lost while nobody takes them. Returns only the reason why it could not.
    pub(super) fn execute(&self, parts: &Parts<'_>, program: Pid) -> Errno {
        let (name, nothing) = (Strings::new(&[CString::new(NAME).unwrap_or_default()]), Strings::new(&[]));
        let (arguments, environment) = (name.pointers(), nothing.pointers());
        match self.prepare_process(parts, program) {
            Ok(()) => sys::execute_file(parts.own_program.as_fd(), &arguments, &environment),
            Err(errno) => errno,
        }
    }

    fn prepare_process(&self, parts: &Parts<'_>, program: Pid) -> nix::Result<()> {
        let number = rustix::process::Pid::from_raw(program.as_raw()).ok_or(Errno::ESRCH)?;
        let program = pidfd_open(number, PidfdFlags::empty()).map_err(errno)?;
        parts.ids.enter()?;
        // It does not depend on what the container may do whether its program can be asked to end: one that begins as root may have
        // become somebody else by then.
        let terms = &parts.process.terms;
        let kept = if terms.uid.is_root() { CapabilitySet::KILL } else { CapabilitySet::empty() };
        credentials::become_user_with(terms.uid, terms.gid, &terms.groups, kept)?;
        sys::close_on_exec_from(3)?;
        let inherited =
            [program.as_fd(), parts.teller].map(|one| fcntl_dupfd_cloexec(one, BEYOND).map_err(errno));
        for (descriptor, number) in inherited.into_iter().zip(sys::INHERITED) {
            sys::duplicate(descriptor?.as_fd(), number)?;
        }
        self.filter.install()
    }
}

/// Where a container's own init says how the program has ended.
pub struct Ending(OwnedFd);

impl Ending {
    pub(super) fn pipe() -> Result<(Self, OwnedFd)> {
        let failed = |errno| Error::new("make", "a pipe for the container's own init", errno);
        let (ending, teller) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        fcntl(&ending, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
        Ok((Self(ending), teller))
    }

    /// How the program has ended, by itself or by a signal, as far as that was said before the init was gone.
    pub fn read(&self) -> Option<End> {
        let mut record = [0; End::SIZE];
        let length = read(&self.0, &mut record).ok()?;
        (length == record.len()).then(|| End::decode(record)).flatten()
    }
}

/// How a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

impl End {
    const SIZE: usize = 2;

    fn encode(self) -> [u8; Self::SIZE] {
        match self {
            Self::Code(code) => [0, code],
            Self::Signal(signal) => [1, signal],
        }
    }

    /// Whatever is in a pipe that others in the container may have come to write to.
    fn decode(record: [u8; Self::SIZE]) -> Option<Self> {
        match record {
            [0, code] => Some(Self::Code(code)),
            [1, signal @ 1..=64] => Some(Self::Signal(signal)),
            _ => None,
        }
    }

    /// As a shell would say it.
    fn exit_code(self) -> c_int {
        match self {
            Self::Code(code) => code.into(),
            Self::Signal(signal) => 128 + c_int::from(signal),
        }
    }
}

/// Is the init of a container, if that is how the program was called; returns its exit code when the container's program
/// has ended.
pub fn serve(arguments: &[String]) -> Option<c_int> {
    let [NAME] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] else { return None };
    let failed = |errno: Errno| {
        eprintln!("error: the container's own init cannot go on: {}", errno.desc());
        Some(1)
    };
    let Some([program, teller]) = sys::inherited_pair() else { return failed(Errno::EBADF) };
    let end = match watch(&program) {
        Ok(end) => end,
        Err(errno) => return failed(errno),
    };
    // The exit code says nearly as much to those who do not listen.
    match write(&teller, &end.encode()) {
        Ok(_) | Err(_) => Some(end.exit_code()),
    }
}

/// Reaps and passes signals on until `program` has ended.
fn watch(program: &OwnedFd) -> nix::Result<End> {
    // Else the number of a descriptor, since it was executed by one.
    prctl::set_name(c"init")?;
    // They have been blocked since before the program was there.
    let signals = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC)?;
    loop {
        if let Some(end) = reap(program) {
            return Ok(end);
        }
        let signal = match signals.read_signal() {
            Ok(Some(signal)) => signal,
            Ok(None) | Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        };
        let number = signal.ssi_signo.cast_signed();
        if number != libc::SIGCHLD {
            match sys::send_signal_by(program.as_fd(), number) {
                // It has ended, which is seen next, or has become somebody whom only a capability reaches.
                Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Reaps all that have ended. Returns how `program` has, when it is among them.
fn reap(program: &OwnedFd) -> Option<End> {
    loop {
        let status = match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => status,
            Err(rustix::io::Errno::INTR) => continue,
            Ok(None) | Err(_) => return None,
        };
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // Whoever is no child any more was the one.
        if let Err(rustix::io::Errno::CHILD) = waitid(WaitId::PidFd(program.as_fd()), look) {
            let code =
                status.exit_status().map(|code| End::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)));
            let signal =
                || status.terminating_signal().and_then(|signal| u8::try_from(signal).ok()).map(End::Signal);
            return code.or_else(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_survives_the_pipe() {
        let (ending, teller) = Ending::pipe().unwrap();
        assert_eq!(ending.read(), None, "nothing was said");
        let codes = (0..=u8::MAX).map(End::Code);
        for end in codes.chain((1..=64).map(End::Signal)) {
            write(&teller, &end.encode()).unwrap();
            assert_eq!(ending.read(), Some(end));
        }
        drop(teller);
        assert_eq!(ending.read(), None, "it ended without a word");
    }

    #[test]
    fn what_others_write_is_an_end_or_nothing() {
        for record in [[1, 0], [1, 65], [2, 0], [255, 255]] {
            assert_eq!(End::decode(record), None, "{record:?}");
        }
        let (ending, teller) = Ending::pipe().unwrap();
        write(&teller, &[0]).unwrap();
        assert_eq!(ending.read(), None, "half a record");
    }

    #[test]
    fn it_is_called_by_its_name_and_by_nothing_else() {
        for arguments in [&["/init"][..], &["init", "write-logs"], &["/init", "coracle-init"], &[]] {
            let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
            assert_eq!(serve(&arguments), None);
        }
    }

    #[test]
    fn the_exit_code_is_a_shells() {
        assert_eq!(End::Code(7).exit_code(), 7);
        assert_eq!(End::Signal(9).exit_code(), 137);
    }
}
