//! What of `/proc` and `/sys` a container does not get as the kernel has it.

/// How a path is masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// Nothing is in it.
    Hidden,
    /// It can be read.
    ReadOnly,
    /// Processes of other users are not in it (`hidepid=invisible`).
    OwnProcesses,
}

/// Each path with its mask. A kernel does not have all of them.
pub const MASKS: [(&str, Mask); 19] = [
    ("/proc", Mask::OwnProcesses),
    ("/proc/acpi", Mask::Hidden),
    ("/proc/asound", Mask::Hidden),
    ("/proc/interrupts", Mask::Hidden),
    ("/proc/kcore", Mask::Hidden),
    ("/proc/keys", Mask::Hidden),
    ("/proc/latency_stats", Mask::Hidden),
    ("/proc/sched_debug", Mask::Hidden),
    ("/proc/scsi", Mask::Hidden),
    ("/proc/timer_list", Mask::Hidden),
    ("/proc/timer_stats", Mask::Hidden),
    ("/proc/bus", Mask::ReadOnly),
    ("/proc/fs", Mask::ReadOnly),
    ("/proc/irq", Mask::ReadOnly),
    ("/proc/sys", Mask::ReadOnly),
    ("/proc/sysrq-trigger", Mask::ReadOnly),
    ("/sys", Mask::ReadOnly),
    ("/sys/devices/virtual/powercap", Mask::Hidden),
    ("/sys/firmware", Mask::Hidden),
];
