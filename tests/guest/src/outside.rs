//! A process of the machine that is in no container: the kernel starts it in the place of init, and it becomes
//! init when it has left a child behind. What the child is to do stands in a file that services can write to.
//! It has still the root that the kernel unpacked, which is the mount that init's own binary was run from.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process};

/// Where the file with the orders is, as seen from outside. One is `SIGNAL PID`, `create FILE`, `node PID NAME MAJOR
/// MINOR`, `shrink FOLDER`, `break`, `spin` or `leave`, with a newline after it.
const ORDERS: &str = "/srv/orders";

/// How often to look for an order.
const PAUSE: Duration = Duration::from_millis(20);

/// Becomes init, with such a child.
pub fn precede() -> Result<std::convert::Infallible, String> {
    let program = std::env::args_os().next().unwrap_or_default();
    Command::new(program)
        .arg("outside")
        .spawn()
        .map_err(|error| format!("cannot start the outsider: {error}"))?;
    become_init()
}

/// Becomes an init whose boot manifest says nothing.
pub fn spoil() -> Result<std::convert::Infallible, String> {
    fs::write("/coracle/manifest.json", "{}").map_err(|error| format!("cannot spoil: {error}"))?;
    become_init()
}

fn become_init() -> Result<std::convert::Infallible, String> {
    Err(format!("cannot become init: {}", Command::new("/init").exec()))
}

/// Carries out each order once, the last of which is `leave`.
pub fn obey() -> ExitCode {
    let mut last = String::new();
    loop {
        thread::sleep(PAUSE);
        let order = fs::read_to_string(ORDERS).unwrap_or_default();
        if order == last || !order.ends_with('\n') {
            continue;
        }
        let done = match *order.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["create", file] => File::create(file).map(drop),
            ["node", pid, name, major, minor] => plant(pid, name, major, minor),
            ["shrink", folder] => shrink(folder),
            // `ud2`, an instruction that does not exist.
            ["break"] => overwrite_init(|size| [0x0f, 0x0b].repeat(size / 2)),
            // `nop`, wherever it is at this moment, and in the end a jump to itself.
            ["spin"] => overwrite_init(|size| [vec![0x90; size - 2], vec![0xeb, 0xfe]].concat()),
            ["leave"] => Ok(()),
            [signal, pid] => send(signal, pid),
            _ => Err(io::Error::other("no such order")),
        };
        println!("outside: {}: {done:?}", order.trim());
        if order == "leave\n" {
            return ExitCode::SUCCESS;
        }
        last = order;
    }
}

fn send(signal: &str, pid: &str) -> io::Result<()> {
    let signal = signal.parse().ok().and_then(Signal::from_named_raw);
    let pid = pid.parse().ok().and_then(Pid::from_raw);
    let (Some(signal), Some(pid)) = (signal, pid) else { return Err(io::Error::other("no numbers")) };
    Ok(kill_process(pid, signal)?)
}

/// Makes a character device for everybody in a container's `/dev`, where it could not make one.
fn plant(pid: &str, name: &str, major: &str, minor: &str) -> io::Result<()> {
    mount("proc", "/proc", "proc", MountFlags::empty(), None)?;
    let path = format!("/proc/{pid}/root/dev/{name}");
    let number = |text: &str| text.parse().map_err(io::Error::other);
    let device = makedev(number(major)?, number(minor)?);
    mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), device)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))
}

/// Puts an empty file system of 64 KiB in the place of a folder, for PID 1 and all that it starts from now on.
fn shrink(folder: &str) -> io::Result<()> {
    mount("proc", "/proc", "proc", MountFlags::empty(), None)?;
    let path = format!("/proc/1/root{folder}");
    Ok(mount("tmpfs", path, "tmpfs", MountFlags::empty(), c"size=64k")?)
}

/// Overwrites init's instructions. It sleeps, and would for ever: a signal wakes it.
fn overwrite_init(instructions: impl Fn(usize) -> Vec<u8>) -> io::Result<()> {
    mount("proc", "/proc", "proc", MountFlags::empty(), None)?;
    let maps = fs::read_to_string("/proc/1/maps")?;
    let code = maps.lines().find(|line| line.contains(" r-xp ") && line.ends_with("/init"));
    let (begin, end) = code
        .and_then(|line| line.split_once(' ')?.0.split_once('-'))
        .ok_or_else(|| io::Error::other("init has no code"))?;
    let address = |digits| u64::from_str_radix(digits, 16).map_err(io::Error::other);
    let (begin, end) = (address(begin)?, address(end)?);
    let size = usize::try_from(end - begin).map_err(io::Error::other)?;
    File::options().write(true).open("/proc/1/mem")?.write_all_at(&instructions(size), begin)?;
    Ok(kill_process(Pid::INIT, Signal::TERM)?)
}
