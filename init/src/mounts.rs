//! The machine's own mounts, and the way out of the kernel's rootfs.

use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot, mkdir};
use nix::{errno::Errno, sys::stat::Mode};

use crate::error::{Error, Result};

/// The mount that all layers are mounted in.
pub const RUNTIME_MOUNT: &str = "/run";
/// Where init keeps what it makes while the machine runs.
pub const RUNTIME: &str = "/run/coracle";
/// Where each container's child builds its root. The same folder for all: what one mounts there, no other
/// sees.
pub const STAGE: &str = "/run/coracle/stage";
/// A folder with nothing in it, which covers what containers do not see.
pub const EMPTY: &str = "/run/coracle/empty";

struct Early {
    target: &'static str,
    kind: &'static str,
    flags: MsFlags,
    options: Option<&'static str>,
}

const STRICT: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

const EARLY: [Early; 5] = [
    Early { target: "/proc", kind: "proc", flags: STRICT, options: None },
    Early { target: "/sys", kind: "sysfs", flags: STRICT, options: None },
    Early {
        target: "/dev",
        kind: "devtmpfs",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        options: Some("mode=755"),
    },
    // Containers' roots are staged below /run, but each has its own mounts there: nothing runs from this one.
    Early { target: "/run", kind: "tmpfs", flags: STRICT, options: Some("mode=755") },
    Early { target: "/sys/fs/cgroup", kind: "cgroup2", flags: STRICT, options: None },
];

/// Mounts the table above, and makes init's own folders. Mount points that the initramfs lacks are made.
pub fn early() -> Result<()> {
    for early in &EARLY {
        make_folder(early.target)?;
        match mount(Some(early.kind), early.target, Some(early.kind), early.flags, early.options) {
            // With CONFIG_DEVTMPFS_MOUNT and some boot loaders it is there already.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(errno) => return Err(Error::new("mount", early.target, errno)),
        }
    }
    [RUNTIME, STAGE, EMPTY].into_iter().try_for_each(make_folder)
}

/// Makes the initramfs read-only, as every container's namespace will copy it. Its own folders are mounts by
/// now; only volumes are made in it later, by children that lift this in their own copy.
pub fn seal() -> Result<()> {
    remount_root(SEALED.union(MsFlags::MS_RDONLY)).map_err(|errno| Error::new("seal", "/", errno))
}

/// Lets this process's own copy of the machine's mounts be written to again.
pub fn unseal() -> nix::Result<()> {
    remount_root(SEALED)
}

/// Devices are in `/dev`, and nobody gains privileges here.
const SEALED: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// Changes the mount that is the root, and not its file system: that one is also what volumes write to. By
/// mount(2), because mount_setattr(2) refuses the kernel's own rootfs before Linux 6.8.
fn remount_root(flags: MsFlags) -> nix::Result<()> {
    const NONE: Option<&str> = None;
    mount(NONE, "/", NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, NONE)
}

/// Leaves rootfs without copying it. `pivot_root` refuses to replace the kernel's rootfs, and with it every
/// container's start would fail: see pivot_root(2), EINVAL. So the same file system is mounted once more,
/// over `/`. Done before anything else is mounted: what is below the new root could be seen by nobody, and
/// yet would be copied for each container.
///
/// The old mount is left read-only: it is the one that `/proc/PID/exe` of init leads to, through which
/// containers have overwritten their runtime (CVE-2019-5736).
pub fn leave_rootfs() -> Result<()> {
    /// Any folder will do for the moment; this one is needed anyway.
    const DOORSTEP: &str = "/run";
    const NONE: Option<&str> = None;
    make_folder(DOORSTEP)?;
    mount(Some("/"), DOORSTEP, NONE, MsFlags::MS_BIND, NONE)
        .map_err(|errno| Error::new("bind", "/", errno))?;
    remount_root(MsFlags::MS_RDONLY).map_err(|errno| Error::new("seal", "rootfs", errno))?;
    chdir(DOORSTEP).map_err(|errno| Error::new("enter", DOORSTEP, errno))?;
    mount(Some("."), "/", NONE, MsFlags::MS_MOVE, NONE)
        .map_err(|errno| Error::new("move over", "/", errno))?;
    chroot(".").map_err(|errno| Error::new("change the root to", DOORSTEP, errno))?;
    chdir("/").map_err(|errno| Error::new("enter", "/", errno))
}

/// Makes a folder, unless there is one.
pub fn make_folder(path: &'static str) -> Result<()> {
    match mkdir(path, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(Error::new("make", path, errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_early_mount_honours_setuid_and_only_dev_has_devices() {
        for early in &EARLY {
            assert!(early.flags.contains(MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC), "{}", early.target);
            assert_eq!(early.flags.contains(MsFlags::MS_NODEV), early.target != "/dev", "{}", early.target);
        }
    }

    #[test]
    fn a_mount_never_hides_an_earlier_one() {
        for (index, early) in EARLY.iter().enumerate() {
            assert!(EARLY[index + 1..].iter().all(|later| !early.target.starts_with(later.target)));
        }
    }
}
