//! Settings of the running kernel: what a machine that runs only its services has no use for is closed.

use std::fs;
use std::io::ErrorKind;

use crate::error::Error;
use crate::log::Console;

/// Path below `/proc/sys`, value. Only `kernel/modules_disabled` depends on its place: after the modules.
const SETTINGS: [(&str, &str); 22] = [
    ("kernel/modules_disabled", "1"),
    ("kernel/kexec_load_disabled", "1"),
    ("kernel/yama/ptrace_scope", "2"),
    ("kernel/perf_event_paranoid", "3"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/dmesg_restrict", "1"),
    // Nothing but a sync. Nothing at all would take the handler off the keyboard, and 24 ms of the boot.
    ("kernel/sysrq", "16"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/io_uring_disabled", "2"),
    ("vm/unprivileged_userfaultfd", "0"),
    // Line disciplines are modules that any terminal could ask for, and typing into another's terminal is an attack.
    ("dev/tty/ldisc_autoload", "0"),
    ("dev/tty/legacy_tiocsti", "0"),
    ("kernel/randomize_va_space", "2"),
    // A broken kernel reboots: nobody is there to look at it.
    ("kernel/panic", "5"),
    ("kernel/panic_on_oops", "1"),
    ("net/core/bpf_jit_harden", "2"),
    // A container's user needs no capability to serve port 80.
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("fs/protected_symlinks", "1"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_fifos", "2"),
    ("fs/protected_regular", "2"),
    ("fs/suid_dumpable", "0"),
];

/// Writes the table above. A kernel without a feature has nothing to close; any other failure is said.
pub fn apply(console: &mut Console) {
    for (name, value) in SETTINGS {
        match fs::write(format!("/proc/sys/{name}"), value) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                console.say(format_args!("{}", Error::io("set", name, &error)));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_there_once_and_in_the_kernels_spelling() {
        for (index, (name, value)) in SETTINGS.iter().enumerate() {
            assert!(SETTINGS[index + 1..].iter().all(|(other, _)| other != name), "{name} twice");
            assert!(!name.starts_with('/') && name.contains('/') && !name.contains('.'), "{name}");
            assert!(value.bytes().all(|byte| byte.is_ascii_digit()), "{name}={value}");
        }
    }
}
