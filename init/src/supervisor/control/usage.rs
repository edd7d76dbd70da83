//! What a service uses, as its cgroup counts it.

use manifest::Name;
use manifest::control::Usage;

use crate::container::Group;

/// The counts of a cgroup; 0 for what the kernel does not tell.
pub fn of(name: &Name, group: &Group) -> Usage {
    let number = |file: &str| group.text(file).trim_end().parse().unwrap_or_default();
    let processor = group.text("cpu.stat");
    let disks = group.text("io.stat");
    Usage {
        name: name.clone(),
        user_us: value(&processor, "user_usec"),
        system_us: value(&processor, "system_usec"),
        memory: number("memory.current"),
        // Linux 5.19.
        memory_peak: number("memory.peak"),
        memory_limit: number("memory.max"),
        processes: number("pids.current"),
        memory_kills: value(&group.text("memory.events"), "oom_kill"),
        read_bytes: sum(&disks, "rbytes="),
        written_bytes: sum(&disks, "wbytes="),
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
