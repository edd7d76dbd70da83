//! `coracle run`: the machine in QEMU, its console on stdout, its end as the exit code.

mod accelerator;
mod broker;
mod qemu;
mod switchboard;

pub use accelerator::choose;
pub use qemu::Accelerator;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use manifest::Name;
use manifest::report::Report;
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::config::{Port, Protocol};
use crate::error::{Context, Error, Result};
use crate::progress::say;
use broker::Broker;
use qemu::{Machine, Monitor, QEMU};

/// How often a machine that does not react is asked again to power off: it may not have got far enough to notice.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// A machine that was asked to power off and has not by then is ended.
const STOP_TIMEOUT: Duration = Duration::from_secs(90);

/// How long a killed QEMU is waited for.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// The files of a machine that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifacts {
    /// `NAME-kernel`
    pub kernel: PathBuf,
    /// `NAME-initramfs.img`
    pub initramfs: PathBuf,
    /// What `NAME-cmdline` says.
    pub cmdline: String,
}

/// What the user asks of a run.
#[derive(Debug)]
pub struct Options {
    /// The machine's name, by which `coracle ctl` finds it.
    pub name: String,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
    /// Memory in bytes.
    pub memory: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Ports of the machine that the host offers.
    pub ports: Vec<Port>,
    /// The machine is ended when it still runs after this long.
    pub timeout: Option<Duration>,
    /// Where the machine's report is kept; otherwise it is read and thrown away.
    pub report: Option<PathBuf>,
    /// Further arguments for QEMU.
    pub extra: Vec<OsString>,
}

/// What ends the wait for a running machine.
enum Event {
    Ended(std::io::Result<ExitStatus>),
    Signal,
}

/// Runs the machine to its end and returns its exit code.
pub fn run(artifacts: &Artifacts, options: &Options) -> Result<u8> {
    check_ports(&options.ports)?;
    let folder = tempfile::tempdir().doing(|| "make a temporary folder")?;
    let monitor = folder.path().join("monitor");
    let report = options.report.clone().unwrap_or_else(|| folder.path().join("report"));
    // QEMU would name neither the file's purpose nor the option.
    std::fs::File::create(&report).doing(|| format!("write the machine's report `{}`", report.display()))?;
    let (broker, control) = offer_control(&options.name).unzip();
    let machine = Machine {
        kernel: &artifacts.kernel,
        initramfs: &artifacts.initramfs,
        cmdline: &artifacts.cmdline,
        colour: std::io::stdout().is_terminal() && shows_colour(|name| std::env::var_os(name)),
        accelerator: options.accelerator,
        memory: options.memory,
        cpus: options.cpus,
        ports: &options.ports,
        report: &report,
        monitor: &monitor,
        control: control.as_ref().map(AsRawFd::as_raw_fd),
        extra: &options.extra,
    };
    let mut command = Command::new(QEMU.program);
    // In a process group of its own, so that Ctrl-C at the terminal reaches us alone and the machine stops in order.
    command.args(machine.arguments()).stdin(Stdio::null()).process_group(0);
    let spawned = command.spawn();
    // QEMU's copy is the only one then, and its end that of the channel.
    drop(control);
    let child = spawned.map_err(|cause| QEMU.cannot_start(&cause))?;
    let status = supervise(child, &monitor, options.timeout)?;
    drop(broker);
    if !status.success() {
        return Err(Error::new(format!("QEMU failed ({status})")).hint("what it says of itself stands above"));
    }
    exit_code(&report)
}

/// Serves those who want to talk to the machine, and returns the end of the line that QEMU inherits. A machine runs
/// without, where that is not possible.
fn offer_control(name: &str) -> Option<(Broker, UnixStream)> {
    let offered = Name::try_from(name.to_owned()).doing(|| "name the machine").and_then(|name| {
        let (ours, theirs) = UnixStream::pair().doing(|| "make a line to the machine")?;
        fcntl_setfd(&theirs, FdFlags::empty()).doing(|| "let QEMU inherit a line")?;
        Ok((Broker::start(&name, &ours)?, theirs))
    });
    offered.inspect_err(|error| say(format_args!("{error}: `coracle ctl` will not find this machine"))).ok()
}

