//! What a container uses, as its cgroup counts it.

use std::fs::File;
use std::io::Read;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::Group;

/// Counts of a cgroup; 0 for what the kernel does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Microseconds of processor time in user mode.
    pub user_us: u64,
    /// Likewise in the kernel.
    pub system_us: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// The most that it had (Linux 5.19).
    pub memory_peak: u64,
    /// What it may have.
    pub memory_limit: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Processes that were killed for memory.
    pub memory_kills: u64,
    /// Bytes read from disks.
    pub read_bytes: u64,
    /// Bytes written to disks.
    pub written_bytes: u64,
}

impl Group {
    /// What its processes use and have used.
    pub fn usage(&self) -> Usage {
        let read = |name: &str| {
            let mut text = String::new();
            // A controller that is not divided has no file.
            if let Ok(file) = openat(self, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
                && File::from(file).read_to_string(&mut text).is_err()
            {
                text.clear();
            }
            text
        };
        let number = |name: &str| read(name).trim_end().parse().unwrap_or_default();
        let processor = read("cpu.stat");
        let disks = read("io.stat");
        Usage {
            user_us: value(&processor, "user_usec"),
            system_us: value(&processor, "system_usec"),
            memory: number("memory.current"),
            memory_peak: number("memory.peak"),
            memory_limit: number("memory.max"),
            processes: number("pids.current"),
            memory_kills: value(&read("memory.events"), "oom_kill"),
            read_bytes: sum(&disks, "rbytes="),
            written_bytes: sum(&disks, "wbytes="),
        }
    }
}

/// The number behind a name that stands at the beginning of a line.
fn value(text: &str, name: &str) -> u64 {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// The sum of what stands behind a word in all lines.
fn sum(text: &str, word: &str) -> u64 {
    let words = text.split_whitespace().filter_map(|found| found.strip_prefix(word));
    words.filter_map(|number| number.parse::<u64>().ok()).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_the_kernels_two_ways_to_write_them() {
        let processor = "usage_usec 30\nuser_usec 10\nsystem_usec 20\n";
        assert_eq!((value(processor, "user_usec"), value(processor, "system_usec")), (10, 20));
        assert_eq!(value(processor, "usec"), 0);
        let disks = "254:0 rbytes=4096 wbytes=7 rios=1\n254:16 rbytes=4 wbytes=0 rios=2\n";
        assert_eq!((sum(disks, "rbytes="), sum(disks, "wbytes="), sum("", "rbytes=")), (4100, 7, 0));
    }
}
