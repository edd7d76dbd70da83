//! Mounts the layer store: each layer once, read-only, for all the containers that use it.

use std::fs::{self, File, OpenOptions};

use manifest::path;
use nix::errno::Errno;
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::error::{Error, Result, errno};
use crate::mounts::make_folder;
use crate::sys;

/// Each layer is mounted at its index below this folder: short names, because the overlay's options, which
/// name all layers of a container, must fit into one page.
pub const MOUNTED: &str = "/run/coracle/layers";

/// A layer is exactly what the builder wrote: nothing in it is a device or gains privileges by being run.
const ATTRIBUTES: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOSUID);

/// How this kernel mounts a file; found by trying.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    /// The file itself is the source (Linux 6.12 with `CONFIG_EROFS_FS_BACKED_BY_FILE`).
    File,
    /// Through a loop device.
    Loop,
}

/// Mounts every layer of the boot manifest.
pub fn mount_all(digests: &[String]) -> Result<()> {
    make_folder(MOUNTED)?;
    let mut method = Method::File;
    for (index, digest) in digests.iter().enumerate() {
        let file = format!("{}/{digest}.erofs", path::LAYERS);
        let target = format!("{MOUNTED}/{index}");
        fs::create_dir(&target).map_err(|error| Error::io("make", target.clone(), &error))?;
        let mounted = match method {
            Method::File => mount_file(&file, &target),
            Method::Loop => mount_loop(&file, &target),
        };
        match mounted {
            // ENOTBLK: this kernel takes block devices only. EINVAL is what a tmpfs below the file gives.
            Err(Errno::ENOTBLK | Errno::EINVAL) if method == Method::File => {
                method = Method::Loop;
                mount_loop(&file, &target)
            }
            other => other,
        }
        .map_err(|errno| Error::new("mount the layer", digest.clone(), errno))?;
    }
    Ok(())
}

/// By fsopen(2), and not by mount(2): what a kernel has against a file that is no device stays in the
/// context's log and off the console.
fn mount_file(source: &str, target: &str) -> nix::Result<()> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(errno)?;
    fsconfig_set_string(&context, "source", source).map_err(errno)?;
    fsconfig_set_flag(&context, "ro").map_err(errno)?;
    fsconfig_create(&context).map_err(errno)?;
    let layer = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, ATTRIBUTES).map_err(errno)?;
    move_mount(&layer, c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(errno)
}

fn mount_loop(source: &str, target: &str) -> nix::Result<()> {
    /// EROFS blocks are pages: with the same on the device, no read is split.
    const BLOCK_SIZE: u32 = 4096;
    let file = File::open(source).map_err(|error| errno_of(&error))?;
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")
        .map_err(|error| errno_of(&error))?;
    // Nobody else takes loop devices here, so the free one stays free until it is configured.
    let device = format!("/dev/loop{}", sys::free_loop_device(&control)?);
    // Held open until it is mounted: a device that nobody uses lets go of its file.
    let held = File::open(&device).map_err(|error| errno_of(&error))?;
    // A file whose size is no multiple of the block would lose its end.
    let whole_blocks = file.metadata().map_err(|error| errno_of(&error))?.len() % u64::from(BLOCK_SIZE) == 0;
    sys::configure_loop_device(&held, &file, if whole_blocks { BLOCK_SIZE } else { 512 })?;
    mount_file(&device, target)
}

fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
