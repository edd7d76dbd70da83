//! A container's cgroup: made, limited and closed to devices before its first process, which is cloned right into
//! it.

use std::fmt;
use std::fs::{File, create_dir, read_dir, read_to_string, remove_dir};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use manifest::{Container, Limits, Memory};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::device_program::{self, Program, Rule};
use crate::error::{Error, Result};
use crate::mounts::make_folder;

/// All containers are below this one, so that what is left to init can be reserved in one place.
const PARENT: &str = "/sys/fs/cgroup/services";

/// Microseconds in which a container's share of processor time is used up: the kernel's own default.
const PERIOD: u64 = 100_000;

/// The cgroup of all containers.
pub struct Parent {
    path: String,
    machine: Machine,
    /// Shared by all containers without devices of their own.
    program: Program,
}

/// The folder of a cgroup, held open for as long as the machine knows its container.
pub struct Group {
    path: Box<str>,
    folder: File,
    memory: u64,
    /// Whether its processes were killed since it was made: see [`renew`](Self::renew).
    is_spent: bool,
    /// The devices that its program lets through, beside those of every container.
    devices: Box<[Rule]>,
    /// What has been told of its ends so far.
    told: Events,
}

/// Why processes of a container were killed for memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// They needed more than these bytes, which are theirs.
    Own(u64),
    /// All containers together needed more than the machine has.
    Machine,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(limit) => write!(f, "it needed more than its {} MiB of memory", limit >> 20),
            Self::Machine => f.write_str("the machine had no memory left for services"),
        }
    }
}

/// Makes a cgroup beside that of all containers, for a process of init's own. It has no limits.
pub fn beside_all(name: &str) -> Result<File> {
    let path = format!("/sys/fs/cgroup/{name}");
    make_cgroup(&path)?;
    open(path)
}

impl Parent {
    /// Makes it for `containers`, and keeps from them what init needs to start and to end them, and `kept` bytes of memory
    /// for what else it has to do.
    pub fn make<'a>(containers: impl Iterator<Item = &'a Container> + Clone, kept: u64) -> Result<Self> {
        make_folder(PARENT)?;
        let root = open("/sys/fs/cgroup".to_owned())?;
        let parent = open(PARENT.to_owned())?;
        let limits = containers.map(|container| &container.limits);
        let controllers = controllers(limits.clone());
        [&root, &parent].into_iter().try_for_each(|folder| divide(folder, &controllers))?;

        if limits.clone().any(|limits| limits.io_weight > 0) {
            share_disks(&root)?;
        }
        let machine = Machine::look()?;
        write(&parent, "memory.max", &machine.memory_for_all(kept).to_string())?;
        write(&parent, "pids.max", &machine.processes_for_all().to_string())?;
        // What is reserved for a child is reserved for its parent first, or does not hold.
        let reserved: u64 = limits.map(|limits| limits.memory_reservation).fold(0, u64::saturating_add);
        if reserved > 0 {
            write(&parent, "memory.low", &reserved.to_string())?;
        }
        Ok(Self { path: PARENT.to_owned(), machine, program: Program::load(&[])? })
    }

    /// Takes the cgroup at `path` as it is, for a container with `limits`. What is kept back there from its containers
    /// is somebody else's decision.
    pub fn take(path: &str, limits: &Limits) -> Result<Self> {
        divide(&open(path.to_owned())?, &controllers([limits].into_iter()))?;
        Ok(Self { path: path.to_owned(), machine: Machine::look()?, program: Program::load(&[])? })
    }

    /// Makes the cgroup `name` below it, or takes the one that is there, with `limits`.
    pub fn group(&self, name: &str, limits: &Limits) -> Result<Group> {
        let path = format!("{}/{name}", self.path);
        let memory = self.machine.memory_of(limits);
        let folder = make(&path, limits, memory)?;
        self.program.attach(&folder)?;
        Ok(Group {
            path: path.into(),
            folder,
            memory,
            is_spent: false,
            devices: Box::default(),
            told: Events::default(),
        })
    }

    /// The bytes of memory that the machine has, where `limits` are no limit because they allow more.
    pub fn exceeded_by(&self, limits: &Limits) -> Option<u64> {
        let machine = self.machine.memory;
        matches!(limits.memory, Memory::Bytes(bytes) if bytes > machine).then_some(machine)
    }
}

impl Group {
    /// Kills every process in it, however they fork meanwhile (`cgroup.kill`, Linux 5.14).
    pub fn kill(&mut self) -> Result<()> {
        self.is_spent = true;
        write(&self.folder, "cgroup.kill", "1")
    }

