//! System calls that reach for mounts, namespaces and the kernel itself.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use super::attempt::{Attempt, Descriptor, call, call_of_i386};
use super::{DATA, Probe};

/// `-1` and `AT_FDCWD`, as the kernel takes them.
const NONE: u64 = u64::MAX;
const CWD: u64 = u64::MAX - 99;

const BIND: u64 = 0x1000;
const REMOUNT: u64 = 0x20;
const SIGCHLD: u64 = 17;

/// Mounts, old and new ways.
#[rustfmt::skip]
pub(super) const MOUNTS: &[Probe] = &[
    Probe::call("mount a tmpfs", "EPERM", 165, &[DATA, DATA + 6, DATA, 0, 0], b"tmpfs\0/tmp\0"),
    Probe::call("mount a bind of /", "EPERM", 165, &[DATA, DATA + 2, 0, BIND, 0], b"/\0/tmp\0"),
    Probe::call("mount a bind over a masked file", "EPERM", 165, &[DATA, DATA + 10, 0, BIND, 0], b"/dev/null\0/proc/kcore\0"),
    Probe::call("mount /proc/sys writable", "EPERM", 165, &[0, DATA, 0, REMOUNT | BIND, 0], b"/proc/sys\0"),
    Probe::call("mount / writable", "EPERM", 165, &[0, DATA, 0, REMOUNT | BIND, 0], b"/\0"),
    Probe::call("mount sysfs", "EPERM", 165, &[DATA, DATA + 6, DATA, 0, 0], b"sysfs\0/tmp\0"),
    Probe::call("mount an overlay", "EPERM", 165, &[DATA, DATA + 8, DATA, 0, DATA + 13], b"overlay\0/tmp\0lowerdir=/etc:/dev\0"),
    Probe::call("umount a mask", "EPERM", 166, &[DATA, 2], b"/proc/kcore\0"),
    Probe::call("umount /proc", "EPERM", 166, &[DATA, 2], b"/proc\0"),
    Probe::call("open_tree a clone", "EPERM", 428, &[CWD, DATA, 1], b"/\0"),
    Probe::call("fsopen", "EPERM", 430, &[DATA, 0], b"tmpfs\0"),
    Probe::call("fsmount", "EPERM", 432, &[NONE, 0, 0], b""),
    Probe::call("fspick", "EPERM", 433, &[CWD, DATA, 0], b"/\0"),
    Probe::call("move_mount", "EPERM", 429, &[CWD, DATA, CWD, DATA + 6, 0], b"/proc\0/tmp\0"),
    Probe::call("mount_setattr", "EPERM", 442, &[CWD, DATA, 0, DATA + 8, 32], b"/\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0"),
    Probe::call("pivot_root", "EPERM", 155, &[DATA, DATA], b"/\0"),
    Probe::call("chroot", "EPERM", 161, &[DATA], b"/tmp\0"),
];

/// New namespaces, and others'.
#[rustfmt::skip]
pub(super) const NAMESPACES: &[Probe] = &[
    Probe::call("unshare mounts", "EPERM", 272, &[0x0002_0000], b""),
    Probe::call("unshare cgroups", "EPERM", 272, &[0x0200_0000], b""),
    Probe::call("unshare the host name", "EPERM", 272, &[0x0400_0000], b""),
    Probe::call("unshare IPC", "EPERM", 272, &[0x0800_0000], b""),
    Probe::call("unshare users", "EPERM", 272, &[0x1000_0000], b""),
    Probe::call("unshare processes", "EPERM", 272, &[0x2000_0000], b""),
    Probe::call("unshare the network", "EPERM", 272, &[0x4000_0000], b""),
    Probe::call("unshare time", "EPERM", 272, &[0x80], b""),
    Probe::call("clone with new mounts", "EPERM", 56, &[0x0002_0000 | SIGCHLD], b""),
    Probe::call("clone with new cgroups", "EPERM", 56, &[0x0200_0000 | SIGCHLD], b""),
    Probe::call("clone with a new host name", "EPERM", 56, &[0x0400_0000 | SIGCHLD], b""),
    Probe::call("clone with new IPC", "EPERM", 56, &[0x0800_0000 | SIGCHLD], b""),
    Probe::call("clone with new users", "EPERM", 56, &[0x1000_0000 | SIGCHLD], b""),
    Probe::call("clone with new processes", "EPERM", 56, &[0x2000_0000 | SIGCHLD], b""),
    Probe::call("clone with a new network", "EPERM", 56, &[0x4000_0000 | SIGCHLD], b""),
    // clone_args of 64 bytes: flags, and SIGCHLD as the signal of the end
    Probe::call("clone3 with new users", "ENOSYS", 435, &[DATA, 64], b"\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x11"),
    Probe::with("setns to the first process's mounts", "EPERM", 308, &[2, 0], b"", Descriptor::File("/proc/1/ns/mnt")),
    Probe::with("setns to its cgroups", "EPERM", 308, &[2, 0], b"", Descriptor::File("/proc/1/ns/cgroup")),
    Probe::with("setns to its host name", "EPERM", 308, &[2, 0], b"", Descriptor::File("/proc/1/ns/uts")),
    Probe::with("setns to its IPC", "EPERM", 308, &[2, 0], b"", Descriptor::File("/proc/1/ns/ipc")),
    Probe::with("setns to its users", "EPERM", 308, &[2, 0], b"", Descriptor::File("/proc/1/ns/user")),
    Probe::with("setns to its processes", "EPERM", 308, &[2, 0], b"", Descriptor::File("/proc/1/ns/pid")),
    Probe::with("setns to its network", "EPERM", 308, &[2, 0], b"", Descriptor::File("/proc/1/ns/net")),
];

