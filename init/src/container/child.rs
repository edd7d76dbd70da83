//! The child between clone and exec.
//!
//! It is a copy of PID 1 with few of its descriptors (see [`Origin`]): it must not return into PID 1's code. What it may
//! do is allocate, because PID 1 has one thread, so no lock can be held by another. Whatever fails ends it, with one
//! [`Failure`] in the pipe.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{
    Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchdir, fchown, pivot_root, sethostname, setsid, write,
};
use rustix::io::fcntl_dupfd_cloexec;

use super::failure::{Failure, Step};
use super::ids::Ids;
use super::init::{self, Init};
use super::rootfs::{Plan, Root};
use super::running::Running;
use super::shared::Terms;
use super::{Launch, Numbered, Origin, Process, Stdio, credentials, status};
use crate::error::errno;
use crate::sys::{self, Pointers};
use crate::{fatal, net};

/// What a process of a container says of its start: the pipe, and once somebody has come through its gate, that one.
type Report = Option<OwnedFd>;

/// What a container's start is given beside what it was prepared with.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    /// The parent, whose table of descriptors the child begins with. All others are to be taken from it.
    pub(super) origin: &'a Origin,
    pub(super) stdio: Stdio<'a>,
    pub(super) gate: Option<BorrowedFd<'a>>,
    /// Where its own init, if it has one, says how the program has ended.
    pub(super) teller: Option<BorrowedFd<'a>>,
}

/// The same in the child, once it has taken them.
struct Own {
    ids: Ids,
    stdio: Stdio<'static>,
    gate: Option<UnixListener>,
    teller: Option<OwnedFd>,
}

/// Becomes the container. Returns only when that failed, with the code to end with.
pub(super) fn run(launch: &Launch, parts: &Parts<'_>, report: BorrowedFd<'_>) -> i32 {
    let failed = |errno| Failure::new(Step::Descriptors, 0, errno);
    if let Err(errno) = parts.origin.leave() {
        return end(Some(report), &failed(errno));
    }
    // Without it, nobody can be told.
    let Ok(report) = parts.origin.take(report) else { return failed(Errno::EBADF).exit_code() };
    attempt(report, |report| {
        let own = Own::take(launch, parts).map_err(failed)?;
        if let Some(report) = report {
            write(&*report, &[status::TAKEN]).map_err(failed)?;
        }
        become_container(launch, &own, report)
    })
}

impl Own {
    fn take(launch: &Launch, &Parts { origin, stdio, gate, teller }: &Parts<'_>) -> nix::Result<Self> {
        // They last until exec, by which others are in their places.
        let lasting = |descriptor| {
            let taken: &'static OwnedFd = Box::leak(Box::new(origin.take(descriptor)?));
            Ok(taken.as_fd())
        };
        Ok(Self {
            ids: launch.ids.taken(origin)?,
            stdio: stdio.replaced(lasting)?,
            gate: gate.map(|gate| origin.take(gate).map(UnixListener::from)).transpose()?,
            teller: teller.map(|teller| origin.take(teller)).transpose()?,
        })
    }
}

/// Becomes a further process of a container that runs. Likewise.
pub(super) fn enter(running: &Running, process: &Process, stdio: Stdio<'_>, report: OwnedFd) -> i32 {
    attempt(report, |report| join_container(running, process, stdio, report))
}

fn attempt(report: OwnedFd, attempt: impl FnOnce(&mut Report) -> Result<Never, Failure>) -> i32 {
    fatal::catch_panics_of_child();
    let mut report = Some(report);
    let failure = match attempt(&mut report) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    end(report.as_ref().map(AsFd::as_fd), &failure)
}

/// Tells a failure, and returns the code to end with.
fn end(report: Option<BorrowedFd<'_>>, failure: &Failure) -> i32 {
    // Without a reader nobody wants to know; the exit code says the rest.
    match report.map(|report| write(report, &failure.encode())) {
        None | Some(Ok(_) | Err(_)) => failure.exit_code(),
    }
}

enum Never {}

