//! Kernel modules: loaded in the order of the boot manifest, which is the order of their dependencies, with the parameters
//! that the kernel's command line has for them (`softdog.soft_panic=1`), as modprobe(8) does.

use std::ffi::CString;
use std::fs::{self, File};

use manifest::path;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use crate::error::{Error, Result};
use crate::log::Console;

/// Loads every module. One that fails is said and passed over: whatever needs it fails later, with its own
/// name.
pub fn load(modules: &[String], console: &mut Console) {
    // Without it, modules have their defaults.
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    for name in modules {
        if let Err(error) = load_one(name, &parameters(name, &cmdline)) {
            console.say(format_args!("{error}"));
        }
    }
}

/// The words of the kernel's command line that are for the module in the file `name`, without its name. `-` and `_` are
/// the same in names of modules.
fn parameters(name: &str, cmdline: &str) -> String {
    let plain = |name: &str| name.replace('-', "_");
    let module = plain(name.split('.').next().unwrap_or_default());
    // What follows is for init.
    let words = cmdline.split_ascii_whitespace().take_while(|word| *word != "--");
    let own = words.filter_map(|word| {
        let (before, parameter) = word.split_once('.')?;
        (plain(before) == module).then_some(parameter)
    });
    own.collect::<Vec<_>>().join(" ")
}

fn load_one(name: &str, parameters: &str) -> Result<()> {
    const DOING: &str = "load the kernel module";
    let file = File::open(format!("{}/{name}", path::MODULES))
        .map_err(|error| Error::io(DOING, name.to_owned(), &error))?;
    let parameters = CString::new(parameters)
        .map_err(|_| Error::said(DOING, name.to_owned(), "a parameter contains a NUL byte"))?;
    match finit_module(&file, &parameters, ModuleInitFlags::empty()) {
        // EEXIST: loaded already, or built in.
        // ENODEV: the hardware that it drives is not there. Watchdogs are loaded on the chance that theirs is.
        Ok(()) | Err(Errno::EEXIST | Errno::ENODEV) => Ok(()),
        // The kernel log has its name.
        Err(Errno::ENOENT) => Err(Error::said(DOING, name.to_owned(), "a symbol that it needs is nowhere")),
        Err(errno) => Err(Error::new(DOING, name.to_owned(), errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_those_of_the_module_alone() {
        let cmdline =
            "quiet ramoops.mem_size=0x100000 softdog.x=1 ramoops.ecc=1 e.f virtio-net.a=b -- ramoops.no=1\n";
        assert_eq!(parameters("ramoops.ko", cmdline), "mem_size=0x100000 ecc=1");
        assert_eq!(parameters("virtio_net.ko", cmdline), "a=b");
        assert_eq!(parameters("erofs.ko", cmdline), "");
    }
}
