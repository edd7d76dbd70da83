//! Kernel modules: loaded in the order of the boot manifest, which is the order of their dependencies.

use std::fs::File;

use manifest::path;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use crate::error::{Error, Result};
use crate::log::Console;

/// Loads every module. One that fails is said and passed over: whatever needs it fails later, with its own
/// name.
pub fn load(modules: &[String], console: &mut Console) {
    for name in modules {
        if let Err(error) = load_one(name) {
            console.say(format_args!("{error}"));
        }
    }
}

fn load_one(name: &str) -> Result<()> {
    const DOING: &str = "load the kernel module";
    let file = File::open(format!("{}/{name}", path::MODULES))
        .map_err(|error| Error::io(DOING, name.to_owned(), &error))?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        // EEXIST: loaded already, or built in.
        // ENODEV: the hardware that it drives is not there. Watchdogs are loaded on the chance that theirs is.
        Ok(()) | Err(Errno::EEXIST | Errno::ENODEV) => Ok(()),
        // The kernel log has its name.
        Err(Errno::ENOENT) => Err(Error::said(DOING, name.to_owned(), "a symbol that it needs is nowhere")),
        Err(errno) => Err(Error::new(DOING, name.to_owned(), errno)),
    }
}
