//! What a container does not see of `/proc` and `/sys`, or cannot write to.
//!
//! Everything is reached from the descriptor of the file system that was just mounted, and covered by what is init's
//! own: no link of an image is on the way, and none can be put there while it happens (CVE-2025-31133).

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use manifest::mask::{MASKS, Mask};
use nix::libc;
use nix::sys::stat::{SFlag, fstat};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{MoveMountFlags, move_mount};

use super::text;
use super::volume::tree_of;
use crate::error::{Result, errno};
use crate::{mounts, sys};

/// Covers a file: whoever reads it reads nothing.
const NULL: &str = "/dev/null";

const READ_ONLY: u64 =
    libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// The masks of one container.
pub(super) struct Masks {
    covers: Vec<Cover>,
    /// Whether processes of other users are not in its `/proc`.
    pub(super) own_processes: bool,
}

struct Cover {
    /// Where the file system is mounted.
    top: &'static str,
    /// Below that; empty for all of it.
    path: CString,
    mask: Mask,
}

impl Masks {
    /// All but those of `unmasked`.
    pub(super) fn prepare(unmasked: &[String]) -> Result<Self> {
        let mut masks = Self { covers: Vec::new(), own_processes: false };
        for (path, mask) in MASKS.into_iter().filter(|(path, _)| !unmasked.iter().any(|name| name == path)) {
            if mask == Mask::OwnProcesses {
                masks.own_processes = true;
                continue;
            }
            let (top, inside) = match path.strip_prefix("/proc") {
                Some(inside) => ("/proc", inside),
                None => ("/sys", path.trim_start_matches("/sys")),
            };
            masks.covers.push(Cover { top, path: text(inside.trim_start_matches('/'))?, mask });
        }
        Ok(masks)
    }

    /// Masks what is in `mount`, the file system that was mounted at `top`.
    pub(super) fn apply(&self, top: &str, mount: BorrowedFd<'_>) -> nix::Result<()> {
        self.covers.iter().filter(|cover| cover.top == top).try_for_each(|cover| cover.apply(mount))
    }
}

impl Cover {
    fn apply(&self, mount: BorrowedFd<'_>) -> nix::Result<()> {
        if self.path.is_empty() {
            return sys::add_mount_attributes(mount, READ_ONLY);
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let target = match openat2(mount, &self.path, flags, Mode::empty(), resolve) {
            Ok(target) => target,
            // Not every kernel has everything.
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(errno(error)),
        };
        let cover = match self.mask {
            Mask::ReadOnly => again(&target, READ_ONLY)?,
            Mask::Hidden | Mask::OwnProcesses => nothing(&target)?,
        };
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&cover, c"", &target, c"", flags).map_err(errno)
    }
}

/// A mount of init's own with nothing in it, of the kind that `target` is.
fn nothing(target: &OwnedFd) -> nix::Result<OwnedFd> {
    let is_folder = fstat(target)?.st_mode & libc::S_IFMT == SFlag::S_IFDIR.bits();
    // A device that nothing can be read from must still be one.
    let (path, attributes) =
        if is_folder { (mounts::EMPTY, READ_ONLY) } else { (NULL, READ_ONLY & !libc::MOUNT_ATTR_NODEV) };
    let source = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    again(&source.map_err(errno)?, attributes)
}

/// A further mount of `source`, with these attributes.
fn again(source: &OwnedFd, attributes: u64) -> nix::Result<OwnedFd> {
    let cover = tree_of(source)?;
    sys::add_mount_attributes(cover.as_fd(), attributes)?;
    Ok(cover)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(unmasked: &[&str]) -> Masks {
        Masks::prepare(&unmasked.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn everything_is_masked_unless_it_is_named() {
        let all = of(&[]);
        assert_eq!(all.covers.len(), MASKS.len() - 1);
        assert!(all.own_processes);
        let some = of(&["/proc", "/proc/kcore", "/sys"]);
        assert_eq!(some.covers.len(), MASKS.len() - 3);
        assert!(!some.own_processes);
        assert!(some.covers.iter().all(|cover| !cover.path.is_empty() && cover.path.as_c_str() != c"kcore"));
        assert!(of(&MASKS.map(|(path, _)| path)).covers.is_empty());
    }

    #[test]
    fn each_path_is_below_the_file_system_that_has_it() {
        let all = of(&[]);
        let whole: Vec<String> = all
            .covers
            .iter()
            .map(|cover| format!("{}/{}", cover.top, cover.path.to_string_lossy()))
            .collect();
        for (path, _) in MASKS.iter().filter(|(path, _)| *path != "/proc") {
            assert!(whole.iter().any(|found| found.trim_end_matches('/') == *path), "{path} of {whole:?}");
        }
    }
}
