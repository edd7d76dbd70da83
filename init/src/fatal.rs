//! The end of what cannot go on: one clear line, on the console and in the kernel's log, then a reboot. It
//! never hangs and never returns.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::set_hook;
use std::time::Duration;

use nix::libc;
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::sync;

use crate::post_mortem;
use crate::sys;

/// Long enough to read one line on a screen, and to write back what was not.
const TIME_TO_READ: Duration = Duration::from_secs(3);
const CONSOLE: &str = "/dev/console";
const KERNEL_LOG: &str = "/dev/kmsg";
/// Seconds from a panic of the kernel to the reboot; 0 is never, and less than that at once.
const PANIC_TIMEOUT: &str = "/proc/sys/kernel/panic";

/// Makes a panic end like every other fatal error. Set first of all.
pub fn catch_panics() {
    set_hook(Box::new(|panic| reboot_because(&format_args!("init is broken: {panic}"))));
}

/// For a child of PID 1 that is not its container yet: a panic ends it alone, by the abort that follows.
pub fn catch_panics_of_child() {
    set_hook(Box::new(|panic| say(&format_args!("a container's start is broken: {panic}"))));
}

/// Says why, waits until it can have been read, and reboots. Where the machine remembers how a boot ends, the next one can
/// tell: the kernel keeps what was said before a panic, and not what was said before a reboot.
pub fn reboot_because(why: &dyn fmt::Display) -> ! {
    say(&format_args!("{why}; the machine reboots"));
    // In a child, because a disk that does not answer would make this process wait with it. Without memory
    // for a child, nothing is synced: the reboot matters more.
    let (Ok(_) | Err(_)) = sys::clone_into(None, 0, || {
        sync();
        0
    });
    std::thread::sleep(TIME_TO_READ);
    if post_mortem::is_kept() && a_panic_reboots() {
        std::process::abort();
    }
    let Err(errno) = reboot(RebootMode::RB_AUTOBOOT);
    say(&format_args!("cannot reboot: {}", errno.desc()));
    // The end of PID 1 is a panic of the kernel, which reboots as well (`panic=5`).
    std::process::abort()
}

fn a_panic_reboots() -> bool {
    let timeout = fs::read_to_string(PANIC_TIMEOUT).unwrap_or_default();
    timeout.trim_end().parse::<i32>().is_ok_and(|seconds| seconds != 0)
}

fn say(text: &dyn fmt::Display) {
    // A panic has two lines, and none of them may move a cursor.
    let line = text.to_string().replace(['\r', '\n', '\x1b'], " ");
    let on_console = write(CONSOLE, &format!("coracle | {line}\n"));
    // Level 5 is for the record alone, 2 reaches the console by itself. Where neither can be written nobody
    // is there to read.
    let level = if on_console.is_ok() { 5 } else { 2 };
    let (Ok(()) | Err(_)) = write(KERNEL_LOG, &format!("<{level}>coracle: {line}\n"));
}

fn write(path: &str, line: &str) -> std::io::Result<()> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new().write(true).custom_flags(flags).open(path)?.write_all(line.as_bytes())
}
