//! The system calls that neither nix nor rustix offers in safe code, and all of init's `unsafe`.

#![expect(unsafe_code, reason = "the one file that talks to the kernel without a crate in between")]

use std::ffi::{CStr, CString, c_char, c_int, c_uint};
use std::fs::File;
use std::marker::PhantomData;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

/// Makes `boot` the program's entry point, in place of `fn main`.
///
/// Rust's own start-up code opens `/dev/null` for each standard descriptor that is closed, and aborts when it
/// cannot. The kernel starts PID 1 without any when the machine has no console, and `/dev` is empty then.
#[macro_export]
macro_rules! entry {
    ($boot:path) => {
        const _: () = {
            // SAFETY: this is the only symbol called `main` in a program with `#![no_main]`, and it has the
            // type that the C library calls; C's calling convention lets it ignore the arguments.
            #[unsafe(no_mangle)]
            extern "C" fn main() -> core::ffi::c_int {
                $boot()
            }
        };
    };
}

/// Runs `child` in a copy of this process, in the new namespaces `namespaces` and in the cgroup `cgroup`
/// (else in this process's own), and ends it with the code that `child` returns.
///
/// The copy is complete (no memory is shared), but has one thread only: were there others in this process, a
/// lock that one of them holds stays held in the copy. init has one thread. With `CLONE_FILES` among `namespaces` the
/// descriptors are no copy: `child` begins with [`leave_descriptors`], and closes and opens nothing before.
pub fn clone_into(
    cgroup: Option<BorrowedFd<'_>>,
    namespaces: c_int,
    child: impl FnOnce() -> c_int,
) -> nix::Result<Pid> {
    /// `CLONE_INTO_CGROUP` of `linux/sched.h`: libc's constant has lost its upper half.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    /// `struct clone_args` up to and with `cgroup` (Linux 5.7).
    #[repr(C)]
    #[derive(Default)]
    struct Arguments {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    let arguments = Arguments {
        flags: u64::from(namespaces.cast_unsigned()) | if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 },
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        cgroup: cgroup.map_or(0, |folder| u64::from(folder.as_raw_fd().cast_unsigned())),
        ..Arguments::default()
    };
    // SAFETY: the first argument points to a structure that lives through the call and whose size is the
    // second. No flag shares memory (CLONE_VM), so the child runs on a copy of this stack, as after fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<Arguments>()) };
    match Errno::result(pid)? {
        0 => {
            let code = child();
            // SAFETY: _exit has no requirements. It is called so that the copy never runs what its parent was
            // about to do: no destructor, no exit handler, no return into the caller.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(Pid::from_raw(i32::try_from(pid).map_err(|_| Errno::EOVERFLOW)?)),
    }
}

/// Gives the kernel back what memory was freed. Each child would else get a copy of the pages' table, and take it apart.
pub fn give_back_memory() {
    const ALL: usize = 0;
    // SAFETY: malloc_trim has no requirements: it lets go of pages that no allocation is in. Whether there were any
    // decides nothing.
    unsafe { libc::malloc_trim(ALL) };
}

/// Strings in one piece of memory, since a machine has many that are short: one after the other, each with its NUL byte.
pub struct Strings(Box<[u8]>);

impl Strings {
    /// Takes the strings, in their order.
    pub fn new(strings: &[CString]) -> Self {
        let strings: Vec<&[u8]> = strings.iter().map(|text| text.as_bytes_with_nul()).collect();
        Self(strings.concat().into())
    }

    /// The strings, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.0.split_inclusive(|&byte| byte == 0).filter_map(|text| CStr::from_bytes_with_nul(text).ok())
    }

    /// The strings as `execve` takes them.
    pub fn pointers(&self) -> Pointers<'_> {
        let pointers = self.iter().map(CStr::as_ptr).chain([std::ptr::null()]).collect();
        Pointers { pointers, strings: PhantomData }
    }
}

/// [`Strings`] as `execve` takes them. A process makes them for itself when it starts: nobody else needs them.
pub struct Pointers<'a> {
    /// Each leads to a C string of `strings`, but for a null pointer at the end.
    pointers: Vec<*const c_char>,
    strings: PhantomData<&'a Strings>,
}

/// Replaces the process's program; returns only the reason why it could not.
pub fn execute(path: &CStr, arguments: &Pointers<'_>, environment: &Pointers<'_>) -> Errno {
    // SAFETY: `path` is a C string. Both arrays end with a null pointer and hold pointers to C strings in
    // `Strings` that neither move nor change, and outlive the call because they are borrowed for it.
    unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    Errno::last()
}

