//! A root that is a folder of the machine as it is, for callers who have no layers: what OCI calls a bundle.
//!
//! Mounts are as the caller says, and of any kind. They come on top of those that every container has.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use manifest::mask::Mask;
use nix::libc;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};

use super::ids::{IdRange, Ids};
use super::{text, tree};
use crate::error::{Result, errno};
use crate::sys;

/// What a container is made from beside its description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Absolute path of the folder that becomes `/`. It has all the mount points.
    pub folder: String,
    /// Its ids, whosever they are on the machine. Empty for those of the description.
    pub ids: Vec<IdRange>,
    /// In their order.
    pub mounts: Vec<BundleMount>,
    /// Paths inside, and how each is masked, when all mounts are there.
    pub masks: Vec<(String, Mask)>,
}

/// A mount of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleMount {
    /// Where: absolute.
    pub target: String,
    /// Of what.
    pub source: Source,
    /// Attributes that it gets (`MOUNT_ATTR_*`).
    pub add: u64,
    /// Attributes that it loses, which it can only have from its source.
    pub remove: u64,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A new file system.
    New {
        /// As the kernel calls it.
        kind: String,
        /// For the kernel; those without a value are flags.
        options: Vec<(String, Option<String>)>,
    },
    /// A folder or file of the machine.
    Place {
        /// Absolute.
        path: String,
        /// With all that is mounted below it.
        recursive: bool,
    },
}

/// A mount in the form in which the kernel takes it.
#[derive(PartialEq)]
pub(super) struct Addition {
    pub(super) target: CString,
    source: Prepared,
    add: u64,
    remove: u64,
}

#[derive(PartialEq)]
enum Prepared {
    New { kind: CString, options: Vec<(CString, Option<CString>)> },
    Place { path: CString, recursive: bool },
}

impl Addition {
    pub(super) fn prepare(mount: &BundleMount) -> Result<Self> {
        let source = match &mount.source {
            Source::New { kind, options } => Prepared::New { kind: text(kind)?, options: pairs(options)? },
            Source::Place { path, recursive } => Prepared::Place { path: text(path)?, recursive: *recursive },
        };
        Ok(Self { target: text(&mount.target)?, source, add: mount.add, remove: mount.remove })
    }

    /// Makes the mount, attached nowhere yet.
    pub(super) fn build(&self, ids: &Ids) -> nix::Result<OwnedFd> {
        let mount = match &self.source {
            Prepared::New { kind, options } => new(kind, options, ids)?,
            Prepared::Place { path, recursive } => place(path, *recursive)?,
        };
        sys::change_mount_attributes(mount.as_fd(), self.add, self.remove)?;
        Ok(mount)
    }
}

fn pairs(options: &[(String, Option<String>)]) -> Result<Vec<(CString, Option<CString>)>> {
    let pair =
        |(key, value): &(String, Option<String>)| Ok((text(key)?, value.as_deref().map(text).transpose()?));
    options.iter().map(pair).collect()
}

fn new(kind: &CStr, options: &[(CString, Option<CString>)], ids: &Ids) -> nix::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(errno)?;
    fsconfig_set_string(&context, c"source", kind).map_err(errno)?;
    if kind == c"tmpfs" {
        // Its root belongs to the container's, unless the options say otherwise.
        for key in [c"uid", c"gid"] {
            fsconfig_set_string(&context, key, ids.number(0).to_string().as_str()).map_err(errno)?;
        }
    }
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, key.as_c_str(), value.as_c_str()),
            None => fsconfig_set_flag(&context, key.as_c_str()),
        }
        .map_err(errno)?;
    }
    fsconfig_create(&context).map_err(errno)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(errno)
}

fn place(path: &CStr, recursive: bool) -> nix::Result<OwnedFd> {
    let below = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | below;
    open_tree(CWD, path, flags).map_err(errno)
}

/// Mounts `folder` over itself: what is to become a root must be one of a mount. Owners stay what they are.
pub(super) fn mount_over_itself(folder: &CStr, attributes: u64) -> nix::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::open(folder, flags, Mode::empty()).map_err(errno)?;
    let tree = tree::with(tree::of(&place)?, attributes | libc::MOUNT_ATTR_NODEV)?;
    tree::cover(&tree, &place)?;
    Ok(tree)
}
