//! Ways to more privileges than the container was given.

use std::fs;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::{Pid, PidfdFlags, pidfd_open, test_kill_process};

use super::attempt::{Attempt, CALLER, Descriptor, call};
use super::{DATA, Probe};

const THIS: u64 = 0;

const fn attempt(name: &'static str, expected: &'static str, what: fn() -> io::Result<bool>) -> Probe {
    Probe::new(name, expected, Attempt::Do(what))
}

/// All of them.
#[rustfmt::skip]
pub(super) const PRIVILEGES: &[Probe] = &[
    attempt("a set-user-id program of root's", "nothing", set_user_id),
    attempt("a file with CAP_SETUID", "nothing", || gains("/with-setuid", 7)),
    attempt("a file with CAP_SYS_ADMIN", "nothing", || gains("/with-sys-admin", 21)),
    attempt("programs may give more (no_new_privs is off)", "nothing", may_gain),
    attempt("a capability beyond the usual nine", "nothing", has_capability),
    attempt("a capability in the inheritable or ambient set", "nothing", has_ambient),
    attempt("root of the machine is root inside", "nothing", is_machines_root),
    Probe::call("setuid to root", "allowed / EPERM", 105, &[0], b""),
    Probe::call("setresuid to another user", "allowed / EPERM", 117, &[33, 33, 33], b""),
    Probe::call("setuid to what is not there", "EINVAL", 105, &[70_000], b""),
    Probe::call("setgroups", "allowed / EPERM", 116, &[0, 0], b""),
    // _LINUX_CAPABILITY_VERSION_3, every capability in each set
    Probe::call("capset: everything", "EPERM", 126, &[DATA, DATA + 8], b"\x22\x05\x08\x20\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\0\0\xff\x01\0\0\xff\x01\0\0"),
    // PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE: CAP_NET_RAW
    Probe::call("raise an ambient capability", "EPERM", 157, &[47, 2, 13, 0, 0], b""),
    // PR_SET_SECUREBITS: SECBIT_NO_SETUID_FIXUP
    Probe::call("set the secure bits", "allowed / EPERM", 157, &[28, 4], b""),
    // PR_SET_NO_NEW_PRIVS to 0
    Probe::call("lift no_new_privs", "EINVAL", 157, &[38, 0, 0, 0, 0], b""),
    // PR_SET_SECCOMP to nothing, SECCOMP_SET_MODE_FILTER with none
    Probe::call("lift the filter", "EINVAL", 157, &[22, 0], b""),
    // PR_SET_MM: PR_SET_MM_START_CODE
    Probe::call("prctl: change the memory's layout", "EPERM", 157, &[35, 1, 0x1000, 0, 0], b""),
    Probe::call("ptrace: be traced", "EPERM", 101, &[0], b""),
    attempt("ptrace another process", "EPERM", || of_sibling(|pid| call(101, &[16, pid], b"", None))),
    attempt("read another process's memory", "EPERM", || of_sibling(|pid| call(310, &[pid, DATA, 1, DATA + 16, 1, 0], MEMORY, None))),
    attempt("write another process's memory", "EPERM", || of_sibling(|pid| call(311, &[pid, DATA, 1, DATA + 16, 1, 0], MEMORY, None))),
    attempt("compare with another process", "EPERM", || of_sibling(|pid| call(312, &[pid, pid, 2, 0, 0], b"", None))),
    attempt("take another process's descriptor", "EPERM", take_descriptor),
    attempt("signal PID 1 of the machine", "ESRCH", || machines_first(test_kill_process)),
    attempt("pidfd_open PID 1 of the machine", "ESRCH", || machines_first(|pid| pidfd_open(pid, PidfdFlags::empty()).map(drop))),
    attempt("signal another service's process", "ESRCH", signal_victim),
    // RLIMIT_NOFILE above, RLIMIT_CORE at 1 GiB
    Probe::call("prlimit: more descriptors", "EPERM", 302, &[THIS, 7, DATA, 0], b"\0\0\x08\0\0\0\0\0\0\0\x08\0\0\0\0\0"),
    Probe::call("prlimit: core dumps", "EPERM", 302, &[THIS, 4, DATA, 0], b"\0\0\0\x40\0\0\0\0\0\0\0\x40\0\0\0\0"),
    Probe::call("setpriority -20", "EACCES", 141, &[0, 0, u64::MAX - 19], b""),
    // SCHED_FIFO with priority 1
    Probe::call("sched_setscheduler: real time", "EPERM", 144, &[THIS, 1, DATA], b"\x01\0\0\0"),
    // IOPRIO_CLASS_RT
    Probe::call("ioprio_set: real time", "EPERM", 251, &[1, THIS, 1 << 13], b""),
    Probe::new("lower its oom_score_adj", "EACCES", Attempt::Write("/proc/self/oom_score_adj", "-1000")),
    Probe::new("write its uid_map", "EPERM", Attempt::Write("/proc/self/uid_map", "0 0 1")),
    // TIOCSTI, TIOCLINUX
    Probe::with("type into a terminal", "EPERM", 16, &[2, 0x5412, DATA], b"x", Descriptor::File("/dev/ptmx")),
    Probe::with("paste into a console", "EPERM", 16, &[2, 0x541c, DATA], b"\x03", Descriptor::File("/dev/ptmx")),
    Probe::call("give a file to who is not there", "EINVAL", 92, &[DATA, 70_000, 70_000], b"/shared\0"),
    Probe::call("make a set-user-id program", "allowed / EPERM", 90, &[DATA, 0o4755], b"/shared\0"),
    // CAP_SYS_ADMIN, permitted and effective
    Probe::call("give a file capabilities", "EPERM", 188, &[DATA, DATA + 8, DATA + 28, 20, 0], b"/shared\0security.capability\0\x01\0\0\x02\0\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    Probe::call("write an attribute of overlayfs", "EPERM", 188, &[DATA, DATA + 8, DATA + 8, 1, 0], b"/shared\0trusted.overlay.opaque\0"),
    // FS_IOC_SETFLAGS: immutable
    Probe::with("make a file immutable", "EPERM", 16, &[2, 0x4008_6602, DATA], b"\x10\0\0\0", Descriptor::File("/shared")),
];

/// Two vectors: 8 bytes of this process, and 8 bytes of the other, which has its memory at the same places.
const MEMORY: &[u8] = b"\x80\x10\x40\0\0\0\0\0\x08\0\0\0\0\0\0\0\x80\x10\x40\0\0\0\0\0\x08\0\0\0\0\0\0\0";

/// Runs the program's copy that has root's set-user-id bit: whether it had more than this one.
fn set_user_id() -> io::Result<bool> {
    let mine = rustix::process::geteuid().as_raw().to_string();
    let output = Command::new("/set-user-id").arg("euid").output()?;
    Ok(output.status.success() && String::from_utf8_lossy(&output.stdout).trim() != mine)
}

/// Whether a copy of the program gets the capability that its file has, and this one has not.
fn gains(path: &str, capability: u32) -> io::Result<bool> {
    let has = |status: &str| set(status, "CapEff:").is_some_and(|set| set & (1 << capability) != 0);
    if has(&fs::read_to_string("/proc/self/status")?) {
        return Ok(false);
    }
    let output = Command::new(path).arg("status").stderr(Stdio::null()).output()?;
    Ok(output.status.success() && has(&String::from_utf8_lossy(&output.stdout)))
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn set(status: &str, name: &str) -> Option<u64> {
    field(status, name).and_then(|digits| u64::from_str_radix(digits, 16).ok())
}

fn may_gain() -> io::Result<bool> {
    Ok(field(&fs::read_to_string("/proc/self/status")?, "NoNewPrivs:") == Some("0"))
}

fn has_capability() -> io::Result<bool> {
    /// CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE.
    const USUAL: u64 = 0x5fb;
    let status = fs::read_to_string("/proc/self/status")?;
    Ok(["CapEff:", "CapPrm:", "CapBnd:"]
        .iter()
        .any(|name| set(&status, name).is_some_and(|set| set & !USUAL != 0)))
}

fn has_ambient() -> io::Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    Ok(["CapInh:", "CapAmb:"].iter().any(|name| set(&status, name) != Some(0)))
}

/// By the map of ids.
fn is_machines_root() -> io::Result<bool> {
    Ok(fs::read_to_string("/proc/self/uid_map")?.split_whitespace().nth(1) == Some("0"))
}

/// Does something to a process of the same user, which waits.
fn of_sibling(attempt: impl FnOnce(u64) -> io::Result<bool>) -> io::Result<bool> {
    const POLL: u64 = 7;
    const MILLISECONDS: u64 = 60_000;
    let mut sibling = Command::new(CALLER).stdin(Stdio::piped()).spawn()?;
    let mut pipe = sibling.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let words = [POLL, 0, 0, MILLISECONDS, 0, 0, 0];
    pipe.write_all(&words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>())?;
    // It has its memory when it has read this.
    while rustix::io::ioctl_fionread(&pipe)? > 0 {
        thread::yield_now();
    }
    let result = attempt(u64::from(sibling.id()));
    sibling.kill()?;
    sibling.wait()?;
    result
}

/// By its pidfd, which is descriptor 2 of the one that asks.
fn take_descriptor() -> io::Result<bool> {
    of_sibling(|pid| {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        call(438, &[2, 0, 0], b"", Some(pidfd_open(pid, PidfdFlags::empty())?))
    })
}

/// The machine's first process, where it is seen.
fn machines_first(attempt: impl FnOnce(Pid) -> rustix::io::Result<()>) -> io::Result<bool> {
    if fs::read_to_string("/proc/1/comm")? != "init\n" {
        return Err(rustix::io::Errno::SRCH.into());
    }
    attempt(Pid::INIT)?;
    Ok(true)
}

fn signal_victim() -> io::Result<bool> {
    let victims = super::proc::victims()?;
    let pid = victims.first().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
    test_kill_process(pid.ok_or(rustix::io::Errno::SRCH)?)?;
    Ok(true)
}
