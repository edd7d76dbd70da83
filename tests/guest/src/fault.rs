//! What goes wrong on purpose, and those to whom it does.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, kill_process, prlimit, wait};
use rustix::time::{ClockId, Timespec, clock_settime};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::census::CGROUPS;

/// Numbers that look like chance, and are the same for the same seed (xorshift64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let place = usize::try_from(self.below(from.len() as u64)).ok()?;
        from.get(place).copied()
    }
}

/// What processes are killed by. The first process of a container has no use for most of them, which makes them no
/// less a nuisance.
const DEATHS: [Signal; 10] = [
    Signal::KILL,
    Signal::KILL,
    Signal::KILL,
    Signal::KILL,
    Signal::TERM,
    Signal::SEGV,
    Signal::ABORT,
    Signal::HUP,
    Signal::STOP,
    Signal::CONT,
];

/// Kills processes of services whose names begin with `prefix`, one every 0 to 100 ms. Returns how many by which signal.
pub fn chaos(seed: u64, duration: Duration, prefix: &str) -> io::Result<BTreeMap<String, u64>> {
    let mut chance = Chance(seed | 1);
    let (begun, mut deaths) = (Instant::now(), BTreeMap::new());
    let services: Vec<String> = crate::facts::names(&format!("{CGROUPS}/services"))?
        .into_iter()
        .filter(|name| name.starts_with(prefix))
        .collect();
    let places: Vec<usize> = (0..services.len()).collect();
    while begun.elapsed() < duration {
        let Some(service) = chance.pick(&places).and_then(|place| services.get(place)) else { break };
        let text = fs::read_to_string(format!("{CGROUPS}/services/{service}/cgroup.procs"))?;
        let mut pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        pids.sort_unstable();
        // The first process as often as all others together.
        let first = pids.first().copied();
        let pid = if chance.below(2) == 0 { first } else { chance.pick(&pids) };
        if let (Some(pid), Some(signal)) = (pid.and_then(Pid::from_raw), chance.pick(&DEATHS))
            && kill_process(pid, signal).is_ok()
        {
            *deaths.entry(format!("{signal:?}")).or_default() += 1;
            // Nobody would notice one that stands still, unless the config asks for signs of life.
            if signal == Signal::STOP {
                thread::sleep(Duration::from_millis(20));
                // It may have been killed meanwhile.
                let (Ok(()) | Err(_)) = kill_process(pid, Signal::CONT);
            }
        }
        thread::sleep(Duration::from_millis(chance.below(100)));
    }
    Ok(deaths)
}

/// Kills the first process of a service, and the one that comes in its place as soon as it is there: before it runs its
/// program, or as soon as it does (`executed`). Returns whether it was before.
pub fn ambush(service: &str, executed: bool) -> io::Result<bool> {
    let processes = format!("{CGROUPS}/services/{service}/cgroup.procs");
    let first = || -> io::Result<Option<Pid>> {
        let text = fs::read_to_string(&processes)?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).min().and_then(Pid::from_raw))
    };
    let init = fs::read_link("/proc/1/exe")?;
    // None at all where the process has just ended.
    let prepares = |pid: Pid| {
        let program = fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero()));
        program.is_ok_and(|program| program == init)
    };
    if let Some(pid) = first()? {
        kill_process(pid, Signal::KILL)?;
    }
    // Its children go with it.
    while first()?.is_some() {}
    loop {
        let Some(pid) = first()? else { continue };
        while executed && prepares(pid) {}
        let before = prepares(pid);
        // It may have ended by itself meanwhile.
        let (Ok(()) | Err(_)) = kill_process(pid, Signal::KILL);
        return Ok(before);
    }
}

/// Lives with `count` children, each of which is born again when it dies.
pub fn family(count: usize) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGCHLD])?;
    let mut living = 0;
    loop {
        // Whoever lost a parent is reaped as well.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {
            living = usize::saturating_sub(living, 1);
        }
        while living < count {
            Command::new("/proc/self/exe")
                .args(["sleep", "3600000"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()?;
            living += 1;
        }
        if signals.wait().any(|signal| signal != SIGCHLD) {
            return Ok(());
        }
    }
}

