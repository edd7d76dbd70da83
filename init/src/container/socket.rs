//! A socket of init's that a container sees in its `/dev`.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

use nix::libc;
use nix::sys::stat::{Mode, SFlag, mknodat};
use rustix::fs::{CWD, OFlags, ResolveFlags, openat, openat2};

use super::{text, tree};
use crate::error::{Result, errno};

/// Where it is, and where it appears.
#[derive(PartialEq)]
pub(super) struct Socket {
    source: CString,
    /// Relative to `/dev`.
    target: CString,
}

impl Socket {
    pub(super) fn prepare(socket: &manifest::Socket) -> Result<Self> {
        let target = socket.target.trim_start_matches("/dev/").trim_start_matches('/');
        Ok(Self { source: text(&socket.source)?, target: text(target)? })
    }

    /// Lets it appear in `dev`. Connecting needs no writable mount.
    pub(super) fn attach(&self, dev: BorrowedFd<'_>) -> nix::Result<()> {
        const ATTRIBUTES: u64 = libc::MOUNT_ATTR_RDONLY
            | libc::MOUNT_ATTR_NOSUID
            | libc::MOUNT_ATTR_NODEV
            | libc::MOUNT_ATTR_NOEXEC;
        const NO_MODE: rustix::fs::Mode = rustix::fs::Mode::empty();
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let source = openat2(CWD, &self.source, flags, NO_MODE, ResolveFlags::NO_SYMLINKS).map_err(errno)?;
        let tree = tree::with(tree::of(&source)?, ATTRIBUTES)?;
        mknodat(dev, self.target.as_c_str(), SFlag::S_IFREG, Mode::empty(), 0)?;
        let place = openat(dev, &self.target, flags | OFlags::NOFOLLOW, NO_MODE).map_err(errno)?;
        tree::cover(&tree, &place)
    }
}
