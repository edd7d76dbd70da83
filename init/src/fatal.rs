//! The end of a boot that cannot go on: one clear line, then a reboot. It never hangs and never returns.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::libc;
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::sync;

/// Long enough to read one line on a screen.
const TIME_TO_READ: Duration = Duration::from_secs(3);
/// The kernel log comes second: it reaches the console only where the log level lets it.
const WHERE_TO_SAY_IT: [&str; 2] = ["/dev/console", "/dev/kmsg"];

/// Makes a panic end like every other fatal error. Set first of all.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|panic| reboot_because(&format_args!("init is broken: {panic}"))));
}

/// Says why, waits until it can have been read, and reboots.
pub fn reboot_because(why: &dyn fmt::Display) -> ! {
    say(why);
    std::thread::sleep(TIME_TO_READ);
    sync();
    loop {
        let Err(errno) = reboot(RebootMode::RB_AUTOBOOT);
        say(&format_args!("cannot reboot: {}", errno.desc()));
        std::thread::sleep(TIME_TO_READ);
    }
}

fn say(text: &dyn fmt::Display) {
    let line = format!("coracle | {text}; the machine reboots\n").replace(['\r', '\x1b'], " ");
    for path in WHERE_TO_SAY_IT {
        let target =
            OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
        if target.is_ok_and(|mut target| target.write_all(line.as_bytes()).is_ok()) {
            return;
        }
    }
}