/// Signals for PID 1 that ask it for nothing, and three that would end anybody else.
const STORM: [Signal; 9] = [
    Signal::HUP,
    Signal::CHILD,
    Signal::PIPE,
    Signal::ALARM,
    Signal::CONT,
    Signal::WINCH,
    Signal::KILL,
    Signal::STOP,
    Signal::SEGV,
];

/// Sends `count` signals to PID 1.
pub fn storm(count: u64) -> io::Result<()> {
    let kinds = STORM.iter().cycle();
    (0..count).zip(kinds).try_for_each(|(_, &signal)| Ok(kill_process(Pid::INIT, signal)?))
}

/// The control channel, as a service sees it.
const CONTROL: &str = "/dev/coracle.ctl";

/// Opens `count` connections to the control channel, says something odd on each third, and holds them for a while.
/// Returns how many there were.
pub fn clients(count: usize, duration: Duration) -> io::Result<usize> {
    let address = SocketAddrUnix::new(CONTROL)?;
    let mut open = Vec::new();
    for number in 0..count {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )?;
        match connect(&socket, &address) {
            Ok(()) => open.push(File::from(socket)),
            // More wait already than the kernel lets wait.
            Err(Errno::AGAIN) => thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(error.into()),
        }
        let words: &[u8] = match number % 3 {
            0 => b"\xff\x00{]\n{\"id\":1,\"ask\":\"hello\"}\n",
            1 => b"{\"id\":2,\"ask\":{\"events\":{\"since\":0,\"follow\":true}}}\n",
            _ => b"{\"id\":3,",
        };
        if let Some(stream) = open.last_mut() {
            // It is closed if it has said too much, or full if it has not been read.
            let (Ok(()) | Err(_)) = stream.write_all(words);
        }
    }
    thread::sleep(duration);
    Ok(open.len())
}

/// Becomes a client of the control channel, and waits for as long as a client may have to.
pub fn greet() -> io::Result<String> {
    let mut stream = UnixStream::connect(CONTROL)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(b"{\"id\":1,\"ask\":\"hello\"}\n")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer)
}

/// Lets a process have `count` descriptors, or `spare` more than it has now.
pub fn limit_descriptors(pid: i32, spare: Option<u64>) -> io::Result<()> {
    let open = crate::facts::names(&format!("/proc/{pid}/fd"))?;
    let current = match spare {
        // The next one gets the lowest number that is free.
        Some(spare) => {
            (0..).find(|number: &u64| !open.contains(&number.to_string())).unwrap_or_default() + spare
        }
        None => 1024,
    };
    let limit = Rlimit { current: Some(current), maximum: Some(1 << 16) };
    prlimit(Pid::from_raw(pid), Resource::Nofile, limit)?;
    Ok(())
}

/// Sets the machine's wall clock.
pub fn set_clock(seconds: i64) -> io::Result<()> {
    Ok(clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: 0 })?)
}

/// Mounts a file system in which nothing is ever found: who looks waits, and not even SIGKILL ends that. It lasts as long as
/// this process.
pub fn hang(folder: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut device = File::options().read(true).write(true).open("/dev/fuse")?;
    let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let data = CString::new(data).map_err(io::Error::other)?;
    mount("hang", folder, "fuse", MountFlags::empty(), data.as_c_str())?;
    // Whoever waits here is to be stopped first.
    let _signals = Signals::new([SIGTERM])?;
    println!("hanging");
    let mut request = vec![0; 1 << 20];
    loop {
        let length = match device.read(&mut request) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            length => length?,
        };
        // `struct fuse_in_header` of <linux/fuse.h>: length, operation, and a number that the answer repeats.
        let (Some(operation), Some(number)) = (request.get(4..8), request.get(8..16)) else {
            return Err(io::Error::other(format!("a request of {length} bytes")));
        };
        if operation == INIT.to_ne_bytes() {
            device.write_all(&init_answer(number))?;
        }
    }
}

/// The first request, and the only one that is answered.
const INIT: u32 = 26;

/// `struct fuse_out_header` and the first version of `struct fuse_init_out`: protocol 7.8 without any extension.
fn init_answer(number: &[u8]) -> Vec<u8> {
    let word = |value: u32| value.to_ne_bytes();
    let body = [word(7), word(8), word(0), word(0), word(0), word(4096)].concat();
    let length = u32::try_from(16 + body.len()).unwrap_or_default();
    [&word(length)[..], &word(0), number, &body].concat()
}
