//! What a container does not see of `/proc` and `/sys`, or cannot write to.
//!
//! Everything is reached from the descriptor of the file system that was just mounted, and covered by what is init's
//! own: no link of an image is on the way, and none can be put there while it happens (CVE-2025-31133).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use manifest::mask::{MASKS, Mask};
use nix::libc;
use nix::sys::stat::{SFlag, fstat};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{MoveMountFlags, move_mount};

use super::volume::tree_of;
use crate::error::errno;
use crate::{mounts, sys};

/// Covers a file: whoever reads it reads nothing.
const NULL: &str = "/dev/null";

const READ_ONLY: u64 =
    libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// The masks of one container. Nearly all have the same, so that each only says which of them it has.
pub(super) struct Masks {
    applied: [bool; MASKS.len()],
    /// Whether processes of other users are not in its `/proc`.
    pub(super) own_processes: bool,
}

impl Masks {
    /// All but those of `unmasked`.
    pub(super) fn prepare(unmasked: &[String]) -> Self {
        let applied = MASKS.map(|(path, _)| !unmasked.iter().any(|name| name == path));
        let own_processes =
            MASKS.iter().zip(applied).any(|((_, mask), applied)| applied && *mask == Mask::OwnProcesses);
        Self { applied, own_processes }
    }

    /// Masks what is in `mount`, the file system that was mounted at `top`.
    pub(super) fn apply(&self, top: &str, mount: BorrowedFd<'_>, nothing: &mut Nothing) -> nix::Result<()> {
        self.covers(top).try_for_each(|(path, mask)| cover(mount, path, mask, nothing))
    }

    /// What is covered below `top`: a path from there, empty for all of it, and how.
    fn covers<'a>(&'a self, top: &'a str) -> impl Iterator<Item = (&'static str, Mask)> + 'a {
        let applied = MASKS.into_iter().zip(self.applied).filter(|(_, applied)| *applied);
        applied.filter_map(move |((path, mask), _)| {
            let inside = path.strip_prefix(top)?.trim_start_matches('/');
            (mask != Mask::OwnProcesses).then_some((inside, mask))
        })
    }
}

/// Mounts of init's own with nothing in them, once they cover something: what is covered next gets another mount of
/// the same, which has its attributes already.
#[derive(Default)]
pub(super) struct Nothing {
    folder: Option<OwnedFd>,
    file: Option<OwnedFd>,
}

fn cover(mount: BorrowedFd<'_>, path: &str, mask: Mask, nothing: &mut Nothing) -> nix::Result<()> {
    if path.is_empty() {
        return sys::add_mount_attributes(mount, READ_ONLY);
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let target = match openat2(mount, path, flags, Mode::empty(), resolve) {
        Ok(target) => target,
        // Not every kernel has everything.
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(error) => return Err(errno(error)),
    };
    cover_place(&target, mask, nothing)
}

/// Covers a place in a file system that is attached already.
pub(super) fn cover_place(target: &OwnedFd, mask: Mask, nothing: &mut Nothing) -> nix::Result<()> {
    match mask {
        Mask::ReadOnly => attach(&again(target, READ_ONLY)?, target),
        Mask::Hidden | Mask::OwnProcesses => nothing.cover(target),
    }
}

impl Nothing {
    /// Covers `target` by what is of its kind.
    fn cover(&mut self, target: &OwnedFd) -> nix::Result<()> {
        let is_folder = fstat(target)?.st_mode & libc::S_IFMT == SFlag::S_IFDIR.bits();
        // A device that nothing can be read from must still be one.
        let (before, path, attributes) = if is_folder {
            (&mut self.folder, mounts::EMPTY, READ_ONLY)
        } else {
            (&mut self.file, NULL, READ_ONLY & !libc::MOUNT_ATTR_NODEV)
        };
        let cover = match before {
            Some(cover) => tree_of(cover)?,
            None => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                again(&rustix::fs::open(path, flags, Mode::empty()).map_err(errno)?, attributes)?
            }
        };
        attach(&cover, target)?;
        *before = Some(cover);
        Ok(())
    }
}

fn attach(cover: &OwnedFd, target: &OwnedFd) -> nix::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(cover, c"", target, c"", flags).map_err(errno)
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
        Masks::prepare(&unmasked.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>())
    }

    /// All that is covered, by its whole path.
    fn covered(masks: &Masks) -> Vec<String> {
        let below = |top: &'static str| masks.covers(top).map(move |(path, _)| format!("{top}/{path}"));
        let paths = below("/proc").chain(below("/sys")).chain(below("/dev/shm"));
        paths.map(|path| path.trim_end_matches('/').to_owned()).collect()
    }

    #[test]
    fn everything_is_masked_unless_it_is_named() {
        let all = of(&[]);
        assert_eq!(covered(&all), MASKS.map(|(path, _)| path)[1..]);
        assert!(all.own_processes);
        let some = of(&["/proc", "/proc/kcore", "/sys"]);
        let found = covered(&some);
        assert_eq!(found.len(), MASKS.len() - 3);
        assert!(!some.own_processes);
        assert!(!found.iter().any(|path| path == "/sys" || path == "/proc/kcore"));
        assert!(covered(&of(&MASKS.map(|(path, _)| path))).is_empty());
    }
}
