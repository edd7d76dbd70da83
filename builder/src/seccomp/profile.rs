//! The default profile: which system calls a container has, each group with its reason.
//!
//! The base is what Docker's published profile allows on x86-64. Ours allows less: it has no use for tracing, io_uring
//! or kernels before 5.x, and looks at more arguments.

use super::number;
use super::policy::{Condition, Decision, EAFNOSUPPORT, ENOSYS, EPERM, Policy, Rule, Verdict};
use crate::capability;

/// Calls with one verdict and one reason.
pub struct Group {
    /// What becomes of them.
    pub verdict: Verdict,
    /// Why, as half a sentence.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test makes the documentation of it"))]
    pub why: &'static str,
    /// Their names.
    pub calls: &'static str,
}

const fn allow(why: &'static str, calls: &'static str) -> Group {
    Group { verdict: Verdict::Allow, why, calls }
}

const fn refuse(why: &'static str, calls: &'static str) -> Group {
    Group { verdict: Verdict::Errno(EPERM), why, calls }
}

/// Every call without arguments to look at, once.
pub const GROUPS: &[Group] = &[
    allow(
        "files by descriptor: whoever has one may use it",
        "read write open close lseek pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 openat openat2
         creat dup dup2 dup3 fcntl flock fsync fdatasync truncate ftruncate fallocate fadvise64 readahead syncfs
         sync sync_file_range sendfile copy_file_range splice tee close_range cachestat",
    ),
    allow(
        "names and metadata: permissions and read-only mounts decide",
        "stat fstat lstat newfstatat statx access faccessat faccessat2 getdents getdents64 getcwd chdir fchdir
         rename renameat renameat2 mkdir mkdirat rmdir link linkat unlink unlinkat symlink symlinkat readlink
         readlinkat mknod mknodat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat umask utime utimes
         futimesat utimensat statfs fstatfs name_to_handle_at file_getattr file_setattr setxattr lsetxattr
         fsetxattr setxattrat getxattr lgetxattr fgetxattr getxattrat listxattr llistxattr flistxattr listxattrat
         removexattr lremovexattr fremovexattr removexattrat",
    ),
    allow(
        "memory of the process itself",
        "mmap mprotect munmap brk mremap msync mincore madvise mlock mlock2 munlock mlockall munlockall
         remap_file_pages memfd_create memfd_secret membarrier pkey_mprotect pkey_alloc pkey_free map_shadow_stack
         mseal",
    ),
    allow(
        "waiting for descriptors",
        "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
         eventfd eventfd2 inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark",
    ),
    allow(
        "the older asynchronous I/O, which databases use",
        "io_setup io_destroy io_getevents io_submit io_cancel io_pgetevents",
    ),
    allow(
        "sockets that are there; which kinds can be made is below",
        "connect accept accept4 sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg shutdown bind listen getsockname
         getpeername setsockopt getsockopt pipe pipe2",
    ),
    allow(
        "processes and threads; which clones can be made is below",
        "fork vfork execve execveat exit exit_group wait4 waitid set_tid_address set_robust_list get_robust_list
         rseq futex futex_waitv futex_wake futex_wait futex_requeue arch_prctl prctl restart_syscall
         gettid getpid getppid getpgid getpgrp setpgid getsid setsid pidfd_open pidfd_send_signal
         process_mrelease",
    ),
    allow(
        "signals, to processes of the same container",
        "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend
         rt_tgsigqueueinfo sigaltstack signalfd signalfd4 kill tkill tgkill pause",
    ),
    allow(
        "identity: the kernel asks for capabilities, and no_new_privs holds",
        "getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid setresuid
         setresgid setgroups setfsuid setfsgid capget capset",
    ),
    allow(
        "a process may restrict itself further",
        "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    ),
    allow(
        "clocks and timers",
        "gettimeofday time times nanosleep clock_gettime clock_getres clock_nanosleep
         getitimer setitimer alarm timer_create timer_settime timer_gettime timer_getoverrun timer_delete
         timerfd_create timerfd_settime timerfd_gettime",
    ),
    allow(
        "scheduling and limits: to raise them takes a capability",
        "sched_yield sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max
         sched_get_priority_min sched_rr_get_interval sched_setaffinity sched_getaffinity sched_setattr
         sched_getattr getpriority setpriority ioprio_set ioprio_get getrlimit setrlimit prlimit64 getrusage
         getcpu",
    ),
    allow(
        "System V and POSIX IPC, in a namespace of the container's own",
        "shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl mq_open mq_unlink
         mq_timedsend mq_timedreceive mq_notify mq_getsetattr",
    ),
    allow("facts about the machine", "uname sysinfo getrandom"),
    allow("trampolines of the kernel's own: it makes a traced process call them", "uretprobe uprobe"),
    allow(
        "numbers that no kernel answers; there is nothing to refuse",
        "epoll_ctl_old epoll_wait_old set_thread_area get_thread_area",
    ),
    refuse(
        "mounts are made before the container starts",
        "mount umount2 pivot_root chroot open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick
         mount_setattr statmount listmount",
    ),
    refuse("namespaces likewise", "unshare setns"),
    refuse(
        "no process looks into another",
        "ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp",
    ),
    refuse(
        "large interfaces with a history of holes that servers do without",
        "io_uring_setup io_uring_enter io_uring_register userfaultfd bpf perf_event_open vmsplice fanotify_init",
    ),
    refuse("keyrings are not the container's own", "add_key request_key keyctl"),
    refuse(
        "the kernel itself",
        "init_module finit_module delete_module kexec_load kexec_file_load reboot iopl ioperm syslog acct
         quotactl quotactl_fd swapon swapoff lsm_get_self_attr lsm_set_self_attr lsm_list_modules",
    ),
    refuse(
        "the machine's clock and names",
        "settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname",
    ),
    refuse("segments of memory, which programs of 64 bits do without", "modify_ldt"),
    refuse("a file by a handle is found outside of the container's root", "open_by_handle_at"),
    refuse("the terminal of somebody else", "vhangup"),
    refuse(
        "the placement of memory, also of other processes",
        "mbind set_mempolicy set_mempolicy_home_node get_mempolicy migrate_pages move_pages",
    ),
    refuse(
        "left from earlier kernels",
        "uselib ustat sysfs _sysctl lookup_dcookie create_module get_kernel_syms query_module nfsservctl getpmsg
         putpmsg afs_syscall tuxcall security vserver",
    ),
    Group {
        verdict: Verdict::Errno(ENOSYS),
        why: "a filter cannot look at what it points to; C libraries fall back to clone",
        calls: "clone3",
    },
];

/// A call whose arguments decide.
pub struct Filtered {
    /// Its name.
    pub call: &'static str,
    /// The rules in words, for the documentation.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test makes the documentation of it"))]
    pub why: &'static str,
    /// Each with the verdict for arguments that meet all conditions.
    rules: &'static [(&'static [Condition], Verdict)],
    /// For all other arguments.
    otherwise: Verdict,
}

