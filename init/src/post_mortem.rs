//! How the boot before ended, where the machine has a memory for that: the kernel's own (pstore), in which it writes its
//! last words when it panics or is reset by its watchdog.

use std::fs;
use std::time::SystemTime;

use manifest::control::Previous;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::error::{Error, Result};
use crate::log::Console;

/// Where the kernel shows what it has kept.
const PSTORE: &str = "/sys/fs/pstore";
/// What keeps it: firmware, or memory that survives a reset. `(null)` when there is nothing.
const BACKEND: &str = "/sys/module/pstore/parameters/backend";
/// How much of the last words is kept for whoever asks.
const KEPT: usize = 4096;

/// Whether the machine remembers how a boot ends.
pub fn is_kept() -> bool {
    let backend = fs::read_to_string(BACKEND).unwrap_or_default();
    !matches!(backend.trim_end(), "" | "(null)")
}

/// Reads what there is, says what it was, and removes it: it takes the place of the next one.
pub fn read(console: &mut Console) -> Option<Previous> {
    if !is_kept() {
        return None;
    }
    match take() {
        Ok(None) => None,
        Ok(Some(text)) => {
            let previous = Previous { cause: cause(&text), lines: tail(&text).to_owned() };
            console.say(format_args!("the boot before was not ended in order: {}", previous.cause));
            Some(previous)
        }
        Err(error) => {
            console.say(format_args!("{error}"));
            None
        }
    }
}

/// The newest record, if there is one. None is left.
fn take() -> Result<Option<String>> {
    let failed = |error: &std::io::Error| Error::io("read", PSTORE, error);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("pstore"), PSTORE, Some("pstore"), flags, None::<&str>)
        .map_err(|errno| Error::new("mount", PSTORE, errno))?;
    let mut newest: Option<(SystemTime, Vec<u8>)> = None;
    for file in fs::read_dir(PSTORE).map_err(|error| failed(&error))? {
        let file = file.map_err(|error| failed(&error))?;
        if !file.file_name().to_string_lossy().starts_with("dmesg-") {
            continue;
        }
        let time =
            file.metadata().and_then(|metadata| metadata.modified()).map_err(|error| failed(&error))?;
        if newest.as_ref().is_none_or(|(other, _)| time > *other) {
            newest = Some((time, fs::read(file.path()).map_err(|error| failed(&error))?));
        }
        fs::remove_file(file.path()).map_err(|error| failed(&error))?;
    }
    // Every mount of init's is copied for each container.
    umount2(PSTORE, MntFlags::empty()).map_err(|errno| Error::new("unmount", PSTORE, errno))?;
    Ok(newest.map(|(_, text)| String::from_utf8_lossy(&text).into_owned()))
}

/// The line that says why, without its time; the kernel's word for the record when there is none.
fn cause(text: &str) -> String {
    const REASONS: [&str; 6] =
        ["coracle: ", "Kernel panic - not syncing: ", "softdog: ", "watchdog: ", "BUG: ", "Oops: "];
    let reason = REASONS.iter().find_map(|reason| text.lines().rev().find(|line| line.contains(reason)));
    let line = reason.or_else(|| text.lines().next()).unwrap_or("nothing is known of it");
    // `<0>[   12.345678] `, and with a caller's number after it on some kernels.
    let words = line.strip_prefix('<').and_then(|line| line.split_once('>')).map_or(line, |(_, rest)| rest);
    let words =
        words.strip_prefix('[').and_then(|line| line.split_once("] ")).map_or(words, |(_, rest)| rest);
    words.chars().filter(|c| !c.is_control()).collect()
}

/// The last lines that fit.
fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(KEPT);
    let rest = text.get(text.ceil_char_boundary(start)..).unwrap_or_default();
    if start == 0 { rest } else { rest.split_once('\n').map_or(rest, |(_, whole)| whole) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_the_last_line_that_names_one() {
        let panic = "Panic#1 Part1\n<6>[    1.0] eth0: up\n<0>[   12.5] Kernel panic - not syncing: sysrq triggered crash\n\
                     <4>[   12.6] CPU: 0 PID: 71\n";
        assert_eq!(cause(panic), "Kernel panic - not syncing: sysrq triggered crash");
        let own = format!("{panic}<5>[   11.0] coracle: init is broken; the machine reboots\n");
        assert_eq!(cause(&own), "coracle: init is broken; the machine reboots");
        let dog = "Emergency#1 Part1\n<2>[   70.1] softdog: Initiating system reboot\n";
        assert_eq!(cause(dog), "softdog: Initiating system reboot");
        assert_eq!(cause("Emergency#1 Part1\n<6>[ 1.0] x\n"), "Emergency#1 Part1");
        assert_eq!(cause(""), "nothing is known of it");
        assert_eq!(cause("BUG: \x1b[2J"), "BUG: [2J");
    }

    #[test]
    fn the_tail_begins_with_a_whole_line() {
        let long: String = (0..1000).map(|n| format!("line {n} é\n")).collect();
        let tail = tail(&long);
        assert!(tail.len() <= KEPT && tail.starts_with("line ") && tail.ends_with("line 999 é\n"));
        assert_eq!(super::tail("short\n"), "short\n");
    }
}
