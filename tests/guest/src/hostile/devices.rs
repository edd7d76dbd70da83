//! Device nodes and cgroups.

use std::fs;
use std::io;

use rustix::fs::{CWD as HERE, FileType, Mode, makedev, mknodat};

use super::attempt::{Attempt, open};
use super::{DATA, Probe};

const fn attempt(name: &'static str, expected: &'static str, attempt: Attempt) -> Probe {
    Probe::new(name, expected, attempt)
}

/// Nodes that are made, nodes of the image, and nodes that others have.
#[rustfmt::skip]
pub(super) const DEVICES: &[Probe] = &[
    attempt("mknod /dev/mem", "EPERM", Attempt::Do(|| make(FileType::CharacterDevice, 1, 1))),
    attempt("mknod a disk, 254:0", "EPERM", Attempt::Do(|| make(FileType::BlockDevice, 254, 0))),
    attempt("mknod a disk, 8:0", "EPERM", Attempt::Do(|| make(FileType::BlockDevice, 8, 0))),
    attempt("mknod /dev/net/tun", "EPERM", Attempt::Do(|| make(FileType::CharacterDevice, 10, 200))),
    attempt("mknod /dev/fuse", "EPERM", Attempt::Do(|| make(FileType::CharacterDevice, 10, 229))),
    attempt("mknod /dev/null", "EPERM", Attempt::Do(|| make(FileType::CharacterDevice, 1, 3))),
    attempt("mknod a whiteout, 0:0", "EPERM", Attempt::Do(|| make(FileType::CharacterDevice, 0, 0))),
    attempt("mknod /dev/mem, and open it", "EPERM", Attempt::Do(make_and_open)),
    attempt("open the image's node of /dev/mem", "EACCES", Attempt::Open("/nodes/mem")),
    attempt("open the image's node of a disk", "EACCES", Attempt::Open("/nodes/disk")),
    attempt("open the image's node of /dev/console", "EACCES", Attempt::Open("/nodes/console")),
    attempt("open the image's node of /dev/null", "EACCES", Attempt::Open("/nodes/null")),
    attempt("open /dev/mem", "ENOENT", Attempt::Open("/dev/mem")),
    attempt("open /dev/port", "ENOENT", Attempt::Open("/dev/port")),
    attempt("open /dev/kmsg", "ENOENT", Attempt::Open("/dev/kmsg")),
    attempt("open /dev/console", "ENOENT", Attempt::Open("/dev/console")),
    attempt("open /dev/ttyS0", "ENOENT", Attempt::Open("/dev/ttyS0")),
    attempt("open /dev/hwrng", "ENOENT", Attempt::Open("/dev/hwrng")),
    attempt("open /dev/fuse", "ENOENT", Attempt::Open("/dev/fuse")),
    attempt("open /dev/net/tun", "ENOENT", Attempt::Open("/dev/net/tun")),
    attempt("open /dev/vsock", "ENOENT", Attempt::Open("/dev/vsock")),
    attempt("open /dev/loop-control", "ENOENT", Attempt::Open("/dev/loop-control")),
    attempt("open the first loop device", "ENOENT", Attempt::Open("/dev/loop0")),
    attempt("open the first disk", "ENOENT", Attempt::Do(disk)),
    attempt("open another service's port", "ENOENT", Attempt::Open("/dev/vport0p1")),
    attempt("make a file in /dev", "allowed / EACCES", Attempt::Do(|| fs::write("/dev/made", "x").map(|()| true))),
    attempt("open /dev/null", "allowed", Attempt::Open("/dev/null")),
    attempt("open /dev/ptmx", "allowed", Attempt::Open("/dev/ptmx")),
];

/// What the cgroups' own files could do.
#[rustfmt::skip]
pub(super) const CGROUPS: &[Probe] = &[
    attempt("write cgroup.procs", "ENOENT", Attempt::Write("/sys/fs/cgroup/cgroup.procs", "0")),
    attempt("write memory.max", "ENOENT", Attempt::Write("/sys/fs/cgroup/memory.max", "max")),
    attempt("write release_agent", "ENOENT", Attempt::Write("/sys/fs/cgroup/release_agent", "/x")),
    attempt("write devices.allow", "ENOENT", Attempt::Write("/sys/fs/cgroup/devices/devices.allow", "a")),
    attempt("leave the cgroup's namespace by ..", "ENOENT", Attempt::Write("/sys/fs/cgroup/../cgroup/../../fs/cgroup/cgroup.kill", "0")),
    Probe::call("mount cgroup2", "EPERM", 165, &[DATA, DATA + 8, DATA, 0, 0], b"cgroup2\0/tmp\0"),
    Probe::call("mount cgroup with a release agent", "EPERM", 165, &[DATA, DATA + 7, DATA, 0, DATA + 12], b"cgroup\0/tmp\0rdma\0"),
    attempt("see a cgroup outside its own", "nothing", Attempt::Do(foreign_cgroup)),
];

/// Makes a node in `/tmp`.
fn make(kind: FileType, major: u32, minor: u32) -> io::Result<bool> {
    // /dev is the one place without `nodev`; a user may not write there and tries what it can.
    let path = format!("/tmp/node-{major}-{minor}");
    mknodat(HERE, &path, kind, Mode::from_bits_truncate(0o666), makedev(major, minor))?;
    fs::remove_file(path).map(|()| true)
}

/// Makes a node of the machine's memory where nodes work, and opens it.
fn make_and_open() -> io::Result<bool> {
    let folder = if fs::write("/dev/try", "").is_ok() { "/dev" } else { "/tmp" };
    let path = format!("{folder}/node-to-open");
    mknodat(HERE, &path, FileType::CharacterDevice, Mode::from_bits_truncate(0o666), makedev(1, 1))?;
    let opened = open(&path, false);
    fs::remove_file(path)?;
    opened.map(|_| true)
}

/// Opens whichever disk has a node.
fn disk() -> io::Result<bool> {
    let mut result = Err(io::Error::from_raw_os_error(2));
    for name in ["vda", "sda", "nvme0n1", "zram0", "sr0"] {
        if let Ok(file) = open(&format!("/dev/{name}"), false) {
            drop(file);
            result = Ok(true);
        }
    }
    result
}

/// A process whose cgroup is not below this process's.
fn foreign_cgroup() -> io::Result<bool> {
    Ok(fs::read_to_string("/proc/1/cgroup")?.contains("/..")
        || fs::read_to_string("/proc/self/cgroup")?.contains("/.."))
}