/// Whether a terminal is to show colours: see no-color.org.
fn shows_colour(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let is_refused = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    !is_refused && variable("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// QEMU's own message for a port that is taken names neither the port nor the way out.
fn check_ports(ports: &[Port]) -> Result<()> {
    // Kept until all are there: two of the machine's ports may want the same one of the host.
    let mut bound: Vec<OwnedFd> = Vec::new();
    for port in ports {
        let address = SocketAddrV4::new(port.address, port.host);
        let free = match port.protocol {
            Protocol::Tcp => TcpListener::bind(address).map(OwnedFd::from),
            Protocol::Udp => UdpSocket::bind(address).map(OwnedFd::from),
        };
        let socket = free.map_err(|cause| {
            Error::new(format!("cannot publish port {} on {address}: {cause}", port.guest)).hint(format!(
                "choose another port of the host: --publish {}:{}",
                other_port(port.host),
                port.guest
            ))
        })?;
        bound.push(socket);
    }
    Ok(())
}

/// A port that nobody uses right now, for a proposal.
fn other_port(taken: u16) -> u16 {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    free.map_or(taken, |address| address.port())
}

/// QEMU's process. A machine never outlives the command that runs it.
struct Guest(OwnedFd);

impl Guest {
    fn of(child: &Child) -> Result<Self> {
        let pid = Pid::from_child(child);
        pidfd_open(pid, PidfdFlags::empty()).map(Self).doing(|| "watch QEMU")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        match pidfd_send_signal(&self.0, Signal::KILL) {
            // It has ended by itself, as it should.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(cause) => say(format_args!("cannot end QEMU: {cause}")),
        }
    }
}

/// Waits for QEMU's end, and ends it where the machine does not.
fn supervise(child: Child, monitor: &Path, timeout: Option<Duration>) -> Result<ExitStatus> {
    let guest = Guest::of(&child)?;
    let events = listen(child)?;
    let ended = watch(&events, monitor, timeout);
    if ended.is_err() {
        drop(guest);
        // Its ports are free and it is reaped when this program ends. Killed, it takes no longer than its memory.
        while let Some(Event::Signal) = receive(&events, KILL_TIMEOUT) {}
    }
    ended
}

/// A signal presses the power button, a second one is an error as a machine that does not end is.
fn watch(events: &mpsc::Receiver<Event>, monitor: &Path, timeout: Option<Duration>) -> Result<ExitStatus> {
    let started = Instant::now();
    let mut stopping: Option<Instant> = None;
    loop {
        let now = Instant::now();
        if timeout.is_some_and(|timeout| now.duration_since(started) >= timeout) {
            return Err(
                Error::new("the machine still ran when its time was over").hint("--timeout sets the time")
            );
        }
        if stopping.is_some_and(|since| now.duration_since(since) >= STOP_TIMEOUT) {
            let limit = STOP_TIMEOUT.as_secs();
            return Err(Error::new(format!("the machine did not power off within {limit} s, and was ended")));
        }
        let remaining =
            timeout.map_or(Duration::MAX, |timeout| timeout.saturating_sub(now.duration_since(started)));
        let wait = if stopping.is_some() { ASK_AGAIN.min(remaining) } else { remaining };
        match receive(events, wait) {
            Some(Event::Ended(status)) => return status.doing(|| "wait for QEMU"),
            Some(Event::Signal) if stopping.is_some() => {
                return Err(Error::new("the machine was ended before it had powered off"));
            }
            Some(Event::Signal) => {
                say("powering the machine off (once more to end it at once)");
                stopping = Some(Instant::now());
                press_power_button(monitor);
            }
            None if stopping.is_some() => press_power_button(monitor),
            None => {}
        }
    }
}

fn receive(events: &mpsc::Receiver<Event>, wait: Duration) -> Option<Event> {
    match events.recv_timeout(wait.min(Duration::from_secs(3600))) {
        Ok(event) => Some(event),
        Err(RecvTimeoutError::Timeout) => None,
        // Both threads hold a sender for as long as they run, and the one that waits for QEMU speaks before it ends.
        Err(RecvTimeoutError::Disconnected) => {
            Some(Event::Ended(Err(std::io::Error::other("lost track of QEMU"))))
        }
    }
}

/// One thread that waits for QEMU, one that waits for signals.
fn listen(mut child: Child) -> Result<mpsc::Receiver<Event>> {
    let (sender, events) = mpsc::channel();
    let mut signals =
        signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).doing(|| "listen for signals")?;
    let on_signal = sender.clone();
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if on_signal.send(Event::Signal).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        let ended = Event::Ended(child.wait());
        // Nobody listens when the run has already failed for another reason.
        drop(sender.send(ended));
    });
    Ok(events)
}

/// A machine that cannot be reached is asked again later, and ended in the end: nothing is lost by going on.
fn press_power_button(monitor: &Path) {
    if let Err(error) = Monitor::connect(monitor).and_then(|mut monitor| monitor.power_button()) {
        say(format_args!("{error}; trying again"));
    }
}

/// The code that the machine reported last.
fn exit_code(report: &Path) -> Result<u8> {
    let text = std::fs::read_to_string(report)
        .doing(|| format!("read the machine's report `{}`", report.display()))?;
    let exit = text.lines().rev().find_map(|line| match serde_json::from_str(line) {
        Ok(Report::Exit { code, .. }) => Some(code),
        _ => None,
    });
    exit.ok_or_else(|| {
        Error::new("the machine ended without powering off: it reset itself, or its kernel panicked")
            .hint("the last lines of its console stand above; when there are none, try more `--memory`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(report: &str) -> Result<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), report).unwrap();
        exit_code(file.path())
    }

    #[test]
    fn the_exit_code_is_the_machines_last_word() {
        let ready = r#"{"event":"ready","init_ns":1,"first_start_ns":2,"ready_ns":3}"#;
        let exit = r#"{"event":"exit","code":7,"stop_ns":1,"off_ns":2}"#;
        assert_eq!(code(&format!("{ready}\n{exit}\n")), Ok(7));
        for silent in ["", ready, "garbage\n{}\n", &exit[..20]] {
            assert!(code(silent).is_err(), "{silent}");
        }
    }

    #[test]
    fn colours_can_be_refused() {
        for (name, value, expected) in [
            ("NO_COLOR", "1", false),
            ("NO_COLOR", "", true),
            ("TERM", "dumb", false),
            ("TERM", "xterm", true),
            ("HOME", "/", true),
        ] {
            let variable = |asked: &str| (asked == name).then(|| OsString::from(value));
            assert_eq!(shows_colour(variable), expected, "{name}={value}");
        }
    }

    #[test]
    fn a_port_that_is_taken_is_named_with_a_way_out() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let host = taken.local_addr().unwrap().port();
        let port = Port { address: Ipv4Addr::LOCALHOST, host, guest: 80, protocol: Protocol::Tcp };
        let error = check_ports(&[port]).unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("cannot publish port 80 on 127.0.0.1:{host}: ")),
            "{error}"
        );
        assert!(error.advice().unwrap().starts_with("choose another port of the host: --publish "));
    }
}