const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_NETLINK: u32 = 16;
const NETLINK_ROUTE: u32 = 0;
/// Puts a byte into a terminal's input, as if its user had typed it.
const TIOCSTI: u32 = 0x5412;
/// Selects and pastes on a virtual console.
const TIOCLINUX: u32 = 0x541c;
/// `CLONE_NEW*` of linux/sched.h but for time namespaces, whose bit means something else to clone.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;

/// Calls that are not in [`GROUPS`].
pub const FILTERED: &[Filtered] = &[
    Filtered {
        call: "socket",
        why: "AF_UNIX, AF_INET, AF_INET6 and NETLINK_ROUTE; any other is EAFNOSUPPORT",
        rules: &[
            (&[Condition::is(0, AF_UNIX)], Verdict::Allow),
            (&[Condition::is(0, AF_INET)], Verdict::Allow),
            (&[Condition::is(0, AF_INET6)], Verdict::Allow),
            (&[Condition::is(0, AF_NETLINK), Condition::is(2, NETLINK_ROUTE)], Verdict::Allow),
        ],
        otherwise: Verdict::Errno(EAFNOSUPPORT),
    },
    Filtered {
        call: "socketpair",
        why: "AF_UNIX; any other is EAFNOSUPPORT",
        rules: &[(&[Condition::is(0, AF_UNIX)], Verdict::Allow)],
        otherwise: Verdict::Errno(EAFNOSUPPORT),
    },
    Filtered {
        call: "clone",
        why: "without flags for new namespaces, with them EPERM",
        rules: &[(&[Condition::masked(0, CLONE_NAMESPACES, 0)], Verdict::Allow)],
        otherwise: Verdict::Errno(EPERM),
    },
    Filtered {
        call: "ioctl",
        why: "all but TIOCSTI and TIOCLINUX, which type into a terminal: EPERM",
        rules: &[
            (&[Condition::is(1, TIOCSTI)], Verdict::Errno(EPERM)),
            (&[Condition::is(1, TIOCLINUX)], Verdict::Errno(EPERM)),
        ],
        otherwise: Verdict::Allow,
    },
    Filtered {
        call: "personality",
        why: "0, PER_LINUX32, UNAME26, both, and 0xffffffff, which asks; others weaken the layout of memory: EPERM",
        rules: &[
            (&[Condition::masked(0, !0x0002_0008, 0)], Verdict::Allow),
            (&[Condition::is(0, u32::MAX)], Verdict::Allow),
        ],
        otherwise: Verdict::Errno(EPERM),
    },
];