    /// Whether processes in it were killed for memory since the last time that this was asked.
    pub fn shortage(&mut self) -> Result<Option<Shortage>> {
        const FILE: &str = "memory.events";
        let failed = |error: &std::io::Error| Error::io("read", FILE, error);
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = openat(&self.folder, FILE, flags, Mode::empty())
            .map_err(|errno| Error::new("open", FILE, errno))?;
        let mut text = String::new();
        File::from(file).read_to_string(&mut text).map_err(|error| failed(&error))?;
        let (before, now) = (self.told, Events::parse(&text));
        self.told = now;
        Ok(now.shortage_since(before, self.memory))
    }

    /// What one of its files says; nothing where there is no such file, as of a controller that is not divided.
    pub fn text(&self, file: &str) -> String {
        let mut text = String::new();
        if let Ok(file) = openat(&self.folder, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            && File::from(file).read_to_string(&mut text).is_err()
        {
            text.clear();
        }
        text
    }

    /// Makes it anew, with the `limits` that it had, when its processes were killed. Some kernels (6.1.172 is one) kill
    /// whatever is cloned into a cgroup that was ever killed: they compare its count of kills with that of the parent's cgroup.
    pub(super) fn renew(&mut self, limits: &Limits) -> Result<()> {
        if !self.is_spent {
            return Ok(());
        }
        // EBUSY: what was killed has not ended yet. The next start tries again.
        match remove_dir(&*self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::io("remove the cgroup", self.path.to_string(), &error));
            }
            _ => {}
        }
        self.folder = make(&self.path, limits, self.memory)?;
        device_program::decide(&self.folder, &self.devices)?;
        self.told = Events::default();
        self.is_spent = false;
        Ok(())
    }

    /// Lets `devices` through, beside those of every container, and no others.
    pub(super) fn allow(&mut self, devices: Vec<Rule>) -> Result<()> {
        if *self.devices != *devices {
            device_program::decide(&self.folder, &devices)?;
            self.devices = devices.into();
        }
        Ok(())
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

/// Counts of `memory.events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Events {
    /// How often the cgroup's own limit left no memory.
    own: u64,
    /// How many of its processes were killed, for whatever limit.
    kills: u64,
}

impl Events {
    fn parse(text: &str) -> Self {
        let count = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            found.and_then(|digits| digits.parse().ok()).unwrap_or_default()
        };
        Self { own: count("oom"), kills: count("oom_kill") }
    }

    fn shortage_since(self, before: Self, limit: u64) -> Option<Shortage> {
        let reason = if self.own > before.own { Shortage::Own(limit) } else { Shortage::Machine };
        (self.kills > before.kills).then_some(reason)
    }
}

/// What the machine has to share.
#[derive(Debug, Clone, Copy)]
struct Machine {
    /// Bytes in all.
    memory: u64,
    /// Bytes that are left beside the kernel, the initramfs and init.
    available: u64,
    processes: u64,
}

impl Machine {
    fn look() -> Result<Self> {
        const MEMINFO: &str = "/proc/meminfo";
        let text = read(MEMINFO)?;
        let bytes = |name: &str| {
            kibibytes(&text, name)
                .map(|number| number.saturating_mul(1024))
                .ok_or_else(|| Error::said("read", MEMINFO, format!("it has no {name}")))
        };
        let number = |path: &'static str| {
            let text = read(path)?;
            text.trim().parse::<u64>().map_err(|error| Error::said("read", path, error.to_string()))
        };
        let processes = number("/proc/sys/kernel/pid_max")?.min(number("/proc/sys/kernel/threads-max")?);
        Ok(Self { memory: bytes("MemTotal")?, available: bytes("MemAvailable")?, processes })
    }

    /// A sixteenth of the memory is enough for init, the children between clone and exec, and what the kernel
    /// needs for both.
    fn memory_for_all(self, kept: u64) -> u64 {
        const LEAST: u64 = 16 << 20;
        const MOST: u64 = 128 << 20;
        let reserve = (self.memory / 16).clamp(LEAST, MOST).saturating_add(kept);
        // Where hardly anything is left, services fail rather than init.
        self.available.saturating_sub(reserve).max(self.available / 2)
    }

    /// The kernel's own threads count as well: dozens, and a few for each processor.
    fn processes_for_all(self) -> u64 {
        const LEAST: u64 = 256;
        self.processes.saturating_sub((self.processes / 8).max(LEAST)).max(1)
    }

    fn memory_of(self, limits: &Limits) -> u64 {
        match limits.memory {
            Memory::Half => self.memory / 2,
            Memory::Bytes(bytes) => bytes,
        }
    }
}

