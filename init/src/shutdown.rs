//! The last stage: nothing runs any more but init.

use nix::mount::{MntFlags, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::sync;

use supervision::Power;

use crate::{fatal, mounts};

/// Writes everything back and lets go of the layers.
pub fn unmount() {
    sync();
    // All of them in one call, because each call costs an RCU grace period. They are read-only, so there is
    // nothing to lose: whether it could be done decides nothing.
    let (Ok(()) | Err(_)) = umount2(mounts::RUNTIME_MOUNT, MntFlags::MNT_DETACH);
}

/// Ends the machine. Does not return.
pub fn end(power: Power) -> ! {
    let mode = match power {
        Power::Off => RebootMode::RB_POWER_OFF,
        Power::Reboot => RebootMode::RB_AUTOBOOT,
        Power::Halt => RebootMode::RB_HALT_SYSTEM,
    };
    let Err(errno) = reboot(mode);
    fatal::reboot_because(&format_args!("cannot end the machine: {}", errno.desc()))
}