/// What a capability allows beside: a service that is given it is to be able to use it.
pub const BY_CAPABILITY: &[(&str, &str)] = &[
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    ("SYS_MODULE", "init_module finit_module delete_module"),
    ("SYS_RAWIO", "iopl ioperm"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_PTRACE", "ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp"),
    ("SYS_PACCT", "acct"),
    (
        "SYS_ADMIN",
        "mount umount2 pivot_root open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick mount_setattr
         statmount listmount unshare setns clone clone3 bpf perf_event_open fanotify_init quotactl quotactl_fd
         sethostname setdomainname syslog",
    ),
    ("SYS_BOOT", "reboot"),
    (
        "SYS_NICE",
        "mbind set_mempolicy set_mempolicy_home_node get_mempolicy migrate_pages move_pages",
    ),
    ("SYS_TIME", "settimeofday clock_settime clock_adjtime adjtimex"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYSLOG", "syslog"),
    ("PERFMON", "perf_event_open"),
    ("BPF", "bpf"),
];

/// What init's own process in a container calls, which waits for the others: to be executed, to come up as a program of the
/// C library's, to wait, to reap, to pass signals on and to say how the program has ended.
const OF_INIT: &str = "execveat brk mmap munmap mprotect arch_prctl set_tid_address set_robust_list rseq getrandom prctl \
     signalfd4 fcntl read waitid pidfd_send_signal write close exit exit_group";

/// The profile of that process, which is the same whatever the container's own is.
pub fn of_init() -> Policy {
    let calls = OF_INIT.split_whitespace().filter_map(number::number);
    Policy {
        calls: calls.map(|number| (number, Verdict::Allow.into())).collect(),
        unknown: Verdict::Errno(ENOSYS),
    }
}

/// The profile of a container that may get these capabilities.
pub fn policy(capabilities: u64) -> Policy {
    let mut policy = Policy { calls: Default::default(), unknown: Verdict::Errno(ENOSYS) };
    let mut decide = |calls: &str, decision: Decision| {
        let numbers = calls.split_whitespace().filter_map(number::number);
        policy.calls.extend(numbers.map(|number| (number, decision.clone())));
    };
    for group in GROUPS {
        decide(group.calls, group.verdict.into());
    }
    for filtered in FILTERED {
        decide(filtered.call, filtered.decision());
    }
    for (name, calls) in BY_CAPABILITY {
        if capability::bit(name).is_some_and(|bit| capabilities & bit != 0) {
            decide(calls, Verdict::Allow.into());
        }
    }
    policy
}

impl Filtered {
    fn decision(&self) -> Decision {
        let rule = |(conditions, verdict): &(&[Condition], Verdict)| Rule {
            conditions: conditions.to_vec(),
            verdict: *verdict,
        };
        Decision { rules: self.rules.iter().map(rule).collect(), otherwise: self.otherwise }
    }
}