fn become_container(launch: &Launch, own: &Own, report: &mut Report) -> Result<Never, Failure> {
    let Own { ids, stdio, gate, teller } = own;
    let at = |step| move |errno| Failure::new(step, 0, errno);
    let process = &launch.process;
    let terms = &*process.terms;
    isolate().map_err(at(Step::Isolate))?;
    // Not among clone's flags: there the namespace's root would be the cgroup of PID 1.
    unshare(CloneFlags::CLONE_NEWCGROUP).map_err(at(Step::Isolate))?;
    sethostname(&*launch.hostname).map_err(at(Step::Hostname))?;
    if launch.namespaces & libc::CLONE_NEWNET != 0 {
        net::begin_own().map_err(at(Step::Network))?;
    }
    launch.settings.apply().map_err(|(index, errno)| Failure::new(Step::Sysctl, index, errno))?;

    // Exact modes for what is made in /dev; the program gets the usual mask below.
    umask(Mode::empty());
    let own_program = launch.init.as_ref().map(|_| init::program()).transpose().map_err(at(Step::Init))?;
    let root = Plan::build(&launch.root, ids, (terms.uid, terms.gid))?;
    let cwd = root.open(&terms.cwd).map_err(at(Step::WorkingDirectory))?;
    enter_root(&root).map_err(at(Step::Pivot))?;
    fchdir(&cwd).map_err(at(Step::WorkingDirectory))?;
    if let (Some(init), Some(own_program), Some(teller)) = (&launch.init, own_program, teller) {
        let parts = init::Parts { own_program, teller: teller.as_fd(), process, ids, stdio: *stdio };
        return become_init(init, parts, report);
    }
    become_process(process, ids, *stdio, gate.as_ref(), report)
}

/// Stays the first process, and lets a second one become the program. Both have the report: a start has been executed when
/// both have, and has failed with the first of them.
fn become_init(init: &Init, parts: init::Parts<'_>, report: &mut Report) -> Result<Never, Failure> {
    let at = |errno| Failure::new(Step::Init, 0, errno);
    // Orphans are its children also where it is not the first process of a pid namespace.
    prctl::set_child_subreaper(true).map_err(at)?;
    let program = sys::clone_into(None, 0, || {
        // It is there: nothing has been said yet.
        let Some(report) = report.take() else {
            return Failure::new(Step::Init, 0, Errno::EBADF).exit_code();
        };
        attempt(report, |report| {
            // As where it is the first process.
            setsid().map_err(at)?;
            become_process(parts.process, parts.ids, parts.stdio, None, report)
        })
    });
    let terms = &parts.process.terms;
    connect(parts.stdio, parts.ids.outside(terms.uid, terms.gid)).map_err(at)?;
    Err(at(init.execute(&parts, program.map_err(at)?)))
}

/// All that a container is has been made by its first process.
fn join_container(
    running: &Running,
    process: &Process,
    stdio: Stdio<'_>,
    report: &mut Report,
) -> Result<Never, Failure> {
    let at = |step| move |errno| Failure::new(step, 0, errno);
    isolate().map_err(at(Step::Isolate))?;
    running.join().map_err(at(Step::Join))?;
    // Without magic links, because descriptors of the machine are still open (CVE-2024-21626).
    let root = Root::own().map_err(at(Step::Join))?;
    let cwd = root.open(&process.terms.cwd).map_err(at(Step::WorkingDirectory))?;
    fchdir(&cwd).map_err(at(Step::WorkingDirectory))?;
    become_process(process, &running.ids, stdio, None, report)
}

