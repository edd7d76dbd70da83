//! The running kernel is closed as the profile of docs/security.md says, on both kernels.

use tests::{Config, Kernel};

/// Name below `/proc/sys`, value, and the first kernel of the two that has it. `net/core/bpf_jit_harden` is missing: no
/// container may read it. What cannot be set is said on the console, where nothing stands.
const SETTINGS: [(&str, &str, Kernel); 21] = [
    ("kernel/modules_disabled", "1", Kernel::Own),
    ("kernel/kexec_load_disabled", "1", Kernel::Own),
    ("kernel/yama/ptrace_scope", "2", Kernel::Own),
    ("kernel/perf_event_paranoid", "3", Kernel::Own),
    ("kernel/kptr_restrict", "2", Kernel::Own),
    ("kernel/dmesg_restrict", "1", Kernel::Own),
    ("kernel/sysrq", "16", Kernel::Own),
    ("kernel/unprivileged_bpf_disabled", "1", Kernel::Own),
    ("kernel/io_uring_disabled", "2", Kernel::Second),
    ("kernel/panic", "5", Kernel::Own),
    ("kernel/panic_on_oops", "1", Kernel::Own),
    ("kernel/randomize_va_space", "2", Kernel::Own),
    ("net/ipv4/ip_unprivileged_port_start", "0", Kernel::Own),
    ("vm/unprivileged_userfaultfd", "0", Kernel::Own),
    ("dev/tty/ldisc_autoload", "0", Kernel::Own),
    ("dev/tty/legacy_tiocsti", "0", Kernel::Second),
    ("fs/protected_symlinks", "1", Kernel::Own),
    ("fs/protected_hardlinks", "1", Kernel::Own),
    ("fs/protected_fifos", "2", Kernel::Own),
    ("fs/protected_regular", "2", Kernel::Own),
    ("fs/suid_dumpable", "0", Kernel::Own),
];

/// Words of the kernel's command line that no configuration of Debian's has by itself.
const WORDS: [&str; 8] = [
    "panic=5",
    "oops=panic",
    "slab_nomerge",
    "init_on_alloc=1",
    "vsyscall=none",
    "debugfs=off",
    "randomize_kstack_offset=on",
    "rootfstype=ramfs",
];

fn is_closed(kernel: Kernel) {
    let machine = Config::new("hardening").kernel(kernel).probe("a", "").boot();
    let probe = machine.probe("a");
    for (name, value, since) in SETTINGS {
        if since == Kernel::Second && kernel == Kernel::Own {
            continue;
        }
        assert_eq!(probe.read(&format!("/proc/sys/{name}")).trim(), value, "{name} on {kernel:?}");
    }
    assert!(!machine.console().contains("cannot set"), "{}", machine.console());
    let cmdline = probe.read("/proc/cmdline");
    for word in WORDS {
        assert!(
            cmdline.split_ascii_whitespace().any(|found| found == word),
            "`{word}` is not in `{cmdline}`"
        );
    }
}

#[test]
fn what_a_machine_of_services_has_no_use_for_is_closed() {
    is_closed(Kernel::Own);
}

#[test]
fn it_is_closed_on_the_other_kernel_too() {
    is_closed(Kernel::Second);
}
