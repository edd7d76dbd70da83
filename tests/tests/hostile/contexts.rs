//! In which services the hostile program runs, and which protection each of them lacks.

/// A service with a probe and the hostile program.
pub struct Context {
    pub name: &'static str,
    /// Keys of its table.
    pub keys: &'static str,
    /// What the documentation says of the keys, where they loosen the default.
    pub loosens: Option<Loosening>,
}

/// One key, beside a service that has the default.
pub struct Loosening {
    /// As it is written.
    pub key: &'static str,
    /// The context with the default.
    pub beside: &'static str,
}

const fn default(name: &'static str, keys: &'static str) -> Context {
    Context { name, keys, loosens: None }
}

const fn loosened(name: &'static str, key: &'static str, keys: &'static str) -> Context {
    Context { name, keys, loosens: Some(Loosening { key, beside: "root" }) }
}

/// In the last ones, all protections but one are gone.
pub const CONTEXTS: &[Context] = &[
    default("root", ""),
    default("user", "user = 1000"),
    loosened("users", "userns", "userns = \"host\""),
    loosened("capable", "cap-add", "cap-add = [\"ALL\"]"),
    Context {
        name: "set-id",
        keys: "user = 1000\nallow-setuid = true",
        loosens: Some(Loosening { key: "allow-setuid", beside: "user" }),
    },
    loosened("calls", "seccomp", "seccomp = \"unconfined\""),
    loosened("unmasked", "unmask", "unmask = \"all\""),
    loosened(
        "devices",
        "devices",
        "devices = [\"/dev/virtio-ports/devices:/dev/probe\", \"/dev/kmsg\", \"/dev/hwrng\"]",
    ),
    loosened("alone", "network", "network = \"none\""),
    loosened("processes", "pid", "pid = \"host\""),
    loosened("messages", "ipc", "ipc = \"host\""),
    loosened("fixed", "read-only", "read-only = true\ntmpfs = [\"/tmp\"]"),
    loosened(
        "unlimited",
        "limits",
        "pids-limit = 2000\nshm-size = \"128MiB\"\n\
         ulimits = { nofile = 600000, memlock = -1, core = -1, nice = 40, rtprio = 99 }",
    ),
    loosened("privileged", "privileged", "privileged = true"),
    default("almighty", "privileged = true\npid = \"host\"\nipc = \"host\""),
    default(
        "but-users",
        "cap-add = [\"ALL\"]\nallow-setuid = true\nseccomp = \"unconfined\"\nunmask = \"all\"",
    ),
    default(
        "but-capabilities",
        "userns = \"host\"\nallow-setuid = true\nseccomp = \"unconfined\"\nunmask = \"all\"",
    ),
    default("but-seccomp", "userns = \"host\"\ncap-add = [\"ALL\"]\nallow-setuid = true\nunmask = \"all\""),
    default(
        "but-masks",
        "userns = \"host\"\ncap-add = [\"ALL\"]\nallow-setuid = true\nseccomp = \"unconfined\"",
    ),
    // `privileged` is this and the machine's devices.
    default(
        "but-devices",
        "userns = \"host\"\ncap-add = [\"ALL\"]\nallow-setuid = true\nseccomp = \"unconfined\"\nunmask = \"all\"",
    ),
];

/// A protection, a service that has it, one that lacks nothing else, and probes that only this decides.
pub struct Protection {
    pub name: &'static str,
    pub with: &'static str,
    pub without: &'static str,
    pub stops: &'static [&'static str],
}

/// Where protections overlap, one that is taken away alone changes little: such a one is also left as the only one.
pub const PROTECTIONS: &[Protection] = &[
    Protection {
        name: "no_new_privs",
        with: "user",
        without: "set-id",
        stops: &["a set-user-id program of root's", "a file with CAP_SETUID"],
    },
    Protection {
        name: "the system call filter",
        with: "root",
        without: "calls",
        stops: &["AF_NETLINK, audit", "a call of i386", "add_key", "userfaultfd"],
    },
    Protection {
        name: "the system call filter, alone",
        with: "but-seccomp",
        without: "privileged",
        stops: &["AF_NETLINK, audit", "a call of i386", "add_key"],
    },
    Protection {
        name: "capabilities",
        with: "root",
        without: "capable",
        stops: &["chroot", "ptrace another process"],
    },
    Protection {
        name: "capabilities, alone",
        with: "but-capabilities",
        without: "privileged",
        stops: &["mount a tmpfs", "bpf", "clock_settime", "AF_INET, raw"],
    },
    Protection { name: "users of its own", with: "root", without: "users", stops: &["read /proc/slabinfo"] },
    Protection {
        name: "users of its own, alone",
        with: "but-users",
        without: "privileged",
        stops: &["mount an overlay", "bpf", "clock_settime", "clone with new users"],
    },
    Protection {
        name: "the device program, alone",
        with: "but-devices",
        without: "privileged",
        stops: &["mknod /dev/mem, and open it"],
    },
    Protection {
        name: "devices that are not there",
        with: "root",
        without: "devices",
        stops: &["open /dev/hwrng"],
    },
    Protection {
        name: "masks",
        with: "root",
        without: "unmasked",
        stops: &["read /proc/interrupts", "list /sys/firmware"],
    },
    Protection {
        name: "masks, alone",
        with: "but-masks",
        without: "but-devices",
        stops: &["write sysrq-trigger", "write kernel.core_pattern"],
    },
    Protection {
        name: "limits",
        with: "root",
        without: "unlimited",
        stops: &["600 threads", "70,000 descriptors", "lock 256 KiB of memory", "65 MiB in /dev/shm"],
    },
    Protection {
        name: "a root without a place to write",
        with: "fixed",
        without: "root",
        stops: &["change a file of the image"],
    },
    Protection {
        name: "a network of its own",
        with: "alone",
        without: "root",
        stops: &["connect to another service's port", "connect to another service's abstract socket"],
    },
    Protection {
        name: "processes of its own",
        with: "root",
        without: "processes",
        stops: &["see another service's process", "pidfd_open PID 1 of the machine"],
    },
    Protection {
        name: "System V IPC of its own",
        with: "root",
        without: "messages",
        stops: &["another service's message queue"],
    },
];
