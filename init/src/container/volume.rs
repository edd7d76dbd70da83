//! A volume's source: a folder or file of the machine that a container gets to see.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, Uid, fchown};
use rustix::fs::{CWD, OFlags, ResolveFlags, openat2};

use crate::error::errno;
use crate::mounts;

/// What is init's own. Who could write there could become PID 1, or another service.
const OWN: [&str; 3] = ["/init", "/coracle", mounts::RUNTIME];

/// Whether something of init's own is in `source`, or `source` in it: then the volume is read-only, whatever
/// the config says.
pub(super) fn is_guarded(source: &str) -> bool {
    let source = Path::new(source);
    OWN.iter().map(Path::new).any(|own| own.starts_with(source) || source.starts_with(own))
}

/// Opens `source`. When nothing is there, a folder is made with the owner and mode of `model`, the place that
/// it will cover: a database that gave its own folder away in the image can write to an empty volume there.
///
/// No link is followed. The machine has none of its own, and a service that another one shares a volume with
/// could lead the way to any place of the machine by one (CVE-2021-30465).
pub(super) fn open_or_make(source: &CStr, model: &OwnedFd) -> nix::Result<OwnedFd> {
    mounts::unseal()?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match openat2(CWD, source, flags, rustix::fs::Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Err(rustix::io::Errno::NOENT) => make(source, model),
        opened => opened.map_err(errno),
    }
}

fn make(path: &CStr, model: &OwnedFd) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let model = fstat(model)?;
    let mut folder = open(c"/", flags, Mode::empty())?;
    let mut names = path.to_bytes().split(|&byte| byte == b'/').filter(|name| !name.is_empty()).peekable();
    while let Some(name) = names.next() {
        let is_last = names.peek().is_none();
        let mode = Mode::from_bits_truncate(if is_last { 0o700 } else { 0o755 });
        let is_new = match mkdirat(&folder, name, mode) {
            Ok(()) => true,
            // For the last one: another container's child was faster, and it is that one's then.
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(errno),
        };
        folder = nix::fcntl::openat(&folder, name, flags, Mode::empty())?;
        if is_new && is_last {
            fchown(&folder, Some(Uid::from_raw(model.st_uid)), Some(Gid::from_raw(model.st_gid)))?;
            fchmod(&folder, Mode::from_bits_truncate(model.st_mode & 0o1777))?;
        }
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inits_own_is_never_writable_for_a_container() {
        for (source, guarded) in [
            ("/", true),
            ("/init", true),
            ("/coracle", true),
            ("/coracle/layers", true),
            ("/run", true),
            ("/run/coracle/layers", true),
            ("/srv", false),
            ("/coracles", false),
            ("/initial", false),
            ("/run/db", false),
            ("/proc", false),
        ] {
            assert_eq!(is_guarded(source), guarded, "{source}");
        }
    }
}