/// Replaces the process's program by an open file; returns only the reason why it could not.
pub fn execute_file(file: BorrowedFd<'_>, arguments: &Pointers<'_>, environment: &Pointers<'_>) -> Errno {
    // SAFETY: the path is an empty C string. Both arrays end with a null pointer and hold pointers to C strings in
    // `Strings` that neither move nor change, and outlive the call because they are borrowed for it.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::last()
}

/// Makes the kernel run `program` for every system call of this process and of all that come after it
/// (`SECCOMP_SET_MODE_FILTER`). Needs no_new_privs or CAP_SYS_ADMIN.
pub fn filter_system_calls(program: &[libc::sock_filter]) -> nix::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        filter: program.as_ptr().cast_mut(),
    };
    const NO_FLAGS: c_uint = 0;
    // SAFETY: the third argument points to a structure that lives through the call, and that one to as many
    // instructions as it says, which are borrowed for the call. The kernel copies them and writes to neither. What
    // the program makes of later calls is that they fail or end the process, which is no harm to memory.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, NO_FLAGS, &raw const program)
    };
    Errno::result(result).map(drop)
}

/// One instruction of the kernel's own machine, `struct bpf_insn` on a little-endian processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct BpfInstruction {
    /// What it does.
    pub code: u8,
    /// The target in the lower half, the source in the upper one.
    pub registers: u8,
    /// Of a jump, in instructions; of an access, in bytes.
    pub offset: i16,
    /// An operand that is part of the instruction.
    pub value: i32,
}

