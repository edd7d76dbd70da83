//! A container's `/dev`: a file system of its own with the devices that give nothing away, and those that the
//! config adds.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use manifest::Device;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::libc;
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, fchmodat, major, makedev, minor, mkdirat, mknodat, stat,
};
use nix::unistd::{Gid, Uid, fchownat, mkdir, symlinkat};
use rustix::mount::MountAttrFlags;

use super::device_program::{Kind, Rule};
use super::ids::Ids;
use super::rootfs::new_mount;
use super::{credentials, text, tree};
use crate::error::Result;
use crate::{ports, sys};

/// Folders that file systems are mounted on.
const FOLDERS: [&CStr; 3] = [c"pts", c"shm", c"mqueue"];

/// Name, major, minor: devices that give away nothing of the machine.
const NODES: [(&CStr, u64, u64); 6] = [
    (c"null", 1, 3),
    (c"zero", 1, 5),
    (c"full", 1, 7),
    (c"random", 1, 8),
    (c"urandom", 1, 9),
    (c"tty", 5, 0),
];

const LINKS: [(&CStr, &CStr); 5] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"ptmx", c"pts/ptmx"),
];

/// Makes what every container has, for user 0 of `ids`: in the new folder `place`, if there is one, of the file system that
/// the container writes to, and else in one of its own. To make one less and take it apart saves 1 % of a start.
pub(super) fn make(ids: &Ids, place: Option<&CStr>) -> nix::Result<OwnedFd> {
    let dev = match place {
        Some(place) => folder(ids, place)?,
        None => file_system(ids)?,
    };
    credentials::owned_by(ids.root(), || fill(dev.as_fd()))?;
    Ok(dev)
}

fn folder(ids: &Ids, place: &CStr) -> nix::Result<OwnedFd> {
    credentials::owned_by(ids.root(), || mkdir(place, Mode::from_bits_truncate(0o755)))?;
    let dev = tree::of_own(place, 0)?;
    sys::change_mount_attributes(
        dev.as_fd(),
        libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC,
        libc::MOUNT_ATTR_NODEV,
    )?;
    Ok(dev)
}

fn file_system(ids: &Ids) -> nix::Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let options = [(c"mode", c"0755"), (c"size", c"64k")];
    new_mount(c"tmpfs", &options, &[(c"uid", ids.number(0)), (c"gid", ids.number(0))], attributes)
}

fn fill(dev: BorrowedFd<'_>) -> nix::Result<()> {
    for (name, major, minor) in NODES {
        mknodat(dev, name, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))?;
    }
    for (name, target) in LINKS {
        symlinkat(target, dev, name)?;
    }
    for name in FOLDERS {
        mkdirat(dev, name, Mode::from_bits_truncate(0o755))?;
    }
    Ok(())
}

/// Makes all that the machine's `/dev` has, owned as there.
pub(super) fn add_all(dev: BorrowedFd<'_>) -> nix::Result<()> {
    let failed = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(Path::new("/dev").join(&folder)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let metadata = entry.metadata().map_err(failed)?;
            let path = folder.join(entry.file_name());
            let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
            if FOLDERS.contains(&name.as_c_str()) {
                continue;
            }
            let mode = Mode::from_bits_truncate(metadata.mode() & 0o7777);
            let kind = SFlag::from_bits_truncate(metadata.mode() & libc::S_IFMT);
            if kind == SFlag::S_IFDIR {
                ignore_existing(mkdirat(dev, name.as_c_str(), mode))?;
                folders.push(path);
            } else if kind == SFlag::S_IFCHR || kind == SFlag::S_IFBLK {
                match mknodat(dev, name.as_c_str(), kind, mode, metadata.rdev()) {
                    Ok(()) => {
                        own(dev, &name, (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid())))?
                    }
                    // One that every container has.
                    Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
    }
    Ok(())
}

/// A device of the machine that a container gets.
#[derive(PartialEq)]
pub(super) struct Node {
    source: String,
    /// Relative to `/dev`.
    target: CString,
}

impl Node {
    pub(super) fn prepare(device: &Device) -> Result<Self> {
        let target = device.target.trim_start_matches("/dev/").trim_start_matches('/');
        Ok(Self { source: device.source.clone(), target: text(target)? })
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// What its source is at this moment. None when that cannot be told: then nor can it be made, and the child
    /// says why.
    pub(super) fn rule(&self) -> Option<Rule> {
        let source = self.look().ok()?;
        let is_block = source.st_mode & libc::S_IFMT == libc::S_IFBLK;
        let (major, minor) = (major(source.st_rdev), minor(source.st_rdev));
        Some(Rule {
            kind: if is_block { Kind::Block } else { Kind::Character },
            major: Some(u32::try_from(major).ok()?),
            minor: Some(u32::try_from(minor).ok()?),
        })
    }

    fn look(&self) -> nix::Result<FileStat> {
        let source = stat(&ports::resolve(&self.source).ok_or(Errno::ENOENT)?)?;
        match source.st_mode & libc::S_IFMT {
            libc::S_IFCHR | libc::S_IFBLK => Ok(source),
            _ => Err(Errno::ENODEV),
        }
    }

    /// Makes the node in `dev`, which is still nobody's but ours, with what its source is at this moment.
    pub(super) fn make(&self, dev: BorrowedFd<'_>, owner: (Uid, Gid)) -> nix::Result<()> {
        let source = self.look()?;
        let kind = SFlag::from_bits_truncate(source.st_mode & libc::S_IFMT);
        make_parents(self.target.as_bytes(), |parent| mkdirat(dev, parent, Mode::from_bits_truncate(0o755)))?;
        let target = self.target.as_c_str();
        let mode = Mode::from_bits_truncate(source.st_mode & 0o777);
        mknodat(dev, target, kind, mode, source.st_rdev)?;
        // Whoever is given a device may use it.
        own(dev, target, owner)?;
        fchmodat(dev, target, mode, FchmodatFlags::FollowSymlink)
    }
}

fn own(dev: BorrowedFd<'_>, name: &CStr, (uid, gid): (Uid, Gid)) -> nix::Result<()> {
    fchownat(dev, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// Calls `make` with each folder above `path`, the uppermost first.
fn make_parents(path: &[u8], make: impl Fn(&CStr) -> nix::Result<()>) -> nix::Result<()> {
    for (end, _) in path.iter().enumerate().filter(|&(at, &byte)| byte == b'/' && at > 0) {
        let parent = CString::new(path.get(..end).unwrap_or_default()).map_err(|_| Errno::EINVAL)?;
        ignore_existing(make(&parent))?;
    }
    Ok(())
}

fn ignore_existing(made: nix::Result<()>) -> nix::Result<()> {
    match made {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_made_from_the_top() {
        let made = std::cell::RefCell::new(vec![]);
        make_parents(b"/var/lib/data", |parent| {
            made.borrow_mut().push(parent.to_owned());
            Err(Errno::EEXIST)
        })
        .unwrap();
        assert_eq!(made.into_inner(), [c"/var".to_owned(), c"/var/lib".to_owned()]);
    }
}
