//! systemd of the host's Debian: as the PID 1 of a machine, beside which rows put Coracle's, and in parts.

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::Bench;
use super::boot::pack;
use super::guest::Guest;
use super::machine::Machine;
use crate::process::{Result, because, run_quietly};
use crate::workspace::{make_folder, write_file};

/// What it is made of, and what a unit's script needs.
const PROGRAMS: [&str; 4] =
    ["/usr/lib/systemd/systemd", "/usr/lib/systemd/systemd-shutdown", "/usr/bin/dash", "/usr/bin/sleep"];
/// Debian's units that a machine needs to come up and to end.
const UNITS: [&str; 7] = [
    "basic.target",
    "final.target",
    "poweroff.target",
    "shutdown.target",
    "sysinit.target",
    "systemd-poweroff.service",
    "umount.target",
];
/// Its folders of programs and libraries are one each with those of `/`, as in Debian.
const MERGED: [&str; 3] = ["bin", "lib", "lib64"];
/// What the kernel says last of all.
const END: &str = "reboot: Power down";
/// In MiB.
const MEMORY: u32 = 1024;

/// A unit's file: its name, and its text.
pub type Unit = (String, String);

/// A unit that asks for power-off two seconds after everything has been started, and has the kernel note that.
pub fn stopper() -> Unit {
    let script = format!("sleep 2; echo \"<0>{BEGIN}\" >/dev/kmsg; kill -38 1");
    let service = format!("Type=oneshot\nStandardError=null\nExecStart=/bin/dash -c '{script}'");
    ("stopper.service".to_owned(), format!("[Unit]\nAfter=default.target\n[Service]\n{service}\n"))
}
const BEGIN: &str = "the stop begins";

/// Boots the kernel of `machine` with its command line and systemd, which starts `units`, and with `program` in the root.
pub fn boot(bench: &Bench, machine: &Machine, name: &str, units: &[Unit], program: &Path) -> Result<Guest> {
    let folder = bench.folder(&format!("systemd-{name}"))?;
    let root = folder.join("root");
    if root.exists() {
        std::fs::remove_dir_all(&root).map_err(because("cannot remove systemd's root"))?;
    }
    for folder in MERGED {
        make_folder(&root.join("usr").join(folder))?;
        symlink(format!("usr/{folder}"), root.join(folder)).map_err(because("cannot make a link"))?;
    }
    for folder in ["proc", "sys", "dev", "run", "tmp", "var", "etc"] {
        make_folder(&root.join(folder))?;
    }
    for program in PROGRAMS {
        install(program, &root)?;
    }
    for unit in UNITS {
        copy(Path::new(&format!("/usr/lib/systemd/system/{unit}")), &root)?;
    }
    let name = program.file_name().unwrap_or(program.as_os_str());
    std::fs::copy(program, root.join(name)).map_err(because("cannot copy a unit's program"))?;
    symlink(PROGRAMS[0].trim_start_matches('/'), root.join("init")).map_err(because("cannot make a link"))?;
    write_file(&root.join("etc/machine-id"), MACHINE_ID)?;
    let own = root.join("etc/systemd/system");
    make_folder(&own)?;
    let mut target = "[Unit]\nRequires=basic.target\nAfter=basic.target\n".to_owned();
    for (name, text) in units {
        write_file(&own.join(name), text)?;
        writeln!(target, "Wants={name}").map_err(because("cannot write a unit"))?;
    }
    write_file(&own.join("default.target"), &target)?;
    Guest::counted_in(machine, &pack(&root)?, MEMORY)
}
/// For programs that want one.
pub const MACHINE_ID: &str = "0123456789abcdef0123456789abcdef\n";

/// How many nanoseconds it takes from the [`stopper`]'s word until the kernel ends the machine.
pub fn stop(mut guest: Guest) -> Result<u64> {
    let begin = guest.stamp(BEGIN)?;
    Ok(guest.stamp(END)?.saturating_sub(begin))
}

/// When the machine ends, in nanoseconds of its clock.
pub fn end(mut guest: Guest) -> Result<u64> {
    guest.stamp(END)
}

/// Puts a program of the host and the libraries that it is linked with where they are on the host.
pub fn install(program: &str, root: &Path) -> Result<()> {
    copy(Path::new(program), root)?;
    let libraries = run_quietly(Command::new("ldd").arg(program))?;
    let paths = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    paths.map(|path| path.trim_end_matches(':')).try_for_each(|library| copy(Path::new(library), root))
}

fn copy(from: &Path, root: &Path) -> Result<()> {
    let to = root.join(from.strip_prefix("/").unwrap_or(from));
    if let Some(parent) = to.parent() {
        make_folder(parent)?;
    }
    std::fs::copy(from, &to).map(drop).map_err(because(format!("cannot copy `{}`", from.display())))
}
