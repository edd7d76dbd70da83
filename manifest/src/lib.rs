//! The boot manifest: the one document that the builder writes and init reads.
//!
//! It carries decisions, not questions: image configuration is already merged with the machine's config, users
//! are numbers, paths are checked, layers are named by digest. init checks the version and does as it says.
//!
//! The document is JSON. Its bytes for a sample machine are pinned by `tests/golden.rs`; whoever changes a shape
//! here raises [`VERSION`] and updates that file in the same commit.

pub mod base64;
pub mod control;
pub mod limits;
pub mod log;
pub mod mask;
pub mod name;
pub mod profile;
pub mod program;
pub mod report;
pub mod signal;
pub mod supervision;

use serde::{Deserialize, Serialize};

pub use limits::{Limits, Memory, Resource, ResourceLimit, UNLIMITED};
pub use log::{ConsoleFormat, Files, Log, Logging, Syslog, Transport};
pub use name::Name;
pub use profile::{Capabilities, Namespace, Profile, Sysctl};
pub use program::{Instruction, Program};
pub use supervision::{
    Awaited, Backoff, Condition, Dependency, GiveUp, Health, Kind, OnFailure, OnUnhealthy, Probe, Ready,
    ReadyBy, Restart, RestartPolicy, Stop, Then, Wait,
};

/// The version of the boot manifest's shape. init refuses any other.
pub const VERSION: u32 = 10;

/// A word of the kernel's command line: whoever reads the console has a terminal that shows colours.
pub const COLOUR: &str = "coracle.colour=1";

/// How many user ids, and group ids, a container with ids of its own has: all that 16 bits number.
pub const IDS_PER_CONTAINER: u32 = 1 << 16;

/// Where things stand in the initramfs. Everything that the builder puts there for init is below one folder.
pub mod path {
    /// The boot manifest.
    pub const MANIFEST: &str = "/coracle/manifest.json";
    /// Kernel modules, decompressed, named as in [`Manifest::modules`](crate::Manifest::modules).
    pub const MODULES: &str = "/coracle/modules";
    /// The layer store: `<digest>.erofs` for each of [`Manifest::layers`](crate::Manifest::layers).
    pub const LAYERS: &str = "/coracle/layers";
    /// The file in a container's root that init binds the machine's `resolv.conf` over.
    pub const RESOLV_CONF: &str = "/etc/resolv.conf";
    /// The machine's folder of sockets on which services say how they are, one of each service's name.
    pub const NOTIFY: &str = "/run/coracle/notify";
    /// That socket as the service sees it.
    pub const NOTIFY_TARGET: &str = "/dev/notify";
    /// The machine's folder of sockets of the control channel, one of each service's name that has one.
    pub const CONTROL: &str = "/run/coracle/control";
}

/// The whole machine, as init sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`VERSION`] in a manifest that this code wrote.
    pub version: u32,
    /// The machine's name, which becomes its host name.
    pub name: Name,
    /// File names of kernel modules below [`path::MODULES`], in load order.
    pub modules: Vec<String>,
    /// Digests (64 hexadecimal digits) of the layers, each mounted once and shared by the containers that use it.
    pub layers: Vec<String>,
    /// Seccomp programs, shared by the containers whose calls are filtered alike.
    pub seccomp: Vec<Program>,
    /// What to do with the machine's first network interface.
    pub network: Network,
    /// What sees to it that PID 1 is not stuck.
    pub watchdog: Watchdog,
    /// What may be done to the machine from outside.
    pub control: Control,
    /// What becomes of what is said.
    pub log: Log,
    /// All nodes of the graph.
    pub services: Vec<Service>,
}

/// What the control channel may do, and where it is beside its usual places: see [`control`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Run programs in containers.
    pub exec: bool,
    /// The port of the machine's vsock on which the host can connect.
    pub vsock: Option<u32>,
}

/// How the machine gets its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Only the loopback interface is set up.
    None,
    /// DHCP on the first interface that is not the loopback, the lease renewed for as long as the machine runs.
    Dhcp,
}

/// A timer that reboots the machine when PID 1 has not been heard of for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Watchdog {
    /// There is none, because nobody wants one.
    None,
    /// The machine's, or else the kernel's.
    Armed {
        /// Seconds without a word from PID 1 until the reboot.
        timeout: u16,
    },
}