/// What is the machine's, and code of the kernel that servers do without.
#[rustfmt::skip]
pub(super) const KERNEL: &[Probe] = &[
    Probe::call("init_module", "EPERM", 175, &[DATA, 4, DATA + 4], b"none\0"),
    Probe::with("finit_module", "EPERM", 313, &[2, DATA, 0], b"\0", Descriptor::File("/call")),
    Probe::call("delete_module", "EPERM", 176, &[DATA, 0x800], b"none\0"),
    Probe::call("kexec_load", "EPERM", 246, &[0, 0, 0, 0], b""),
    Probe::call("kexec_file_load", "EPERM", 320, &[NONE, NONE, 0, 0, 4], b""),
    // BPF_MAP_CREATE: an array of one
    Probe::call("bpf", "EPERM", 321, &[0, DATA, 20], b"\x02\0\0\0\x04\0\0\0\x04\0\0\0\x01\0\0\0"),
    // PERF_TYPE_SOFTWARE, of this process on every processor
    Probe::call("perf_event_open", "EPERM", 298, &[DATA, 0, NONE, NONE, 0], b"\x01\0\0\0\x40"),
    Probe::call("userfaultfd", "EPERM", 323, &[1], b""),
    Probe::call("io_uring_setup", "EPERM", 425, &[1, DATA], b""),
    // LINUX_REBOOT_CMD_CAD_OFF: what is in force already
    Probe::call("reboot", "EPERM", 169, &[0xfee1_dead, 672_274_793, 0], b""),
    Probe::call("swapon", "EPERM", 167, &[DATA, 0], b"/none\0"),
    Probe::call("swapoff", "EPERM", 168, &[DATA, 0], b"/none\0"),
    Probe::call("acct", "EPERM", 163, &[0], b""),
    Probe::call("read the kernel's log by syslog", "EPERM", 103, &[3, DATA, 512], b""),
    Probe::call("iopl", "EPERM", 172, &[3], b""),
    Probe::call("ioperm", "EPERM", 173, &[0x80, 1, 1], b""),
    Probe::call("add_key", "EPERM", 248, &[DATA, DATA + 5, DATA + 7, 1, u64::MAX - 2], b"user\0k\0v"),
    Probe::call("request_key", "EPERM", 249, &[DATA, DATA + 5, 0, 0], b"user\0k\0"),
    Probe::call("keyctl: join a session", "EPERM", 250, &[1, 0], b""),
    Probe::call("quotactl", "EPERM", 179, &[0x80_0001 << 8, DATA, 0, DATA], b"/\0"),
    Probe::call("fanotify_init", "EPERM", 300, &[0, 0], b""),
    // A handle of 8 bytes and type 1: what `shocker` guessed
    Probe::with("open_by_handle_at", "EPERM", 304, &[2, DATA, 0], b"\x08\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0", Descriptor::File("/")),
    Probe::call("lookup_dcookie", "EPERM", 212, &[1, DATA, 64], b""),
    Probe::new("clock_settime", "EPERM", Attempt::Do(clock_settime)),
    // No time, and the zone in force
    Probe::call("settimeofday", "EPERM", 164, &[0, DATA], b"\0\0\0\0\0\0\0\0"),
    // ADJ_STATUS with what is in force: STA_UNSYNC
    Probe::call("adjtimex", "EPERM", 159, &[DATA], b"\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x40\0\0\0"),
    Probe::call("sethostname", "EPERM", 170, &[DATA, 7], b"hostile"),
    Probe::call("setdomainname", "EPERM", 171, &[DATA, 6], b"(none)"),
    Probe::call("vhangup", "EPERM", 153, &[], b""),
    Probe::call("ustat", "EPERM", 136, &[1, DATA], b""),
    Probe::call("sysfs", "EPERM", 139, &[3], b""),
    Probe::call("vmsplice", "EPERM", 278, &[NONE, DATA, 0, 0], b""),
    Probe::call("move_pages", "EPERM", 279, &[0, 0, 0, 0, 0, 0], b""),
    Probe::call("mbind", "EPERM", 237, &[0, 0, 0, 0, 0, 0], b""),
    Probe::call("set_mempolicy", "EPERM", 238, &[0, 0, 0], b""),
    Probe::call("personality without a random layout", "EPERM", 135, &[0x004_0000], b""),
    Probe::call("a number that nobody knows", "ENOSYS", 600, &[], b""),
    Probe::call("a number of x32", "SIGSYS", 0x4000_0000 + 39, &[], b""),
    Probe::new("a call of i386", "SIGSYS", Attempt::Do(call_of_i386)),
];

/// Sets the clock to what it shows.
fn clock_settime() -> io::Result<bool> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    let words = [now.as_secs().to_ne_bytes(), u64::from(now.subsec_nanos()).to_ne_bytes()].concat();
    call(227, &[0, DATA], &words, None)
}
