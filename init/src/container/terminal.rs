//! A terminal of a container's own, from its own `/dev/pts`. Whoever started the process holds the other side.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{Gid, Uid, fchown};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

use crate::error::errno;

/// Inside; the same file as `/dev/ptmx`, without its link.
const MULTIPLEXER: &str = "/dev/pts/ptmx";

/// Makes a terminal that belongs to `user` and controls this session, sends its other side over the socket, with its
/// name, and returns its own. This process's root is the container's.
pub(super) fn open(socket: BorrowedFd<'_>, user: (Uid, Gid)) -> nix::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let outer = openat2(CWD, MULTIPLEXER, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).map_err(errno)?;
    unlockpt(&outer).map_err(errno)?;
    // From the other side, and not by its path: that leads where the container wants.
    let inner = ioctl_tiocgptpeer(&outer, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .map_err(errno)?;
    // Its group stays the one that /dev/pts gives: see write(1).
    fchown(&inner, Some(user.0), None)?;
    ioctl_tiocsctty(&inner).map_err(errno)?;
    let name = [IoSlice::new(MULTIPLEXER.as_bytes())];
    let descriptors = [outer.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(socket.as_raw_fd(), &name, &control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(inner)
}