/// One supervised container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Unique in the machine; names the cgroup and the log lines.
    pub name: Name,
    /// Long-running, or run to its end once.
    pub kind: Kind,
    /// What it waits for. These edges have no cycle.
    pub depends_on: Vec<Dependency>,
    /// What it waits for of the machine.
    pub wait_for: Vec<Wait>,
    /// When it is ready.
    pub ready: Ready,
    /// How its health is found out, if it is.
    pub health: Option<Health>,
    /// Milliseconds between two of its signs of life (`WATCHDOG=1`) after which it is stopped as failed; 0 for none.
    pub watchdog_ms: u64,
    /// What follows its end.
    pub restart: Restart,
    /// How it is asked to end.
    pub stop: Stop,
    /// What becomes of what it writes.
    pub logging: Logging,
    /// What runs.
    pub container: Container,
}

/// A container: a process, its root and what it may do. Knows nothing of services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Indices into [`Manifest::layers`], the uppermost first. The first is the builder's own layer, which holds
    /// the mount points, unless the image already has them all.
    pub layers: Vec<usize>,
    /// No writable upper: the root is its layers and nothing else.
    pub read_only: bool,
    /// The host name inside.
    pub hostname: Name,
    /// The program and its arguments; never empty. A program without a slash is looked for in `PATH` of
    /// [`env`](Self::env), inside the container's root.
    pub argv: Vec<String>,
    /// `NAME=value` each; the whole environment.
    pub env: Vec<String>,
    /// The working directory: absolute. The builder has made sure that it exists.
    pub cwd: String,
    /// Which of the machine's users and groups those of the container are.
    pub ids: Ids,
    /// Numeric user and groups of the first process, as they are inside.
    pub user: User,
    /// What it may do, and what it shares with the machine.
    pub profile: Profile,
    /// Which system calls it has.
    pub seccomp: Seccomp,
    /// Its first process is one of init's own, before the program, that reaps and passes signals on: the index of that
    /// process's own system calls in [`Manifest::seccomp`]. None where the program itself is the first process.
    pub init: Option<usize>,
    /// Mounts beside the standard ones (`/proc`, `/sys`, `/dev`, …), in order.
    pub mounts: Vec<Mount>,
    /// Device nodes beside the standard ones.
    pub devices: Vec<Device>,
    /// Sockets that init listens on.
    pub sockets: Vec<Socket>,
    /// What it may take of the machine.
    pub limits: Limits,
}

/// What the user and group ids of a container stand for on the machine. Never left out: a container that only lacked
/// the entry would be less isolated without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ids {
    /// A range of the container's own, in a user namespace: 0 inside is `first`, and so on for [`IDS_PER_CONTAINER`].
    /// Two containers have the same range, because they share volumes, or no id in common.
    Own {
        /// User and group 0 of the container.
        first: u32,
    },
    /// Themselves: user 0 of the container is user 0 of the machine.
    Machine,
}

/// Which system calls a container has. Not an `Option`, which a document without the key would leave empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seccomp {
    /// All that the kernel has.
    Unconfined,
    /// Those that a program lets pass: an index into [`Manifest::seccomp`].
    Program(usize),
}

/// Numeric credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Group ids beside the primary one, which init adds to them.
    pub groups: Vec<u32>,
}

/// A mount that the config asks for. Targets are absolute, normalised, and exist in the container's layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Mount {
    /// An empty file system in memory.
    Tmpfs {
        /// Where.
        target: String,
        /// Bytes at most; 0 means the kernel's default of half the memory.
        size: u64,
        /// Permission bits of its root.
        mode: u32,
        /// Not writable.
        read_only: bool,
        /// Nothing in it can be run.
        no_exec: bool,
    },
    /// A folder or file of the machine.
    Bind {
        /// Absolute path on the machine, no part of which may be a symbolic link. When nothing is there, a folder
        /// with the owner and mode of `target` is made.
        source: String,
        /// Where.
        target: String,
        /// Not writable through this mount. What holds init's own files never is.
        read_only: bool,
        /// Nothing in it can be run.
        no_exec: bool,
    },
}

/// A device node of the machine that appears in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Absolute path of the node on the machine; `/dev/virtio-ports/NAME` stands for the port of that name.
    pub source: String,
    /// Absolute path inside, below `/dev`. The node belongs to the first process's user.
    pub target: String,
}

/// A socket of init's that appears in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Socket {
    /// Absolute path on the machine.
    pub source: String,
    /// Absolute path inside, in `/dev`.
    pub target: String,
}
