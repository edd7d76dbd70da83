//! What signals are called.

/// The signals of x86-64 and arm64 Linux, in the order of their numbers, which begin at 1 (signal(7)). Real-time
/// signals have no names.
pub const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// The name of a signal, where it has one.
pub fn name(number: i32) -> Option<&'static str> {
    let index = usize::try_from(number).ok()?.checked_sub(1)?;
    NAMES.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_called_as_everywhere() {
        let names = [1, 9, 15, 31].map(name);
        assert_eq!(names, [Some("SIGHUP"), Some("SIGKILL"), Some("SIGTERM"), Some("SIGSYS")]);
        assert_eq!([-1, 0, 32, 64].map(name), [None; 4]);
    }
}
