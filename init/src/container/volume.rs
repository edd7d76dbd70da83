//! A volume's source: a folder or file of the machine that a container gets to see.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, Uid, fchownat};
use rustix::fs::{CWD, OFlags, ResolveFlags, openat2};

use super::ids::Ids;
use super::tree;
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

/// A mount of `source`, attached nowhere yet. When nothing is there, a folder is made with the owner and mode of
/// `model`, the place that it will cover: a database that gave its own folder away in the image can write to an
/// empty volume there.
///
/// No link is followed. The machine has none of its own, and a service that another one shares a volume with
/// could lead the way to any place of the machine by one (CVE-2021-30465).
pub(super) fn open_or_make(source: &CStr, model: &OwnedFd, ids: &Ids) -> nix::Result<OwnedFd> {
    mounts::unseal()?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = openat2(CWD, source, flags, rustix::fs::Mode::empty(), ResolveFlags::NO_SYMLINKS);
    let (source, is_new) = match opened {
        Ok(source) => (source, false),
        Err(rustix::io::Errno::NOENT) => make(source)?,
        Err(error) => return Err(errno(error)),
    };
    let tree = tree::of(&source)?;
    match ids.map_owners(tree.as_fd()) {
        // What cannot be mapped is as it is: what the kernel makes up, and before Linux 6.3 all that is in memory.
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(errno) => return Err(errno),
    }
    if is_new {
        let model = fstat(model)?;
        fchmod(&source, Mode::from_bits_truncate(model.st_mode & 0o1777))?;
        // Through the tree: a volume whose owners are mapped stores the container's own numbers.
        let (uid, gid) = (Uid::from_raw(model.st_uid), Gid::from_raw(model.st_gid));
        fchownat(&tree, c"", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?;
    }
    Ok(tree)
}

/// Makes the folder `path`, and those above it that are not there. Returns whether it was this call that made it:
/// where another container's child was faster, it is that one's.
fn make(path: &CStr) -> nix::Result<(OwnedFd, bool)> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut folder = open(c"/", flags, Mode::empty())?;
    let mut is_new = false;
    let mut names = path.to_bytes().split(|&byte| byte == b'/').filter(|name| !name.is_empty()).peekable();
    while let Some(name) = names.next() {
        let mode = Mode::from_bits_truncate(if names.peek().is_none() { 0o700 } else { 0o755 });
        is_new = match mkdirat(&folder, name, mode) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(errno),
        };
        folder = openat(&folder, name, flags, Mode::empty())?;
    }
    Ok((folder, is_new))
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
