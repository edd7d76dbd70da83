//! Where a container's first process has its descriptors from.
//!
//! With copies of PID 1's, each of four for every service, a thousandth service would copy and close 4,000 of them,
//! which is 0.6 million instructions, and keep a table of 32 KB for as long as it runs. So it begins with the very table
//! of PID 1, leaves it for one of its own before anything else, and takes over the few that it needs.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use crate::error::{Error, Result, errno};
use crate::sys;

/// The process that starts containers, as the children reach its descriptors.
pub struct Origin {
    pid: i32,
    process: OwnedFd,
}

impl Origin {
    /// This process. What it has opened before this, children have as well, until they have been executed.
    pub fn this() -> Result<Self> {
        let pid = getpid();
        let process = pidfd_open(pid, PidfdFlags::empty());
        let process = process.map_err(|error| Error::new("open", "this process", errno(error)))?;
        Ok(Self { pid: pid.as_raw_pid(), process })
    }

    /// Leaves, in a child, the table of descriptors that it shares with this process. What has been opened after `self` is not the
    /// child's any more, and can be taken.
    pub(super) fn leave(&self) -> nix::Result<()> {
        sys::leave_descriptors(self.process.as_raw_fd().cast_unsigned() + 1)
    }

    /// Takes over, in a child that has left, what the process has open under the number of `descriptor`.
    ///
    /// The process keeps that open until the child has said so or is dead.
    pub(super) fn take(&self, descriptor: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
        if descriptor.as_raw_fd() < self.process.as_raw_fd() {
            return fcntl_dupfd_cloexec(descriptor, 0).map_err(errno);
        }
        let number = descriptor.as_raw_fd();
        match pidfd_getfd(&self.process, number, PidfdGetfdFlags::empty()) {
            // Somebody with power over the machine has forbidden to attach to processes (Yama), which this counts as. What
            // was opened after `self` are pipes to write to, and namespaces, which are only read: they have paths as well.
            Err(rustix::io::Errno::PERM) => {
                let path = format!("/proc/{}/fd/{number}", self.pid);
                let open = |access| rustix::fs::open(&path, access | OFlags::CLOEXEC, Mode::empty());
                open(OFlags::WRONLY).or_else(|_| open(OFlags::RDONLY))
            }
            taken => taken,
        }
        .map_err(errno)
    }
}
