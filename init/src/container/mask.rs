//! What a container does not see of `/proc` and `/sys`, or cannot write to.
//!
//! Everything is reached from the descriptor of the file system that was just mounted, nearly always as a single name
//! in it, and covered by what is init's own: no link is followed, and none can be put there while it happens
//! (CVE-2025-31133).

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use manifest::mask::{MASKS, Mask};
use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{SFlag, fstat};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::tree;
use crate::error::errno;
use crate::{mounts, sys};

/// Covers a file: whoever reads it reads nothing.
const NULL: &str = "/dev/null";

const READ_ONLY: u64 =
    libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// What is a folder among what is hidden and has a single name. No kernel has one of another kind; if one had, it would
/// be looked at before it is covered.
const FOLDERS: [&str; 4] = ["acpi", "asound", "firmware", "scsi"];

/// The masks of one container. Nearly all have the same, so that each only says which of them it has.
#[derive(PartialEq)]
pub(super) struct Masks {
    applied: [bool; MASKS.len()],
    /// Whether processes of other users are not in its `/proc`.
    pub(super) own_processes: bool,
}

impl Masks {
    /// All but those of `unmasked`, and of what this machine can never have.
    pub(super) fn prepare(unmasked: &[String]) -> Self {
        Self::without(unmasked, MISSING.get_or_init(missing))
    }

    fn without(unmasked: &[String], missing: &[bool; MASKS.len()]) -> Self {
        let mut applied = MASKS.map(|(path, _)| !unmasked.iter().any(|name| name == path));
        for (applied, missing) in applied.iter_mut().zip(missing) {
            *applied &= !missing;
        }
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

/// Found out once, because to be told that something is not there takes a start as long as to cover it.
static MISSING: OnceLock<[bool; MASKS.len()]> = OnceLock::new();

/// Which of the masks are of what is not there, and cannot come before the next boot. In `/proc`, whose first level is made
/// when the kernel or a module begins (`proc_mkdir` and its like), and only where no module can come any more: what is
/// elsewhere may appear with a device.
fn missing() -> [bool; MASKS.len()] {
    let is_locked = fs::read("/proc/sys/kernel/modules_disabled").is_ok_and(|text| text.starts_with(b"1"));
    let is_absent = |path: &str| {
        fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    MASKS.map(|(path, _)| is_locked && path.strip_prefix("/proc/").is_some_and(is_name) && is_absent(path))
}

/// Mounts of init's own with nothing in them.
#[derive(Default)]
pub(super) struct Nothing {
    folder: Cover,
    file: Cover,
}

/// One of them.
#[derive(Default)]
struct Cover {
    /// The last that covers something: what is covered next gets another mount of the same, which has its attributes.
    attached: Option<OwnedFd>,
    /// One that was to cover what is not there.
    spare: Option<OwnedFd>,
}

/// Covers what is at `path` in a file system that was just mounted, where this kernel has something there.
fn cover(mount: BorrowedFd<'_>, path: &str, mask: Mask, nothing: &mut Nothing) -> nix::Result<()> {
    if path.is_empty() {
        return sys::add_mount_attributes(mount, READ_ONLY);
    }
    let covered = match mask {
        // A single name needs no look before: that would take as long as all the rest.
        Mask::ReadOnly if is_name(path) => {
            tree::of_name(mount, path, READ_ONLY).and_then(|again| tree::attach(&again, mount, path))
        }
        Mask::Hidden if is_name(path) => {
            let (cover, own, attributes) = nothing.of_kind(FOLDERS.contains(&path));
            cover.put(own, attributes, |cover| tree::attach(cover, mount, path))
        }
        _ => Err(Errno::EINVAL),
    };
    match covered {
        // The way to it is longer, or it is of another kind.
        Err(Errno::EINVAL) => look_and_cover(mount, path, mask, nothing),
        // Not every kernel has everything.
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

fn is_name(path: &str) -> bool {
    !path.contains('/')
}

fn look_and_cover(mount: BorrowedFd<'_>, path: &str, mask: Mask, nothing: &mut Nothing) -> nix::Result<()> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match openat2(mount, path, flags, Mode::empty(), resolve) {
        Ok(place) => cover_place(&place, mask, nothing),
        Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(errno(error)),
    }
}

/// Covers a place in a file system that is attached already.
pub(super) fn cover_place(place: &OwnedFd, mask: Mask, nothing: &mut Nothing) -> nix::Result<()> {
    match mask {
        Mask::ReadOnly => tree::cover(tree::with(tree::of(place)?, READ_ONLY)?, place),
        Mask::Hidden | Mask::OwnProcesses => {
            let is_folder = fstat(place)?.st_mode & libc::S_IFMT == SFlag::S_IFDIR.bits();
            let (cover, own, attributes) = nothing.of_kind(is_folder);
            cover.put(own, attributes, |cover| tree::cover(cover, place))
        }
    }
}

impl Nothing {
    /// What covers folders or files, what it is a mount of, and its attributes.
    fn of_kind(&mut self, folder: bool) -> (&mut Cover, &'static str, u64) {
        if folder {
            (&mut self.folder, mounts::EMPTY, READ_ONLY)
        } else {
            // A device that nothing can be read from must still be one.
            (&mut self.file, NULL, READ_ONLY & !libc::MOUNT_ATTR_NODEV)
        }
    }
}

impl Cover {
    /// Attaches another mount of the same; the first one is of `own`, with `attributes`.
    fn put(
        &mut self,
        own: &str,
        attributes: u64,
        attach: impl FnOnce(&OwnedFd) -> nix::Result<()>,
    ) -> nix::Result<()> {
        let cover = match (self.spare.take(), &self.attached) {
            (Some(spare), _) => spare,
            (None, Some(attached)) => tree::of(attached)?,
            (None, None) => tree::of_own(own, attributes)?,
        };
        let put = attach(&cover);
        *(if put.is_ok() { &mut self.attached } else { &mut self.spare }) = Some(cover);
        put
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(unmasked: &[&str]) -> Masks {
        let unmasked: Vec<String> = unmasked.iter().map(|path| (*path).to_owned()).collect();
        Masks::without(&unmasked, &[false; MASKS.len()])
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

    #[test]
    fn what_a_machine_can_never_have_is_not_looked_for() {
        let missing = MASKS.map(|(path, _)| path == "/proc/scsi");
        let found = covered(&Masks::without(&[], &missing));
        assert_eq!(found.len(), MASKS.len() - 2);
        assert!(!found.iter().any(|path| path == "/proc/scsi"));
    }

    #[test]
    fn folders_that_are_known_to_be_some_are_hidden_ones_with_a_single_name() {
        for folder in FOLDERS {
            let is = |(path, mask): &(&str, Mask)| {
                path.rsplit('/').next() == Some(folder)
                    && path.matches('/').count() == 2
                    && *mask == Mask::Hidden
            };
            assert!(MASKS.iter().any(is), "{folder}");
        }
    }
}
