//! Boots real machines in QEMU and asks them for facts.
