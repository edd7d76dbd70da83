//! A container's cgroup: made before its first process, which is cloned right into it.

use std::fs::{File, create_dir};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::error::{Error, Result};
use crate::mounts::make_folder;

/// All containers are below this one, so that what is left to init can be reserved in one place.
const PARENT: &str = "/sys/fs/cgroup/services";

/// The folder of a cgroup, held open for as long as the machine knows its container.
pub struct Group {
    folder: File,
}

impl Group {
    /// Makes the cgroup `name`, or takes the one that is there.
    pub fn make(name: &str) -> Result<Self> {
        make_folder(PARENT)?;
        let path = format!("{PARENT}/{name}");
        match create_dir(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(Error::io("make the cgroup", path, &error));
            }
            _ => {}
        }
        let folder = File::open(&path).map_err(|error| Error::io("open the cgroup", path, &error))?;
        Ok(Self { folder })
    }

    /// Kills every process in it, however they fork meanwhile (`cgroup.kill`, Linux 5.14).
    pub fn kill(&self) -> Result<()> {
        const FILE: &str = "cgroup.kill";
        let file = openat(&self.folder, FILE, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| Error::new("open", FILE, errno))?;
        File::from(file).write_all(b"1").map_err(|error| Error::io("write", FILE, &error))
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}
