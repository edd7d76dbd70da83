//! Guests: machines that run, either as `coracle run` runs them or with their instructions counted.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use manifest::report::Report;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::Bench;
use super::machine::Machine;
use crate::process::{Result, because};

/// The longest wait for anything that a guest does.
const DEADLINE: Duration = Duration::from_secs(120);

/// QEMU as `coracle run` starts it, less the network, whose answers come from outside and at any time; and
/// with the guest's clock driven by its instructions: one nanosecond each.
///
/// The processor has no fast string instructions: with them the kernel copies and clears by `rep movsb`,
/// which counts as one instruction a byte, where a real processor moves tens of bytes in a cycle. Without
/// them it is one for eight bytes.
const COUNTED: &[&str] = &[
    "-nodefaults",
    "-no-user-config",
    "-no-reboot",
    "-display",
    "none",
    "-machine",
    "q35",
    "-cpu",
    "max,-erms,-fsrm",
    "-accel",
    "tcg,thread=single",
    "-icount",
    "shift=0,sleep=off",
    "-rtc",
    "clock=vm",
    "-chardev",
    "stdio,id=console,signal=off",
    "-serial",
    "chardev:console",
    "-device",
    "virtio-serial-pci,id=coracle-serial",
    "-device",
    "virtserialport,bus=coracle-serial.0,chardev=report,name=coracle.report",
];

/// When a guest was ready, in nanoseconds of its own clock.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// init's first instruction.
    pub init: u64,
    /// The first clone.
    pub first_start: u64,
    /// Everything had been started.
    pub ready: u64,
}

/// A guest that runs, ended when it goes out of scope.
pub struct Guest {
    child: Child,
    /// SIGKILL ends QEMU; `coracle run` has to end its own QEMU first.
    is_qemu: bool,
    console: Receiver<String>,
    said: Vec<String>,
    report: PathBuf,
    /// Holds the report.
    _folder: TempDir,
}

impl Guest {
    /// Boots a machine with its instructions counted.
    pub fn counted(machine: &Machine) -> Result<Self> {
        Self::counted_with(machine, &machine.initramfs())
    }

    /// Boots a machine's kernel with another initramfs, its instructions counted.
    pub fn counted_with(machine: &Machine, initramfs: &Path) -> Result<Self> {
        Self::counted_in(machine, initramfs, 512)
    }

    /// The same in so many MiB of memory.
    pub fn counted_in(machine: &Machine, initramfs: &Path, memory: u32) -> Result<Self> {
        let folder = folder()?;
        let report = folder.path().join("report");
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(COUNTED)
            .args(["-m", &memory.to_string()])
            .arg("-kernel")
            .arg(machine.kernel())
            .arg("-initrd")
            .arg(initramfs);
        command.arg("-append").arg(machine.cmdline()?);
        command.arg("-chardev").arg(format!("file,id=report,path={}", report.display()));
        Self::spawn(command, true, report, folder)
    }

    /// Boots a machine by `coracle run`, on two emulated processors whatever the host has.
    pub fn run(bench: &Bench, machine: &Machine) -> Result<Self> {
        Self::run_with(bench, machine, &["--cpus", "2"], &[])
    }

    /// The same with as much memory as is said, like `"768MiB"`.
    pub fn run_in(bench: &Bench, machine: &Machine, memory: &str) -> Result<Self> {
        Self::run_with(bench, machine, &["--cpus", "2", "--memory", memory], &[])
    }

    /// Boots a machine by `coracle run` with its instructions counted. Whenever it is idle its clock jumps.
    pub fn run_counted(bench: &Bench, machine: &Machine) -> Result<Self> {
        let counted = ["-cpu", "max,-erms,-fsrm", "-icount", "shift=0,sleep=off", "-rtc", "clock=vm"];
        Self::run_with(bench, machine, &["--cpus", "1"], &counted)
    }

    /// Boots a machine by `coracle run` on two emulated processors that copy eight bytes at a time, as the counted one does:
    /// the fast string instructions are slow ones where they are emulated.
    pub fn run_without_strings(bench: &Bench, machine: &Machine) -> Result<Self> {
        Self::run_with(bench, machine, &["--cpus", "2"], &["-cpu", "max,-erms,-fsrm"])
    }

    fn run_with(bench: &Bench, machine: &Machine, options: &[&str], qemu: &[&str]) -> Result<Self> {
        let folder = folder()?;
        let report = folder.path().join("report");
        let mut command = bench.coracle();
        command.args(["run", "--accel", "tcg"]).args(options).arg("--report").arg(&report);
        // Ports of the demo may be taken on this host: any free one does.
        for guest in [80, 6379] {
            command.arg("--publish").arg(format!("{}:{guest}", free_port()?));
        }
        command.arg(&machine.output).arg("--").args(qemu);
        Self::spawn(command, false, report, folder)
    }

