//! A container's user namespace: made once, when the machine boots, and entered by each start.
//!
//! A child that is cloned right into a new user namespace has no power over the machine, and so cannot build the
//! container's root: it can make no device node, cannot map the owners of layers, cannot open a volume, and an
//! overlay that it mounts does not see `trusted.overlay.opaque`. So the child builds with PID 1's privileges and
//! enters the namespace last. What it has built belongs to the machine's user namespace: no capability inside has
//! power over the container's mounts, processes' namespace, host name or network.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::Origin;
use super::ids::IdRange;
use crate::error::{Error, Result, errno};
use crate::sys;

/// A user namespace with its ids. It lasts for as long as this.
pub(super) struct UserNamespace(File);

impl UserNamespace {
    /// The same in a child that takes it from `origin`.
    pub(super) fn taken(&self, origin: &Origin) -> nix::Result<Self> {
        origin.take(self.as_fd()).map(|namespace| Self(namespace.into()))
    }

    /// The same once more.
    pub(super) fn shared(&self) -> std::io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Makes one with these ids, and no others.
    ///
    /// The kernel makes a namespace together with a process, so one is cloned that ends at once. Its zombie is
    /// all that the rest needs, and waits for the supervisor to be reaped.
    pub(super) fn make(ranges: &[IdRange]) -> Result<Self> {
        let failed = |errno| {
            let said = |why: &str| Error::said("make", "a user namespace", why);
            match errno {
                Errno::EINVAL => said("the kernel has none (CONFIG_USER_NS)"),
                Errno::ENOSPC => said("the kernel allows no further one (user.max_user_namespaces)"),
                errno => Error::new("make", "a user namespace", errno),
            }
        };
        // The descriptors are shared and then left, as those of an `Origin` are.
        let flags = libc::CLONE_NEWUSER | libc::CLONE_FILES;
        let pid = sys::clone_into(None, flags, forbid_nesting).map_err(failed)?;
        let zombie = rustix::process::Pid::from_raw(pid.as_raw()).ok_or_else(|| failed(Errno::ESRCH))?;
        let ended = waitid(WaitId::Pid(zombie), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            .map_err(|error| failed(errno(error)))?;
        match ended.and_then(|status| status.exit_status()) {
            Some(0) => {}
            code => {
                let why = code.map_or(Errno::ECHILD, Errno::from_raw);
                return Err(Error::new("forbid", "nested user namespaces", why));
            }
        }
        let line = |range: &IdRange| format!("{} {} {}\n", range.inside, range.outside, range.count);
        let map: String = ranges.iter().map(line).collect();
        for file in ["uid_map", "gid_map"] {
            let path = format!("/proc/{pid}/{file}");
            fs::write(&path, &map).map_err(|error| Error::io("write", path, &error))?;
        }
        Self::of(pid)
    }

    /// The one that a process is in.
    pub(super) fn of(pid: Pid) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/user");
        File::open(&path).map(Self).map_err(|error| Error::io("open", path, &error))
    }

    /// Makes it this process's own. Nothing outside it is in this process's power any more, and within it
    /// everything is.
    pub(super) fn enter(&self) -> nix::Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWUSER)
    }
}

impl AsFd for UserNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Nobody in the namespace can make another one: full capabilities there, over namespaces of one's own, open code
/// of the kernel to everybody that is otherwise for the machine's root. The setting is that of the writer's
/// namespace, and so it is written from inside, through the machine's own `/proc`.
fn forbid_nesting() -> i32 {
    const AFTER_STANDARD: u32 = 3;
    if let Err(errno) = sys::leave_descriptors(AFTER_STANDARD) {
        return errno as i32;
    }
    match fs::write("/proc/sys/user/max_user_namespaces", "0") {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
    }
}