/// The rest of the way, which begins inside the container and takes away what its processes may not do.
fn become_process(
    process: &Process,
    ids: &Ids,
    stdio: Stdio<'_>,
    gate: Option<&UnixListener>,
    report: &mut Report,
) -> Result<Never, Failure> {
    let at = |step| move |errno| Failure::new(step, 0, errno);
    let Terms { uid, gid, groups, rights, limits, .. } = &*process.terms;
    // Before the limits, which may leave no memory, and the filter, which may not let it take any.
    let program = Program {
        paths: process.paths(),
        arguments: process.arguments.pointers(),
        environment: process.environment.pointers(),
    };
    umask(Mode::from_bits_truncate(0o022));
    let numbered = match stdio {
        Stdio::Log { ready, .. } => ready,
        _ => None,
    };
    if numbered.is_some() {
        // Before the limits, which may leave no such number.
        move_beyond_numbers(report).map_err(at(Step::Descriptors))?;
    }
    connect(stdio, ids.outside(*uid, *gid)).map_err(at(Step::Stdio))?;
    credentials::limit(&limits.resources).map_err(at(Step::Limits))?;

    // From here on what it may do ends at the container's own ids.
    ids.enter().map_err(at(Step::UserNamespace))?;
    rights.bound().map_err(at(Step::Capabilities))?;
    credentials::become_user(*uid, *gid, groups).map_err(at(Step::User))?;
    rights.keep(*uid).map_err(at(Step::Capabilities))?;
    rights.renounce().map_err(at(Step::NoNewPrivileges))?;
    // PID 1 handles no signal, so every disposition is the default already.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(at(Step::Signals))?;
    sys::close_on_exec_from(3).map_err(at(Step::Descriptors))?;
    if let Some(Numbered { number, descriptor }) = numbered {
        // It outlasts exec. Whatever else has that number is of no use any more.
        sys::duplicate(descriptor, number).map_err(at(Step::Descriptors))?;
    }
    if let Some(gate) = gate {
        wait_at(gate, report).map_err(at(Step::Gate))?;
    }
    // Last: from here on only what the container may call can be called, and a profile has to allow only exec.
    if let Some(filter) = &process.filter {
        filter.install().map_err(at(Step::Seccomp))?;
    }
    Err(Failure::new(Step::Execute, 0, program.execute()))
}

/// Says that all is well so far, and waits for somebody who wants to see the rest.
fn wait_at(gate: &UnixListener, report: &mut Report) -> nix::Result<()> {
    *report = None;
    let accepted = gate.accept().map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw));
    *report = Some(accepted?.0.into());
    Ok(())
}

/// Steps that come before anything of the container is seen.
fn isolate() -> nix::Result<()> {
    // Until exec, this process has PID 1's memory and descriptors: nobody may look into it.
    prctl::set_dumpable(false)?;
    setsid().map(drop)
}

/// Makes `root` the root. The machine's is below it for a moment, at the same place, and then gone: see
/// pivot_root(2), `pivot_root(".", ".")`. Mounts are private here, because nothing ever made them shared.
fn enter_root(root: &Root) -> nix::Result<()> {
    fchdir(root.as_fd())?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)
}

/// Makes `stdio` the standard descriptors. `user` is the process's, as the machine knows it.
fn connect(stdio: Stdio<'_>, (uid, gid): (Uid, Gid)) -> nix::Result<()> {
    match stdio {
        Stdio::Log { input, output, .. } => {
            // Many images log to /dev/stdout, which opens the pipe anew: its owner must be allowed to.
            fchown(output, Some(uid), Some(gid))?;
            replace(input, output, output)
        }
        Stdio::Given { input, output, error } => replace(input, output, error),
        #[cfg(feature = "exec")]
        Stdio::Terminal(socket) => {
            let terminal = super::terminal::open(socket, (uid, gid))?;
            let terminal = terminal.as_fd();
            replace(terminal, terminal, terminal)
        }
    }
}

fn replace(input: BorrowedFd<'_>, output: BorrowedFd<'_>, error: BorrowedFd<'_>) -> nix::Result<()> {
    dup2_stdin(input)?;
    dup2_stdout(output)?;
    dup2_stderr(error)
}

/// Moves the report to where no descriptor of a [`Numbered`] is put.
fn move_beyond_numbers(report: &mut Report) -> nix::Result<()> {
    const BEYOND: i32 = 256;
    if let Some(pipe) = report {
        *pipe = fcntl_dupfd_cloexec(&*pipe, BEYOND).map_err(errno)?;
    }
    Ok(())
}

/// A program in the form in which exec takes it.
struct Program<'a> {
    paths: Vec<CString>,
    arguments: Pointers<'a>,
    environment: Pointers<'a>,
}

impl Program<'_> {
    /// Tries its paths, as execvp(3) does: one that is not there, or not to be entered, is passed over.
    fn execute(&self) -> Errno {
        let mut reason = Errno::ENOENT;
        for path in &self.paths {
            match sys::execute(path, &self.arguments, &self.environment) {
                Errno::ENOENT | Errno::ENOTDIR => {}
                Errno::EACCES => reason = Errno::EACCES,
                errno => return errno,
            }
        }
        reason
    }
}
