//! The kernel's capabilities by number.

/// In the order of their numbers, which begin at 0 (linux/capability.h).
const NAMES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// All of them, as a set.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// Their names without `CAP_`.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().copied()
}

/// The names of those in a set.
pub fn of(set: u64) -> impl Iterator<Item = &'static str> {
    names().enumerate().filter(move |(number, _)| set >> number & 1 == 1).map(|(_, name)| name)
}

/// The bit of a capability in a set, by its name without `CAP_`.
pub fn bit(name: &str) -> Option<u64> {
    NAMES.iter().position(|known| *known == name).map(|number| 1 << number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_the_kernels_numbers() {
        for (name, number) in [("CHOWN", 0), ("SYS_ADMIN", 21), ("SYSLOG", 34), ("CHECKPOINT_RESTORE", 40)] {
            assert_eq!(bit(name), Some(1 << number), "{name}");
        }
        assert_eq!(bit("CAP_CHOWN"), None);
        assert_eq!(of(0b1001).collect::<Vec<_>>(), ["CHOWN", "FOWNER"]);
        assert_eq!(of(ALL).count(), 41);
    }
}
