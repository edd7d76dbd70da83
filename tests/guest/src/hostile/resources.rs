//! How much of everything there is: each probe takes more than a container may have, up to a bound of its own.

use std::fs::{self, File};
use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::timer::Timer;
use nix::time::ClockId;

use super::Probe;
use super::attempt::{Attempt, PLANTED_QUEUE, call};

const fn attempt(name: &'static str, expected: &'static str, what: fn() -> io::Result<bool>) -> Probe {
    Probe::new(name, expected, Attempt::Alone(what))
}

/// All of them. What would end the whole container is among the bombs instead.
#[rustfmt::skip]
pub(super) const RESOURCES: &[Probe] = &[
    attempt("600 threads", "EAGAIN", threads),
    attempt("70,000 descriptors", "EMFILE", descriptors),
    // MAP_PRIVATE, MAP_ANONYMOUS and MAP_LOCKED
    Probe::call("lock 256 KiB of memory", "EAGAIN", 9, &[0, 256 << 10, 3, 0x2022, u64::MAX, 0], b""),
    attempt("65 MiB in /dev/shm", "ENOSPC", shared_memory),
    attempt("200 instances of inotify", "EMFILE", inotify),
    attempt("20,000 timers", "EAGAIN", timers),
    // IPC_PRIVATE, IPC_CREAT
    Probe::call("a set of 40,000 semaphores", "EINVAL", 64, &[0, 40_000, 0o1600], b""),
    attempt("another service's message queue", "ENOENT", || call(68, &[PLANTED_QUEUE, 0], b"", None)),
    attempt("an argument of 256 KiB", "E2BIG", argument),
    attempt("1,000 files in /tmp", "allowed", files),
];

/// A thread counts like a process.
fn threads() -> io::Result<bool> {
    let (ends, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let mut result = Ok(true);
    for _ in 0..600 {
        let wait = Arc::clone(&wait);
        // Ends when the sender is gone; a poisoned lock ends it as well.
        let body = move || drop(wait.lock().map(|wait| wait.recv()));
        if let Err(error) = thread::Builder::new().stack_size(16 << 10).spawn(body) {
            result = Err(error);
            break;
        }
    }
    drop(ends);
    result
}

/// After the soft limit has been raised to the hard one.
fn descriptors() -> io::Result<bool> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let first = File::open("/dev/null")?;
    let all: Vec<File> = (0..70_000).map(|_| first.try_clone()).collect::<io::Result<_>>()?;
    Ok(all.len() == 70_000)
}

fn shared_memory() -> io::Result<bool> {
    let path = "/dev/shm/much";
    let file = File::create(path)?;
    let result = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 65 << 20);
    fs::remove_file(path)?;
    result?;
    Ok(true)
}

fn inotify() -> io::Result<bool> {
    let make = |_| rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC);
    let all = (0..200).map(make).collect::<rustix::io::Result<Vec<_>>>()?;
    Ok(all.len() == 200)
}

/// A timer has a signal in the queue from its beginning on, and these are limited.
fn timers() -> io::Result<bool> {
    let make = |_| {
        Timer::new(
            ClockId::CLOCK_MONOTONIC,
            SigEvent::new(SigevNotify::SigevSignal { signal: Signal::SIGALRM, si_value: 0 }),
        )
    };
    let all = (0..20_000).map(make).collect::<nix::Result<Vec<_>>>()?;
    Ok(all.len() == 20_000)
}

/// The kernel takes 128 KiB a string.
fn argument() -> io::Result<bool> {
    Command::new("/hostile").arg("x".repeat(256 << 10)).status().map(|_| true)
}

fn files() -> io::Result<bool> {
    let folder = format!("/tmp/files-{}", std::process::id());
    fs::create_dir(&folder)?;
    let result = (0..1_000).try_for_each(|number| File::create(format!("{folder}/{number}")).map(drop));
    fs::remove_dir_all(&folder)?;
    result.map(|()| true)
}
