//! What a container may do beside what every container may: its capabilities, whom it shares namespaces with, and
//! which protections are taken away.

use serde::{Deserialize, Serialize};

/// The part of a container's profile that keys of the config change. Nothing of it is ever left out of a document: a
/// container that only lacked an entry would be less isolated without a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What its processes may do of what only root may.
    pub capabilities: Capabilities,
    /// Its network.
    pub network: Namespace,
    /// Its processes.
    pub pid: Namespace,
    /// Its System V IPC objects and message queues.
    pub ipc: Namespace,
    /// Set-id programs and files with capabilities give what they say.
    pub set_id: bool,
    /// Every device node of the machine is in its `/dev`.
    pub all_devices: bool,
    /// Paths of [`MASKS`](crate::mask::MASKS) that are as the kernel has them.
    pub unmasked: Vec<String>,
    /// Settings of its own namespaces, in the order in which they are written.
    pub sysctls: Vec<Sysctl>,
}

/// Sets of capabilities: bits by the numbers of linux/capability.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// All that any of its processes can ever have.
    pub bounding: u64,
    /// Those of the first process: permitted and effective, and for users other than 0 ambient and inheritable, because
    /// else they would be gone with exec.
    pub held: u64,
}

/// Whose a namespace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Namespace {
    /// The container's. A network of its own has nothing but a loopback.
    Own,
    /// The machine's.
    Machine,
}

/// A setting below `/proc/sys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sysctl {
    /// The path below `/proc/sys`: `net/core/somaxconn`. The builder has made sure that it leads nowhere else.
    pub path: String,
    /// One line.
    pub value: String,
}