/// Checks a program that decides about opening devices (`BPF_PROG_LOAD`). The descriptor ends with exec.
pub fn load_device_program(program: &[BpfInstruction]) -> nix::Result<OwnedFd> {
    const BPF_PROG_LOAD: c_int = 5;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    /// `union bpf_attr` for this command, up to and with `license`. The kernel takes the rest as zero.
    #[repr(C)]
    struct Attributes {
        kind: u32,
        count: u32,
        instructions: *const BpfInstruction,
        license: *const c_char,
    }
    const { assert!(size_of::<BpfInstruction>() == 8) };
    const { assert!(size_of::<Attributes>() == 24) };
    let attributes = Attributes {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        instructions: program.as_ptr(),
        // It calls none of the functions that are for programs under the GPL only.
        license: c"MIT OR Apache-2.0".as_ptr(),
    };
    // SAFETY: the second argument points to a structure that lives through the call and whose size is the third.
    // Its pointers lead to as many instructions as it says, borrowed for the call, and to a C string. The kernel
    // copies them and writes to none.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<Attributes>())
    };
    let number = c_int::try_from(Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the call has just opened this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Lets `program` decide for the processes of `cgroup`, in place of the one before (`BPF_PROG_ATTACH`).
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> nix::Result<()> {
    const BPF_PROG_ATTACH: c_int = 8;
    change_device_program(BPF_PROG_ATTACH, cgroup, program.as_raw_fd())
}

/// Lets the processes of `cgroup` open what they reach (`BPF_PROG_DETACH`). ENOENT when no program decides.
pub fn detach_device_program(cgroup: BorrowedFd<'_>) -> nix::Result<()> {
    const BPF_PROG_DETACH: c_int = 9;
    // Which program it is needs not be said where there can be only one.
    change_device_program(BPF_PROG_DETACH, cgroup, 0)
}

fn change_device_program(command: c_int, cgroup: BorrowedFd<'_>, program: RawFd) -> nix::Result<()> {
    const BPF_CGROUP_DEVICE: u32 = 6;
    /// `union bpf_attr` for both commands, up to and with `attach_flags`.
    #[repr(C)]
    struct Attributes {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    let attributes = Attributes {
        target: cgroup.as_raw_fd().cast_unsigned(),
        program: program.cast_unsigned(),
        kind: BPF_CGROUP_DEVICE,
        // No cgroup below can have another.
        flags: 0,
    };
    // SAFETY: the second argument points to a structure that lives through the call and whose size is the third;
    // it holds numbers only. The kernel answers for a number that is no descriptor with an error.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attributes, size_of::<Attributes>()) };
    Errno::result(result).map(drop)
}

/// Marks every descriptor from `first` on as closed by exec (Linux 5.11).
pub fn close_on_exec_from(first: c_uint) -> nix::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC no descriptor is closed, so none that safe code owns becomes invalid.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}

/// Leaves a table of descriptors that is shared with another process for one with those below `first` alone
/// (`CLOSE_RANGE_UNSHARE`, Linux 5.9): nothing else is even copied.
pub fn leave_descriptors(first: c_uint) -> nix::Result<()> {
    // SAFETY: what is closed is this process's alone by then, or was never its own but its parent's, which keeps it. An
    // owner of one of them, if there is one, would go on with another file: the callers are children that have none, for
    // what is in their copies of the parent's memory is only used as a number that the parent knows.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, libc::CLOSE_RANGE_UNSHARE) };
    Errno::result(result).map(drop)
}

/// Makes `descriptor` known as `number` as well, in place of what has been, and keeps that one through exec.
pub fn duplicate(descriptor: BorrowedFd<'_>, number: c_uint) -> nix::Result<()> {
    let number = c_int::try_from(number).map_err(|_| Errno::EBADF)?;
    if descriptor.as_raw_fd() == number {
        // SAFETY: the command takes a number and touches no memory; the descriptor is borrowed for the call.
        return Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: dup2 touches no memory. A descriptor that has the number is closed, so an owner of it, if there is one,
    // would go on with another file: the only caller is a child right before exec, which uses none of them again.
    Errno::result(unsafe { libc::dup2(descriptor.as_raw_fd(), number) }).map(drop)
}

/// Sets attributes (`MOUNT_ATTR_*`) of the mount that `mount` is the root of.
pub fn add_mount_attributes(mount: BorrowedFd<'_>, attributes: u64) -> nix::Result<()> {
    change_mount_attributes(mount, attributes, 0)
}

/// Lets set-id programs and files with capabilities in the mount that `mount` is the root of give what they say.
pub fn allow_set_id(mount: BorrowedFd<'_>) -> nix::Result<()> {
    change_mount_attributes(mount, 0, libc::MOUNT_ATTR_NOSUID)
}

/// Takes attributes away from the mount that `mount` is the root of, and sets others.
pub fn change_mount_attributes(mount: BorrowedFd<'_>, attr_set: u64, attr_clr: u64) -> nix::Result<()> {
    change_mount(mount, &libc::mount_attr { attr_set, attr_clr, propagation: 0, userns_fd: 0 })
}

/// Lets owners of files in a mount that is not attached yet be what they are in `user_namespace`: 0 there is 0 in
/// the file system. EINVAL: the file system cannot (`FS_ALLOW_IDMAP`).
pub fn map_mount_owners(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> nix::Result<()> {
    let userns_fd = u64::from(user_namespace.as_raw_fd().cast_unsigned());
    change_mount(
        mount,
        &libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd },
    )
}

fn change_mount(mount: BorrowedFd<'_>, change: &libc::mount_attr) -> nix::Result<()> {
    // SAFETY: the path is an empty C string, and the fourth argument points to a structure that lives through
    // the call and whose size is the fifth.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(change),
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}

/// Sends signal `number`, which may be a real-time signal (nix knows none), to a child that is not yet
/// reaped.
pub fn send_signal(pid: Pid, number: c_int) -> nix::Result<()> {
    // SAFETY: kill has no requirements on its arguments; it touches no memory of this process.
    Errno::result(unsafe { libc::kill(pid.as_raw(), number) }).map(drop)
}

/// Sends signal `number`, likewise, to the process that `process` is a pidfd of.
pub fn send_signal_by(process: BorrowedFd<'_>, number: c_int) -> nix::Result<()> {
    const NO_INFO: *const libc::siginfo_t = std::ptr::null();
    const NO_FLAGS: c_uint = 0;
    // SAFETY: without a structure in the third argument the call takes numbers only, and touches no memory.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), number, NO_INFO, NO_FLAGS) };
    Errno::result(result).map(drop)
}

/// The numbers of [`inherited_pair`].
pub const INHERITED: [c_uint; 2] = [3, 4];

/// Takes over the two descriptors that a program was started with beside the standard ones. None when they are not there,
/// and for everybody but the first who asks. To be called before the program has opened anything itself.
pub(crate) fn inherited_pair() -> Option<[OwnedFd; 2]> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    let numbers = INHERITED.map(c_uint::cast_signed);
    // SAFETY: the command takes a number and touches no memory.
    let is_open = |&number: &RawFd| unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
    // SAFETY: the descriptor is open, and since nothing has been opened yet it is of whoever started the program, who has
    // left it to whoever takes it; the flag above sees to it that this is one.
    numbers.iter().all(is_open).then(|| numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Sets the time-out of a watchdog in seconds, and returns what it is now (`WDIOC_SETTIMEOUT`).
pub fn set_watchdog_timeout(device: &File, seconds: c_int) -> nix::Result<c_int> {
    const WDIOC_SETTIMEOUT: libc::Ioctl = 0xC004_5706;
    let mut timeout = seconds;
    // SAFETY: the request reads an int from where the third argument points and writes one there: a variable of this
    // function, borrowed for the call. Any file but a watchdog refuses it with ENOTTY.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), WDIOC_SETTIMEOUT, &raw mut timeout) };
    Errno::result(result).map(|_| timeout)
}

/// The largest error that the kernel supposes the wall clock to have, in microseconds (`adjtimex`, which changes nothing
/// when no mode is asked for).
pub fn clock_error_microseconds() -> nix::Result<i64> {
    /// `struct timex`, with all but one of its fields as padding.
    #[repr(C)]
    #[derive(Default)]
    struct Timex {
        modes: c_uint,
        offset_and_frequency: [i64; 2],
        maximum_error: i64,
        rest: [u64; 22],
    }
    const { assert!(size_of::<Timex>() == size_of::<libc::timex>()) };
    const {
        assert!(std::mem::offset_of!(Timex, maximum_error) == std::mem::offset_of!(libc::timex, maxerror));
    };
    let mut clock = Timex::default();
    // SAFETY: the call reads and writes a `struct timex` where its argument points: a variable of this function with that
    // size and layout, borrowed for the call.
    let result = unsafe { libc::syscall(libc::SYS_adjtimex, &raw mut clock) };
    Errno::result(result).map(|_| clock.maximum_error)
}

/// The number of a loop device that is free now, made when there is none (`LOOP_CTL_GET_FREE`).
pub fn free_loop_device(control: &File) -> nix::Result<c_int> {
    const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
    // SAFETY: this request of /dev/loop-control takes no argument; any other file refuses it with ENOTTY.
    Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })
}

/// Makes loop device `device` show `file`: read-only, with blocks of `block_size`, and let go of when its
/// last user closes or unmounts it (`LOOP_CONFIGURE`, Linux 5.8). EBUSY: another has taken the device
/// meanwhile.
///
/// Where the file system below can, the device reads past the page cache: its own pages are enough, and the
/// file's would be a second copy. On a ramfs, whose pages are the file, the kernel leaves that flag aside.
pub fn configure_loop_device(device: &File, file: &File, block_size: u32) -> nix::Result<()> {
    const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
    const LO_FLAGS_READ_ONLY: u32 = 1;
    const LO_FLAGS_AUTOCLEAR: u32 = 4;
    const LO_FLAGS_DIRECT_IO: u32 = 16;
    /// `struct loop_config`, with the fields of its `struct loop_info64` that stay zero as padding.
    #[repr(C)]
    struct Configuration {
        fd: u32,
        block_size: u32,
        info_before_flags: [u64; 5],
        info_numbers: [u32; 3],
        info_flags: u32,
        info_after_flags: [u64; 22],
        reserved: [u64; 8],
    }
    // The sizes and the place of lo_flags that linux/loop.h gives them.
    const { assert!(size_of::<Configuration>() == 304) };
    const { assert!(std::mem::offset_of!(Configuration, info_flags) == 8 + 52) };
    let configuration = Configuration {
        fd: file.as_fd().as_raw_fd().cast_unsigned(),
        block_size,
        info_before_flags: [0; 5],
        info_numbers: [0; 3],
        info_flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
        info_after_flags: [0; 22],
        reserved: [0; 8],
    };
    // SAFETY: the request reads a `struct loop_config` from the third argument, which has that size and
    // layout and lives through the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const configuration) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_keep_their_order_and_each_pointer_leads_to_its_own() {
        let given = [c"run".to_owned(), c"".to_owned(), c"a b".to_owned()];
        let strings = Strings::new(&given);
        let whole: Vec<&CStr> = strings.iter().collect();
        assert_eq!(whole, [c"run", c"", c"a b"]);
        let expected: Vec<*const c_char> =
            whole.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        assert_eq!(strings.pointers().pointers, expected);
        assert_eq!(Strings::new(&[]).pointers().pointers, [std::ptr::null()]);
    }
}
