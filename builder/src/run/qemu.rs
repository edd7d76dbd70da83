//! QEMU's command line for a machine, and the monitor that it is stopped through.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::config::Port;
use crate::error::{Context, Error, Result};
use crate::tool::Tool;

/// The emulator.
pub const QEMU: Tool = Tool { program: "qemu-system-x86_64", package: "qemu-system-x86" };

/// The same for every machine.
///
/// `-nodefaults` leaves out the VGA card, the floppy and the CD-ROM that a boot would otherwise look for; stdin is no
/// terminal, so QEMU leaves the terminal's modes alone.
const FIXED: &[&str] = &[
    "-nodefaults",
    "-no-user-config",
    "-no-reboot",
    "-display",
    "none",
    "-machine",
    "q35",
    // Before QEMU 8.0 its own watchdog reboots nothing unless it is told to.
    "-global",
    "ICH9-LPC.noreboot=false",
    "-chardev",
    "stdio,id=console,signal=off",
    "-serial",
    "chardev:console",
    "-device",
    "virtio-serial-pci,id=coracle-serial",
    "-device",
    "virtserialport,bus=coracle-serial.0,chardev=report,name=coracle.report",
    // Without a ROM file the firmware does not look for a boot server.
    "-device",
    "virtio-net-pci,netdev=net,romfile=",
];

/// The control channel's port; its name follows.
const CONTROL_PORT: &str = "virtserialport,bus=coracle-serial.0,chardev=control,name=";

/// How QEMU runs a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Accelerator {
    /// On the processor itself.
    Kvm,
    /// Translated: works everywhere, several times slower.
    Tcg,
}

impl Accelerator {
    /// QEMU's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What differs from one run to the next.
#[derive(Debug)]
pub struct Machine<'a> {
    /// The kernel's file.
    pub kernel: &'a Path,
    /// The initramfs' file.
    pub initramfs: &'a Path,
    /// The kernel's command line.
    pub cmdline: &'a str,
    /// Whether the console is shown on a terminal that has colours.
    pub colour: bool,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
    /// Memory in bytes.
    pub memory: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Ports of the machine that the host offers.
    pub ports: &'a [Port],
    /// Where the machine's report goes.
    pub report: &'a Path,
    /// The monitor's socket.
    pub monitor: &'a Path,
    /// The other end of the control channel, which QEMU inherits.
    pub control: Option<RawFd>,
    /// Further arguments, as the user gave them.
    pub extra: &'a [OsString],
}

impl Machine<'_> {
    /// QEMU's arguments.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = FIXED.iter().map(OsString::from).collect();
        let mut pair = |flag: &str, value: OsString| arguments.extend([flag.into(), value]);
        pair("-accel", self.accelerator.as_str().into());
        // On a busy host an emulated timer can miss the moment in which the kernel tests it, and that is a panic
        // ("IO-APIC + timer doesn't work"). Under KVM the kernel leaves the test out by itself.
        let (cpu, mut more) = match self.accelerator {
            Accelerator::Kvm => ("host", String::new()),
            Accelerator::Tcg => ("max", "no_timer_check ".to_owned()),
        };
        if self.colour {
            more += manifest::COLOUR;
            more.push(' ');
        }
        pair("-cpu", cpu.into());
        pair("-m", format!("{}B", self.memory).into());
        pair("-smp", self.cpus.to_string().into());
        pair("-kernel", self.kernel.into());
        pair("-initrd", self.initramfs.into());
        // Before the machine's own words, whose end may be for init: see `--` of the kernel's command line.
        pair("-append", format!("{more}{}", self.cmdline).into());
        pair("-chardev", with_path("file,id=report,path=", self.report, ""));
        if let Some(descriptor) = self.control {
            pair("-chardev", format!("socket,id=control,fd={descriptor}").into());
            pair("-device", format!("{CONTROL_PORT}{}", manifest::control::PORT).into());
        }
        pair("-qmp", with_path("unix:", self.monitor, ",server=on,wait=off"));
        pair("-netdev", user_network(self.ports).into());
        arguments.extend(self.extra.iter().cloned());
        arguments
    }
}

/// A raw disk as a floppy, for `-drive`.
pub fn drive(path: &Path) -> OsString {
    with_path("format=raw,if=floppy,file=", path, "")
}

/// A path inside one of QEMU's option lists, where a comma of its own is written twice.
fn with_path(before: &str, path: &Path, after: &str) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = before.as_bytes().to_vec();
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    bytes.extend(after.as_bytes());
    OsString::from_vec(bytes)
}

/// QEMU's own network: the machine is 10.0.2.15 and sees the world through the host.
fn user_network(ports: &[Port]) -> String {
    let mut network = "user,id=net".to_owned();
    for port in ports {
        let protocol = port.protocol.as_str();
        network += &format!(",hostfwd={protocol}:{}:{}-:{}", port.address, port.host, port.guest);
    }
    network
}

/// A connection to QEMU's monitor (QMP).
#[derive(Debug)]
pub struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects to a running QEMU.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).doing(|| "connect to QEMU's monitor")?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).doing(|| "set up QEMU's monitor")?;
        let mut monitor = Self { stream: BufReader::new(stream) };
        monitor.answer()?;
        monitor.execute("qmp_capabilities")?;
        Ok(monitor)
    }

    /// Presses the machine's power button.
    pub fn power_button(&mut self) -> Result<()> {
        self.execute("system_powerdown")
    }

    fn execute(&mut self, command: &str) -> Result<()> {
        let line = format!("{{\"execute\":\"{command}\"}}\n");
        self.stream.get_mut().write_all(line.as_bytes()).doing(|| "write to QEMU's monitor")?;
        // Events may stand before the answer.
        loop {
            let answer = self.answer()?;
            if answer.get("return").is_some() {
                return Ok(());
            }
            if let Some(error) = answer.get("error") {
                return Err(Error::new(format!("QEMU refuses `{command}`: {error}")));
            }
        }
    }

    fn answer(&mut self) -> Result<serde_json::Value> {
        let mut line = String::new();
        let count = self.stream.read_line(&mut line).doing(|| "read from QEMU's monitor")?;
        if count == 0 {
            return Err(Error::new("QEMU closed its monitor"));
        }
        serde_json::from_str(&line).doing(|| "read from QEMU's monitor")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_a_path_does_not_end_the_path() {
        assert_eq!(with_path("unix:", Path::new("/a,b/c"), ",server=on"), "unix:/a,,b/c,server=on");
    }

    #[test]
    fn a_terminal_is_told_to_the_machine_before_what_may_be_for_init() {
        for (colour, expected) in
            [(true, "no_timer_check coracle.colour=1 quiet -- x"), (false, "no_timer_check quiet -- x")]
        {
            let machine = Machine {
                kernel: Path::new("k"),
                initramfs: Path::new("i"),
                cmdline: "quiet -- x",
                colour,
                accelerator: Accelerator::Tcg,
                memory: 1,
                cpus: 1,
                ports: &[],
                report: Path::new("r"),
                monitor: Path::new("m"),
                control: None,
                extra: &[],
            };
            let arguments = machine.arguments();
            let at = arguments.iter().position(|argument| argument == "-append").unwrap();
            assert_eq!(arguments[at + 1], expected);
        }
    }

    #[test]
    fn ports_are_forwarded_from_the_hosts_address() {
        let ports: Vec<Port> =
            ["8080:80", "0.0.0.0:53:5353/udp"].iter().map(|port| port.parse().unwrap()).collect();
        assert_eq!(
            user_network(&ports),
            "user,id=net,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp:0.0.0.0:53-:5353"
        );
    }
}
