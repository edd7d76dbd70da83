//! The config: what people write in TOML, and what it means.
//!
//! Two types at the border: `Raw` holds what is written, with the place of each value; only `check` makes a
//! [`Config`] of it. Every problem of every file is found in one go.

mod check;
mod document;
mod graph;
mod limits;
mod logging;
mod problem;
mod profile;
mod raw;
mod supervision;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use manifest::{Device, Kind, Name};

use crate::oci::limits::Limits;
use crate::oci::reference::Reference;
pub use problem::{Problems, suggestion};
#[cfg(test)]
pub use profile::Capabilities;
pub use profile::Profile;
pub use supervision::{Edge, HealthOptions, Supervision, exec as health_test};
pub use value::{Access, Port, Protocol, Tmpfs, Volume, absolute, duration, signal, signal_name, size};

/// A machine, as its config means it.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Names the machine and its artifacts.
    pub name: Name,
    /// The kernel that boots it.
    pub kernel: Kernel,
    /// How long PID 1 may not be heard of until the machine reboots; none for ever.
    pub watchdog: Option<Duration>,
    /// What may be done to it from outside.
    pub control: manifest::Control,
    /// What becomes of what is said.
    pub log: manifest::Log,
    /// How its images are stored.
    pub layers: Layers,
    /// Oneshots in the order in which they are written, then services in theirs, then those of the shutdown.
    pub services: Vec<Service>,
    /// Files of the machine itself.
    pub files: Vec<File>,
    /// The folder that relative paths in the config start from: the first config file's.
    pub base: PathBuf,
}

/// The `[kernel]` table.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    /// Where kernel and modules come from.
    pub source: KernelSource,
    /// Modules to load beside those that the machine needs by itself.
    pub modules: Vec<String>,
    /// Words for the kernel's command line, after Coracle's own.
    pub cmdline: String,
}

/// Where a kernel comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum KernelSource {
    /// A Debian package, by name.
    Package(String),
    /// An image in LinuxKit's kernel layout: `/kernel` and `/kernel.tar`.
    Image(Reference),
    /// A bzImage, and the folder that holds its modules (`lib/modules/RELEASE`).
    Files {
        /// The bzImage.
        image: PathBuf,
        /// Absent when everything needed is built in.
        modules: Option<PathBuf>,
    },
}

/// The `[layers]` table. `None` leaves it to the kernel and the codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layers {
    /// What compresses the files in layers.
    pub compression: Option<Compress>,
    /// How hard it tries, as the codec counts.
    pub level: Option<i32>,
    /// The most bytes of a layer that are inflated at once.
    pub cluster: Option<usize>,
    /// What an image may take while it is converted.
    pub limits: Limits,
    /// Whether layers may have block and character devices.
    pub allow_devices: bool,
}

/// A way to compress layers, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compress {
    /// `none`
    None,
    /// `lz4`
    Lz4,
    /// `zstd`
    Zstd,
}

/// A `[service.NAME]`, `[oneshot.NAME]` or `[shutdown.NAME]` table. `None` means that the image decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// The table's name.
    pub name: Name,
    /// Which of the tables.
    pub kind: Kind,
    /// The image that it runs.
    pub image: Reference,
    /// Replaces the image's `Cmd`.
    pub command: Option<Vec<String>>,
    /// Replaces the image's `Entrypoint`, and empties its `Cmd` where `command` is not given.
    pub entrypoint: Option<Vec<String>>,
    /// Added to the image's environment, or replacing a variable of it.
    pub environment: BTreeMap<String, String>,
    /// Replaces the image's `WorkingDir`.
    pub working_dir: Option<String>,
    /// Replaces the image's `User`.
    pub user: Option<String>,
    /// Ports that `coracle run` publishes on the host.
    pub ports: Vec<Port>,
    /// Empty file systems in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// Folders of the machine.
    pub volumes: Vec<Volume>,
    /// Device nodes of the machine.
    pub devices: Vec<Device>,
    /// What it may take of the machine.
    pub limits: manifest::Limits,
    /// Which system calls it has.
    pub seccomp: Seccomp,
    /// Whether its program has a first process of init's own before it.
    pub init: bool,
    /// No writable upper on the image's layers.
    pub read_only: bool,
    /// Whose the users and groups inside are.
    pub userns: Userns,
    /// What it may do beside what every service may, and less.
    pub profile: Profile,
    /// The host name inside; the service's name when absent.
    pub hostname: Option<Name>,
    /// What it waits for, when it is ready and healthy, and what follows its end.
    pub supervision: Supervision,
    /// Whether it may use the machine's control channel.
    pub control: bool,
    /// What becomes of what it writes.
    pub logging: manifest::Logging,
    /// Replaces the image's `StopSignal`.
    pub stop_signal: Option<i32>,
    /// From the stop signal to the kill.
    pub stop_grace_period: Duration,
}

/// The tables that services stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// `[service.NAME]`
    Service,
    /// `[oneshot.NAME]`
    Oneshot,
    /// `[shutdown.NAME]`
    Shutdown,
}

impl Table {
    /// The first part of the key path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Oneshot => "oneshot",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Whose users and groups those of a service are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Userns {
    /// Its own, which nobody else has.
    Private,
    /// The machine's.
    Host,
}

/// Where a service's seccomp profile comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seccomp {
    /// It is Coracle's.
    Default,
    /// There is none.
    Unconfined,
    /// It is in a file, in Docker's format.
    File(PathBuf),
}

impl Service {
    /// The key path of this service's table, for messages: `service.web`.
    pub fn path(&self) -> String {
        let table = match self.kind {
            Kind::Service => Table::Service,
            Kind::Oneshot { .. } => Table::Oneshot,
            Kind::Shutdown { .. } => Table::Shutdown,
        };
        format!("{}.{}", table.as_str(), self.name)
    }
}

/// A `[[file]]` table: a file of the machine, which containers see through volumes.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    /// Absolute and normalised.
    pub path: String,
    /// What is in it.
    pub content: FileContent,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Where the bytes of a [`File`] come from.
#[derive(Debug, Clone, PartialEq)]
pub enum FileContent {
    /// From the config itself.
    Contents(String),
    /// From a file beside it.
    Source(PathBuf),
}

/// Reads, merges and checks config files; a later file replaces or adds keys of the earlier ones.
pub fn load(paths: &[PathBuf]) -> Result<Config, Problems> {
    let sources = document::Sources::read(paths)?;
    let mut problems = Vec::new();
    let base = paths.first().and_then(|path| path.parent()).unwrap_or(Path::new("")).to_owned();
    let config = sources
        .parse(&mut problems)
        .map(|table| raw::Raw::read(table, &mut problems))
        .and_then(|raw| check::check(raw, base, &mut problems));
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(Problems::new(sources, problems)),
    }
}

#[cfg(test)]
mod tests;
