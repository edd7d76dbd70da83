//! A container that runs, as it is for those who start further processes in it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use manifest::Container;
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};

use super::ids::{self, IdRange, Ids};
use super::{Group, Launch, Process, Started, Stdio, child, namespaces, standing};
use crate::error::{Error, Result, errno};

/// A container's namespaces and its cgroup.
pub struct Running {
    /// Its first process.
    first: OwnedFd,
    /// Flags for setns: those that the container does not share with the machine, but the user namespace.
    namespaces: CloneFlags,
    pub(super) ids: Ids,
    cgroup: File,
}

impl Running {
    /// The one of `container` whose first process is `pid`, in the cgroup at `cgroup`. `of_bundle` are the ids of its bundle, if it has one.
    /// The caller sees to it that `pid` still is that process: it is the one who reaps it, or a pidfd says so.
    pub fn find(container: &Container, of_bundle: &[IdRange], pid: Pid, cgroup: &Path) -> Result<Self> {
        let failed = |errno| Error::new("look at", format!("process {pid}"), errno);
        let number = rustix::process::Pid::from_raw(pid.as_raw()).ok_or_else(|| failed(Errno::ESRCH))?;
        let first = pidfd_open(number, PidfdFlags::empty()).map_err(|error| failed(errno(error)))?;
        let ranges = if of_bundle.is_empty() { ids::ranges(container.ids) } else { of_bundle.to_vec() };
        let own = namespaces(&container.profile) | libc::CLONE_NEWCGROUP;
        Ok(Self {
            first,
            namespaces: CloneFlags::from_bits_truncate(own),
            ids: Ids::of_running(ranges, pid)?,
            cgroup: File::open(cgroup)
                .map_err(|error| Error::io("open the cgroup", cgroup.display().to_string(), &error))?,
        })
    }

    /// The one that `launch` has started in `group`, whose first process is `first`, which is not reaped yet.
    pub fn of(launch: &Launch, group: &Group, first: Pid) -> Result<Self> {
        let failed = |errno| Error::new("look at", format!("process {first}"), errno);
        let cannot = |error: std::io::Error| Error::io("look at", format!("process {first}"), &error);
        let number = rustix::process::Pid::from_raw(first.as_raw()).ok_or_else(|| failed(Errno::ESRCH))?;
        let namespaces = CloneFlags::from_bits_truncate(launch.namespaces | libc::CLONE_NEWCGROUP);
        Ok(Self {
            first: pidfd_open(number, PidfdFlags::empty()).map_err(|error| failed(errno(error)))?,
            namespaces,
            ids: launch.ids.shared().map_err(cannot)?,
            cgroup: group.as_fd().try_clone_to_owned().map_err(cannot)?.into(),
        })
    }

    /// Makes everything of the container this process's own, but its ids. What is seen from here on, paths included,
    /// is in the container's power.
    pub(super) fn join(&self) -> nix::Result<()> {
        setns(&self.first, self.namespaces - CloneFlags::CLONE_NEWPID)
    }
}

/// Starts a further process in a container. It is reported like a first one, ends with the container, and is held
/// by the same limits.
pub fn enter(running: &Running, process: &Process, stdio: Stdio<'_>) -> Result<Started> {
    let failed = |errno| Error::new("enter", "the container's processes", errno);
    // A process cannot change its own pid namespace, only that of its children. This one's own is always open to it.
    const OWN: &str = "/proc/self/ns/pid";
    let own = File::open(OWN).map_err(|error| Error::io("open", OWN, &error))?;
    let other = running.namespaces.contains(CloneFlags::CLONE_NEWPID);
    if other {
        setns(&running.first, CloneFlags::CLONE_NEWPID).map_err(failed)?;
    }
    let started = standing::of_children(process.terms.limits.oom_score_adj, || {
        let (status, report) = super::status()?;
        let pid = super::clone(running.cgroup.as_fd(), 0, || child::enter(running, process, stdio, report))?;
        Ok(Started { pid, status, ending: None })
    });
    if other {
        setns(&own, CloneFlags::CLONE_NEWPID).map_err(failed)?;
    }
    started
}