fn kibibytes(meminfo: &str, name: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

/// The controllers that `limits` need. Processor time costs at every change of processes, so it is divided only
/// where somebody asks for that.
fn controllers<'a>(limits: impl Iterator<Item = &'a Limits> + Clone) -> String {
    let mut controllers = "+memory +pids".to_owned();
    if limits.clone().any(|limits| limits.processor_millis > 0) {
        controllers += " +cpu";
    }
    if limits.clone().any(|limits| !limits.processors.is_empty()) {
        controllers += " +cpuset";
    }
    if limits.clone().any(|limits| limits.io_weight > 0) {
        controllers += " +io";
    }
    controllers
}

/// Lets the cgroups below `folder` have limits. A kernel can have controllers and yet not offer them, as with
/// `cgroup_disable=memory` on its command line.
fn divide(folder: &File, controllers: &str) -> Result<()> {
    const FILE: &str = "cgroup.subtree_control";
    let mut file = open_for_writing(folder, FILE).map_err(|errno| Error::new("open", FILE, errno))?;
    file.write_all(controllers.as_bytes()).map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::EINVAL) => {
            let offered = read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
            Error::said("use", missing(controllers, &offered), "the kernel does not offer it to cgroups")
        }
        _ => Error::io("write", FILE, &error),
    })
}

/// The first of the wanted controllers that is not offered; all of them where that is not the reason.
fn missing(controllers: &str, offered: &str) -> String {
    let offered: Vec<&str> = offered.split_whitespace().collect();
    let mut wanted = controllers.split(' ').map(|word| word.trim_start_matches('+'));
    wanted.find(|word| !offered.contains(word)).unwrap_or(controllers).to_owned()
}

/// Lets weights count on every disk of the machine: the kernel leaves them aside until it is told to (`io.cost.qos`).
/// Layers in memory have no disk.
fn share_disks(root: &File) -> Result<()> {
    const DISKS: &str = "/sys/block";
    let failed = |error: std::io::Error| Error::io("list", DISKS, &error);
    for disk in read_dir(DISKS).map_err(failed)? {
        let disk = disk.map_err(failed)?.path();
        // Only what has a device behind it: no loop devices, nothing in memory.
        if disk.join("device").exists() {
            let path = disk.join("dev").display().to_string();
            let number = read_to_string(&path).map_err(|error| Error::io("read", path, &error))?;
            write(root, "io.cost.qos", &format!("{} enable=1", number.trim()))?;
        }
    }
    Ok(())
}

/// Writes `limits` once: nobody but init can change them, and they outlast each start.
fn limit(folder: &File, limits: &Limits, memory: u64) -> Result<()> {
    write(folder, "memory.max", &memory.to_string())?;
    // One that is short of memory ends as a whole, and is started again as a whole.
    write(folder, "memory.oom.group", "1")?;
    match open_for_writing(folder, "memory.swap.max") {
        // A kernel without swap.
        Err(Errno::ENOENT) => {}
        _ => write(folder, "memory.swap.max", "0")?,
    }
    if limits.memory_reservation > 0 {
        write(folder, "memory.low", &limits.memory_reservation.to_string())?;
    }
    write(folder, "pids.max", &limits.processes.to_string())?;
    if limits.processor_millis > 0 {
        let quota = u64::from(limits.processor_millis) * PERIOD / 1000;
        write(folder, "cpu.max", &format!("{quota} {PERIOD}"))?;
    }
    if limits.io_weight > 0 {
        write(folder, "io.weight", &limits.io_weight.to_string())?;
    }
    if !limits.processors.is_empty() {
        write(folder, "cpuset.cpus", &processor_list(&limits.processors)?)?;
    }
    Ok(())
}

/// The kernel takes processors that it does not have, and gives all others where none is left.
fn processor_list(processors: &[u32]) -> Result<String> {
    let missing = |number: &&u32| !Path::new(&format!("/sys/devices/system/cpu/cpu{number}")).exists();
    if let Some(number) = processors.iter().find(missing) {
        let why = "the machine has no such processor";
        return Err(Error::said("use", format!("processor {number}"), why));
    }
    let numbers: Vec<String> = processors.iter().map(u32::to_string).collect();
    Ok(numbers.join(","))
}

