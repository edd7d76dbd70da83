//! EROFS, the read-only file system that a layer is: a streaming writer, and a reader of what it wrote.
//!
//! Images have blocks of 4096 bytes. Uncompressed ones use no optional feature that a kernel could lack: Linux 5.4 and
//! later mount them. Compressed ones need Linux 5.17, or 6.10 for zstd. The format is Linux's
//! `fs/erofs/erofs_fs.h`; [`format`] has the parts that are used here.

mod cluster;
mod codec;
mod directory;
mod format;
mod index;
mod pack;
mod pool;
mod read;
mod share;
mod shelf;
mod tree;
mod write;
mod xattr;

use std::collections::BTreeMap;

pub use cluster::{CLUSTER_RANGE, Compression};
pub use format::{Codec, PATH_MAX};
pub use pool::Pool;
pub use read::{Contents, Image, Inode, damaged};
pub use tree::{Found, InodeId};
pub use write::{Output, Writer};
pub use xattr::has_known_prefix;

/// The owner, permissions, time and extended attributes of a file of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Permissions with the set-id and sticky bits, at most `0o7777`; the file type is said by [`Kind`].
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    /// The time of last modification, in seconds from 1970.
    pub mtime: i64,
    /// The nanoseconds within that second.
    pub mtime_nsec: u32,
    /// Extended attributes by their full name: `security.capability`.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Metadata {
    /// A file of root's, last modified in 1970.
    pub fn new(mode: u16) -> Self {
        Self { mode, uid: 0, gid: 0, mtime: 0, mtime_nsec: 0, xattrs: BTreeMap::new() }
    }
}

/// What a file is, and what belongs to this kind only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Directory,
    /// A regular file of `size` bytes.
    File {
        /// The length of the contents.
        size: u64,
    },
    /// A symbolic link to this path, taken literally.
    Symlink(Vec<u8>),
    /// A character device. `0:0` is overlayfs's whiteout.
    CharDevice {
        /// At most 12 bits.
        major: u32,
        /// At most 20 bits.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// At most 12 bits.
        major: u32,
        /// At most 20 bits.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A Unix socket's name.
    Socket,
}

impl Kind {
    /// The character device 0:0, by which overlayfs hides what lies below.
    pub const WHITEOUT: Self = Self::CharDevice { major: 0, minor: 0 };
}

#[cfg(test)]
mod tests;