    fn spawn(mut command: Command, is_qemu: bool, report: PathBuf, folder: TempDir) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().map_err(because(format!("cannot run `{program}`")))?;
        let (sender, console) = mpsc::channel();
        let listen = |stream: Box<dyn std::io::Read + Send>| {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).split(b'\n').map_while(std::io::Result::ok) {
                    // Whoever listened has gone: the rest is read so that the guest does not wait for us.
                    drop(sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()));
                }
            });
        };
        if let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) {
            listen(Box::new(output));
            listen(Box::new(errors));
        }
        Ok(Self { child, is_qemu, console, said: Vec::new(), report, _folder: folder })
    }

    /// Waits until `count` lines of the console contain `text`, and returns them.
    pub fn wait_for(&mut self, text: &str, count: usize) -> Result<Vec<String>> {
        self.wait(text, count, DEADLINE)
    }

    /// Whether a line of the console contains `text` before the guest ends or a time is over.
    pub fn says(&mut self, text: &str, patience: Duration) -> bool {
        self.wait(text, 1, patience).is_ok()
    }

    fn wait(&mut self, text: &str, count: usize, patience: Duration) -> Result<Vec<String>> {
        let begun = Instant::now();
        let mut found: Vec<String> = self.said.iter().filter(|line| line.contains(text)).cloned().collect();
        while found.len() < count {
            match self.console.recv_timeout(patience.saturating_sub(begun.elapsed())) {
                Ok(line) => {
                    found.extend(line.contains(text).then(|| line.clone()));
                    self.said.push(line);
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.failure(&format!("has not said `{text}` {count} times")));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.failure(&format!("ended before it said `{text}` {count} times")));
                }
            }
        }
        Ok(found)
    }

    /// Waits for a line `NAME=NUMBER` of the console.
    pub fn moment(&mut self, name: &str) -> Result<u64> {
        let wanted = format!("{name}=");
        let lines = self.wait_for(&wanted, 1)?;
        let number =
            lines.first().and_then(|line| line.split(&wanted).nth(1)).and_then(|text| text.parse().ok());
        number.ok_or_else(|| self.failure(&format!("said no number after `{wanted}`")))
    }

    /// Waits until the kernel says `text`, and returns when that was, in nanoseconds of the guest's clock.
    pub fn stamp(&mut self, text: &str) -> Result<u64> {
        let lines = self.wait_for(text, 1)?;
        let stamp = lines.first().and_then(|line| line.trim_start().strip_prefix('[')?.split(']').next());
        let moment = stamp.and_then(|stamp| {
            let (seconds, fraction) = stamp.trim().split_once('.')?;
            let micros = format!("{seconds}{fraction}").parse::<u64>().ok()?;
            (fraction.len() == 6).then(|| micros * 1000)
        });
        moment.ok_or_else(|| self.failure(&format!("said `{text}` without the time")))
    }

    /// Waits until the machine reports that it is ready.
    pub fn ready(&mut self) -> Result<Ready> {
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE {
            for report in self.reports()? {
                if let Report::Ready { init_ns, first_start_ns, ready_ns } = report {
                    return Ok(Ready { init: init_ns, first_start: first_start_ns, ready: ready_ns });
                }
            }
            if self.child.try_wait().map_err(because("cannot wait for the guest"))?.is_some() {
                return Err(self.failure("ended before it was ready"));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(self.failure("was not ready in time"))
    }

    /// Presses the power button, and returns how many nanoseconds the stop took by the guest's clock.
    pub fn power_off(mut self) -> Result<u64> {
        self.signal(Signal::TERM);
        let (stop, off) = self.end()?;
        Ok(off.saturating_sub(stop))
    }

    /// Waits until the guest ends by itself, and returns when its stop began and when it was over.
    pub fn end(&mut self) -> Result<(u64, u64)> {
        let begun = Instant::now();
        while self.child.try_wait().map_err(because("cannot wait for the guest"))?.is_none() {
            if begun.elapsed() > DEADLINE {
                return Err(self.failure("did not power off"));
            }
            thread::sleep(Duration::from_millis(10));
        }
        let exit = self.reports()?.into_iter().find_map(|report| match report {
            Report::Exit { stop_ns, off_ns, .. } => Some((stop_ns, off_ns)),
            Report::Ready { .. } => None,
        });
        exit.ok_or_else(|| self.failure("ended without a report"))
    }

    fn reports(&self) -> Result<Vec<Report>> {
        // QEMU makes the file.
        let text = fs::read_to_string(&self.report).unwrap_or_default();
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines
            .map(|line| serde_json::from_str(line).map_err(because(format!("the report says {line:?}"))))
            .collect()
    }

    fn signal(&self, signal: Signal) {
        match kill_process(Pid::from_child(&self.child), signal) {
            // One that has ended meanwhile cannot be signalled, and need not be.
            Ok(()) | Err(_) => {}
        }
    }

    fn failure(&self, what: &str) -> String {
        let mut last: Vec<&str> = self.said.iter().rev().take(20).map(String::as_str).collect();
        last.reverse();
        format!("the guest {what}; its last lines:\n{}", last.join("\n"))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let begun = Instant::now();
        // The first SIGTERM asks the machine to power off, the second one makes `coracle run` end QEMU.
        while let Ok(None) = self.child.try_wait() {
            let patient = !self.is_qemu && begun.elapsed() < Duration::from_secs(10);
            self.signal(if patient { Signal::TERM } else { Signal::KILL });
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn folder() -> Result<TempDir> {
    tempfile::tempdir().map_err(because("cannot make a temporary folder"))
}

fn free_port() -> Result<u16> {
    std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(because("no port of 127.0.0.1 is free"))
}