fn make_cgroup(path: &str) -> Result<()> {
    match create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(Error::io("make the cgroup", path.to_owned(), &error))
        }
        _ => Ok(()),
    }
}

/// Makes the cgroup at `path`, or takes the one that is there, and limits it.
fn make(path: &str, limits: &Limits, memory: u64) -> Result<File> {
    make_cgroup(path)?;
    let folder = open(path.to_owned())?;
    limit(&folder, limits, memory)?;
    Ok(folder)
}

fn open(path: String) -> Result<File> {
    File::open(&path).map_err(|error| Error::io("open the cgroup", path, &error))
}

fn read(path: &'static str) -> Result<String> {
    read_to_string(path).map_err(|error| Error::io("read", path, &error))
}

fn open_for_writing(folder: &File, name: &'static str) -> nix::Result<File> {
    openat(folder, name, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).map(File::from)
}

fn write(folder: &File, name: &'static str, value: &str) -> Result<()> {
    let mut file = open_for_writing(folder, name).map_err(|errno| Error::new("open", name, errno))?;
    file.write_all(value.as_bytes()).map_err(|error| Error::io("write", format!("{value} to {name}"), &error))
}

#[cfg(test)]
mod tests {
    use super::super::tests::container;
    use super::*;

    #[test]
    fn what_all_containers_have_leaves_a_reserve() {
        let machine = |memory: u64, available: u64| Machine { memory, available, processes: 4000 };
        for (memory, available, expected) in
            [(512, 400, 368), (256, 60, 44), (65_536, 65_000, 64_872), (96, 20, 10)]
        {
            let all = machine(memory << 20, available << 20).memory_for_all(0);
            assert_eq!(all >> 20, expected, "{memory} {available}");
        }
        assert_eq!(machine(0, 0).processes_for_all(), 3500);
        assert_eq!(Machine { memory: 0, available: 0, processes: 100 }.processes_for_all(), 1);
    }

    #[test]
    fn memory_is_read_from_the_kernels_table() {
        let meminfo =
            "MemTotal:         503892 kB\nMemFree:          379088 kB\nMemAvailable:     371272 kB\n";
        assert_eq!(kibibytes(meminfo, "MemTotal"), Some(503_892));
        assert_eq!(kibibytes(meminfo, "MemAvailable"), Some(371_272));
        assert_eq!(kibibytes(meminfo, "Mem"), None);
    }

    #[test]
    fn only_what_is_asked_for_is_divided() {
        let plain = container().limits;
        let timed = Limits { processor_millis: 500, ..plain.clone() };
        let placed = Limits { processors: vec![0], ..plain.clone() };
        assert_eq!(controllers([&plain].into_iter()), "+memory +pids");
        assert_eq!(controllers([&plain, &timed, &placed].into_iter()), "+memory +pids +cpu +cpuset");
        let weighted = Limits { io_weight: 50, ..plain.clone() };
        assert_eq!(controllers([&plain, &weighted].into_iter()), "+memory +pids +io");
    }

    #[test]
    fn a_controller_that_is_not_there_is_named() {
        assert_eq!(missing("+memory +pids +io", "cpuset cpu pids\n"), "memory");
        assert_eq!(missing("+memory +pids +io", "cpuset io memory\n"), "pids");
        assert_eq!(missing("+memory +pids", "memory pids\n"), "+memory +pids");
    }

    #[test]
    fn a_processor_that_is_not_there_is_refused() {
        assert_eq!(processor_list(&[0]).unwrap(), "0");
        let message = processor_list(&[0, 8191]).unwrap_err().to_string();
        assert_eq!(message, "cannot use `processor 8191`: the machine has no such processor");
    }

    #[test]
    fn a_kill_by_memory_is_told_once_and_with_the_limit_that_was_reached() {
        let events = |own, kills| {
            Events::parse(&format!("low 0\nhigh 0\nmax 9\noom {own}\noom_kill {kills}\noom_group_kill 1\n"))
        };
        assert_eq!(events(0, 0).shortage_since(events(0, 0), 7), None);
        assert_eq!(events(1, 2).shortage_since(events(0, 0), 7), Some(Shortage::Own(7)));
        assert_eq!(events(1, 2).shortage_since(events(1, 2), 7), None);
        assert_eq!(events(1, 3).shortage_since(events(1, 2), 7), Some(Shortage::Machine));
        // Reached, but enough was freed.
        assert_eq!(events(2, 3).shortage_since(events(1, 3), 7), None);
    }
}
