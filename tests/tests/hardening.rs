//! The running kernel is closed as the profile of docs/security.md says, on both kernels.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use tests::{Config, Kernel, Line, Machine};

/// Name below `/proc/sys`, value, and the first kernel of the two that has it: what docs/security.md lists, and all that
/// Talos sets of it. What cannot be set is said on the console, where nothing stands.
const SETTINGS: [(&str, &str, Kernel); 22] = [
    ("kernel/modules_disabled", "1", Kernel::Own),
    ("kernel/kexec_load_disabled", "1", Kernel::Own),
    ("kernel/yama/ptrace_scope", "2", Kernel::Own),
    ("kernel/perf_event_paranoid", "3", Kernel::Own),
    ("kernel/kptr_restrict", "2", Kernel::Own),
    ("kernel/dmesg_restrict", "1", Kernel::Own),
    ("kernel/sysrq", "16", Kernel::Own),
    ("kernel/unprivileged_bpf_disabled", "1", Kernel::Own),
    ("net/core/bpf_jit_harden", "2", Kernel::Own),
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
    let volumes = "volumes = [\"/coracle:/machine/own:ro\", \"/:/machine/root\"]";
    let machine =
        Config::new("hardening").kernel(kernel).probe("a", &format!("privileged = true\n{volumes}")).boot();
    // Who may do everything sees everything, and cannot undo it.
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
    modules_are_those_of_the_plan_and_no_others_can_follow(probe);
    let watchdog = |file: &str| probe.read(&format!("/sys/class/watchdog/watchdog0/{file}"));
    assert_eq!(["state", "timeout"].map(watchdog), ["active\n", "60\n"]);
    the_initramfs_is_read_only(probe);
    a_broken_kernel_is_a_reboot(machine);
}

fn modules_are_those_of_the_plan_and_no_others_can_follow(probe: &Line) {
    let manifest: serde_json::Value =
        serde_json::from_str(&probe.read("/machine/own/manifest.json")).unwrap();
    let mut planned: Vec<String> = manifest["modules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file.as_str().unwrap().trim_end_matches(".ko").to_owned())
        .collect();
    let modules = probe.read("/proc/modules");
    let mut loaded: Vec<&str> = modules.lines().map(|line| line.split(' ').next().unwrap()).collect();
    planned.sort_unstable();
    loaded.sort_unstable();
    assert_eq!(loaded, planned);
    const EINVAL: i32 = 22;
    assert_eq!(probe.write("/proc/sys/kernel/modules_disabled", "0"), Err(EINVAL));
}

/// Of the machine's root nothing can be changed, not even by who may do everything.
fn the_initramfs_is_read_only(probe: &Line) {
    const EROFS: i32 = 30;
    for file in ["init", "new", "coracle/manifest.json"] {
        assert_eq!(probe.write(&format!("/machine/root/{file}"), "x"), Err(EROFS), "{file}");
    }
}

fn a_broken_kernel_is_a_reboot(machine: Machine) {
    // The answer may or may not come before the end.
    let line = machine.probe("a");
    let request = probe::Request::Write { path: "/proc/sysrq-trigger".into(), contents: "c".into() };
    line.send(&request);
    let ended = machine.wait();
    assert_eq!(ended.code, 1, "QEMU ends with the reboot: {}", ended.output);
    assert!(ended.output.contains("Kernel panic - not syncing: sysrq triggered crash"), "{}", ended.output);
    assert!(ended.output.contains("Rebooting in 5 seconds"), "{}", ended.output);
}

#[test]
fn what_a_machine_of_services_has_no_use_for_is_closed() {
    is_closed(Kernel::Own);
}

#[test]
fn it_is_closed_on_the_other_kernel_too() {
    is_closed(Kernel::Second);
}
