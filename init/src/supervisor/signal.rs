//! The stop signal, and the first processes that cannot receive it.
//!
//! The kernel discards a signal to the first process of a pid namespace when its action is the default one,
//! even where that is to end the process (`sig_task_ignored` in kernel/signal.c): a container around `sleep`
//! would never notice that it is to stop, and hold the machine for its whole grace period. What the default
//! action would have done is done to it instead.

use std::ffi::c_int;
use std::fs;

use nix::libc;
use nix::unistd::Pid;

use crate::sys;

/// What became of a stop signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The process has it.
    Sent,
    /// It would be discarded, and the process would have been ended by it anywhere else.
    Futile,
}

/// Sends the signal `number` to the first process of a container, unless that is futile.
pub fn send(pid: Pid, number: c_int) -> nix::Result<Delivery> {
    if fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| is_discarded(&status, number)) {
        return Ok(Delivery::Futile);
    }
    sys::send_signal(pid, number).map(|()| Delivery::Sent)
}

/// Signals whose default action is not the end of the process.
const HARMLESS: [c_int; 8] = [
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGSTOP,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGURG,
    libc::SIGWINCH,
];

/// Reads `/proc/PID/status`: neither caught nor blocked (for a signalfd or sigwait) nor ignored on purpose.
fn is_discarded(status: &str, number: c_int) -> bool {
    let masks: Vec<u64> = ["SigBlk:", "SigIgn:", "SigCgt:"]
        .iter()
        .filter_map(|name| status.lines().find_map(|line| line.strip_prefix(name)))
        .filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .collect();
    let Some(bit) = u32::try_from(number).ok().and_then(|number| 1u64.checked_shl(number.checked_sub(1)?))
    else {
        return false;
    };
    // SIGKILL is nobody's to handle, and the kernel does deliver it from outside of the namespace.
    let deliverable = number == libc::SIGKILL || HARMLESS.contains(&number);
    !deliverable && masks.len() == 3 && masks.iter().all(|mask| mask & bit == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(blocked: &str, ignored: &str, caught: &str) -> String {
        format!("Name:\tx\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\nCapInh:\t0\n")
    }

    #[test]
    fn only_a_signal_with_its_default_action_is_discarded() {
        let (none, term) = ("0000000000000000", "0000000000004000");
        assert!(is_discarded(&status(none, none, none), libc::SIGTERM));
        assert!(is_discarded(&status(none, none, term), libc::SIGQUIT));
        assert!(!is_discarded(&status(term, none, none), libc::SIGTERM), "blocked");
        assert!(!is_discarded(&status(none, term, none), libc::SIGTERM), "ignored");
        assert!(!is_discarded(&status(none, none, term), libc::SIGTERM), "caught");
        assert!(!is_discarded(&status(none, none, none), libc::SIGWINCH), "harmless");
        assert!(!is_discarded(&status(none, none, none), libc::SIGKILL), "always delivered");
        assert!(is_discarded(&status(none, none, none), 64), "real-time");
    }

    #[test]
    fn a_status_that_cannot_be_read_is_no_reason_to_kill() {
        for odd in ["", "SigBlk:\t0\nSigIgn:\t0\n", "SigBlk:\tx\nSigIgn:\t0\nSigCgt:\t0\n"] {
            assert!(!is_discarded(odd, libc::SIGTERM));
        }
        assert!(!is_discarded(&status("0", "0", "0"), 0));
        assert!(!is_discarded(&status("0", "0", "0"), 99));
    }
}
