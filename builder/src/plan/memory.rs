//! How much memory a machine needs for its initramfs, which is unpacked into it.

/// What a machine gets unless its artifacts need more.
const USUAL_MEMORY: u64 = 512 << 20;

/// Beside the initramfs: what the kernel and PID 1 take before the first service starts. A kernel of Debian's and a
/// 90 MiB initramfs boot in 256 MiB and not in 224 MiB.
const LEAST_BESIDE: u64 = 76 << 20;

/// What is left to services when the memory follows from the initramfs.
const ROOM_FOR_SERVICES: u64 = 192 << 20;

/// The memory that a machine with an initramfs of this size needs at least: the archive and what is unpacked of it
/// are there at the same time.
pub fn least(initramfs: u64) -> u64 {
    (initramfs * 2 + LEAST_BESIDE).next_multiple_of(16 << 20)
}

/// The memory that a machine gets when nothing is asked for.
pub fn usual(initramfs: u64) -> u64 {
    (least(initramfs) + ROOM_FOR_SERVICES).next_multiple_of(64 << 20).max(USUAL_MEMORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_follows_from_the_initramfs() {
        for (initramfs, at_least, usually) in [(0, 80, 512), (5, 96, 512), (90, 256, 512), (325, 736, 960)] {
            assert_eq!(least(initramfs << 20) >> 20, at_least, "{initramfs}");
            assert_eq!(usual(initramfs << 20) >> 20, usually, "{initramfs}");
        }
    }
}
