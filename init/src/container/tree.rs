//! Mounts by descriptor: further ones of what is there, and how they are attached.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::path::Arg;

use crate::error::errno;
use crate::sys;

const CLONE: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);
const NO_LINK: OpenTreeFlags = OpenTreeFlags::AT_SYMLINK_NOFOLLOW.union(OpenTreeFlags::AT_NO_AUTOMOUNT);

/// A further mount of `place`, attached nowhere; what is mounted below it stays out.
pub(super) fn of(place: &OwnedFd) -> nix::Result<OwnedFd> {
    open_tree(place, c"", CLONE | OpenTreeFlags::AT_EMPTY_PATH).map_err(errno)
}

/// Likewise of `path`, which is init's own, with attributes (`MOUNT_ATTR_*`).
pub(super) fn of_own(path: impl Arg, attributes: u64) -> nix::Result<OwnedFd> {
    with(open_tree(CWD, path, CLONE | NO_LINK).map_err(errno)?, attributes)
}

/// Likewise of what has the name `name` in `folder`: see [`attach`].
pub(super) fn of_name(folder: impl AsFd, name: impl Arg, attributes: u64) -> nix::Result<OwnedFd> {
    with(open_tree(folder, name, CLONE | NO_LINK).map_err(errno)?, attributes)
}

/// Sets attributes of a mount that was just made.
pub(super) fn with(tree: OwnedFd, attributes: u64) -> nix::Result<OwnedFd> {
    sys::add_mount_attributes(tree.as_fd(), attributes)?;
    Ok(tree)
}

/// Attaches `tree` at `place`.
pub(super) fn cover(tree: impl AsFd, place: impl AsFd) -> nix::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, c"", place, c"", flags).map_err(errno)
}

/// Attaches `tree` at what has the name `name` in `folder`. A single name has nothing before it that could be a link,
/// and a link that has the name itself is not followed (`MOVE_MOUNT_T_SYMLINKS`). So nothing is looked up twice, and
/// neither is it possible to be led astray.
pub(super) fn attach(tree: impl AsFd, folder: impl AsFd, name: impl Arg) -> nix::Result<()> {
    move_mount(tree, c"", folder, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(errno)
}
