//! How a probe is carried out, and what an outcome is called.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use rustix::fs::OFlags;

/// The program that makes a system call of any number.
pub const CALLER: &str = "/call";

/// The exit code of a probe without an error that gained nothing. No error has this number.
pub const NOTHING: u8 = 200;

/// Where the victim, another service, answers.
pub const VICTIM_PORT: u16 = 4242;

/// The name of the victim's abstract socket.
pub const PLANTED_SOCKET: &str = "coracle-victim";

/// The key of the victim's message queue.
pub const PLANTED_QUEUE: u64 = 0xc0de;

/// What is tried.
pub enum Attempt {
    /// A system call.
    Call {
        /// Its number.
        number: u64,
        /// Up to six words; those that are left out are 0.
        arguments: &'static [u64],
        /// What is at [`DATA`](super::DATA).
        data: &'static [u8],
        /// What descriptor 2 is.
        descriptor: Descriptor,
    },
    /// Reads a file: gained when there is anything in it.
    Read(&'static str),
    /// Lists a folder: gained when there is anything in it.
    List(&'static str),
    /// Opens a device or file for reading.
    Open(&'static str),
    /// Opens a file for writing, and writes nothing.
    OpenToWrite(&'static str),
    /// Writes to a file.
    Write(&'static str, &'static str),
    /// Writes to a file what is in it.
    Rewrite(&'static str),
    /// Anything else: whether something was gained.
    Do(fn() -> io::Result<bool>),
    /// Likewise, in a process of its own, which can take all that one can have.
    Alone(fn() -> io::Result<bool>),
}

/// What a call has as descriptor 2.
#[derive(Debug, Clone, Copy)]
pub enum Descriptor {
    /// Nothing of interest.
    None,
    /// A file, opened for reading.
    File(&'static str),
    /// A folder or file by its path alone.
    Path(&'static str),
    /// A UDP socket.
    Socket,
}

impl Attempt {
    /// Whether it would leave the mounts of this thread as others.
    pub fn changes_mounts(&self) -> bool {
        const MOUNT: u64 = 165;
        const UMOUNT: u64 = 166;
        const MOVE_MOUNT: u64 = 429;
        matches!(self, Self::Call { number: MOUNT | UMOUNT | MOVE_MOUNT, .. })
    }

    /// Carries it out, as that of the probe `name`.
    ///
    /// # Errors
    ///
    /// Whatever the kernel says to it. The negative number of a signal when that ended the call.
    pub fn carry_out(&self, name: &str) -> io::Result<bool> {
        match *self {
            Self::Call { number, arguments, data, descriptor } => {
                call(number, arguments, data, descriptor.open()?)
            }
            Self::Read(path) => {
                let mut some = [0; 64];
                open(path, false)?.read(&mut some).map(|count| count > 0)
            }
            Self::List(path) => fs::read_dir(path).map(|mut entries| entries.next().is_some()),
            Self::Open(path) => open(path, false).map(|_| true),
            Self::OpenToWrite(path) => open(path, true).map(|_| true),
            Self::Write(path, text) => open(path, true)?.write_all(text.as_bytes()).map(|()| true),
            Self::Rewrite(path) => {
                let now = fs::read(path)?;
                open(path, true)?.write_all(&now).map(|()| true)
            }
            Self::Do(function) => function(),
            Self::Alone(_) => alone(name),
        }
    }
}

/// Opens without waiting for whoever is at the other end.
pub(super) fn open(path: &str, to_write: bool) -> io::Result<File> {
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or_default();
    OpenOptions::new().read(!to_write).write(to_write).custom_flags(flags).open(path)
}

impl Descriptor {
    fn open(self) -> io::Result<Option<OwnedFd>> {
        Ok(match self {
            Self::None => None,
            Self::File(path) => Some(open(path, false)?.into()),
            Self::Path(path) => {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                Some(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?)
            }
            Self::Socket => Some(UdpSocket::bind("127.0.0.1:0")?.into()),
        })
    }
}

/// Makes a system call in a child. The descriptor is its number 2.
///
/// # Errors
///
/// That of the call; the negative number of a signal when that ended it.
pub fn call(number: u64, arguments: &[u64], data: &[u8], descriptor: Option<OwnedFd>) -> io::Result<bool> {
    start(CALLER, number, arguments, data, descriptor)
}

/// `getpid`, as a program of i386 would ask.
pub(super) fn call_of_i386() -> io::Result<bool> {
    const GETPID: u64 = 20;
    start("/call-i386", GETPID, &[], b"", None)
}

fn start(
    program: &str,
    number: u64,
    arguments: &[u64],
    data: &[u8],
    descriptor: Option<OwnedFd>,
) -> io::Result<bool> {
    let padding = [0; 6];
    let words = std::iter::once(&number).chain(arguments).chain(&padding[arguments.len()..]);
    let mut input: Vec<u8> = words.flat_map(|word| word.to_ne_bytes()).collect();
    input.extend(data);
    let errors = descriptor.map_or_else(Stdio::null, Stdio::from);
    let mut child =
        Command::new(program).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(errors).spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(&input)?;
    }
    result(child.wait()?)
}

/// Makes the probe `name` in a process of its own.
///
/// # Errors
///
/// As [`call`].
pub fn alone(name: &str) -> io::Result<bool> {
    let mut command = Command::new("/hostile");
    command.args(["try", name]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    result(command.status()?)
}

/// What the end of a child says.
fn result(status: ExitStatus) -> io::Result<bool> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(true),
        (Some(code), _) if code == i32::from(NOTHING) => Ok(false),
        (Some(errno), _) => Err(io::Error::from_raw_os_error(errno)),
        (None, signal) => Err(io::Error::from_raw_os_error(-signal.unwrap_or_default())),
    }
}

/// The exit code that says so.
pub fn code(result: &io::Result<bool>) -> u8 {
    match result {
        Ok(true) => 0,
        Ok(false) => NOTHING,
        // What is no error of the kernel's has no number.
        Err(error) => error.raw_os_error().and_then(|errno| u8::try_from(errno).ok()).unwrap_or(NOTHING + 1),
    }
}

/// What it is called: see [`Probe::expected`](super::Probe::expected).
pub fn outcome(result: &io::Result<bool>) -> String {
    let error = match result {
        Ok(true) => return "allowed".to_owned(),
        Ok(false) => return "nothing".to_owned(),
        Err(error) => error.raw_os_error().unwrap_or_default(),
    };
    if error < 0
        && let Ok(signal) = Signal::try_from(-error)
    {
        return format!("{signal:?}");
    }
    format!("{:?}", Errno::from_raw(error))
}
