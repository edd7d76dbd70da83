//! What a container may take of the machine.

use serde::{Deserialize, Serialize};

/// The shares of a container. Every field is there in every document: nothing is unlimited by being left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory, with its files in memory and its page cache.
    pub memory: Memory,
    /// Bytes of memory that are not taken from it while others have more than theirs; 0 for none.
    pub memory_reservation: u64,
    /// Processes and threads at most.
    pub processes: u32,
    /// Thousandths of a processor's time; 0 for as much as there is.
    pub processor_millis: u32,
    /// The processors that it may run on, ascending; empty for all.
    pub processors: Vec<u32>,
    /// Its share of a disk that others want as well, from 1 to 10,000 beside their 100; 0 for 100 as they have.
    pub io_weight: u16,
    /// How early its processes are chosen when memory is short: -999 (last) to 1000 (first).
    pub oom_score_adj: i16,
    /// Bytes that fit into `/dev/shm`.
    pub shm_size: u64,
    /// Limits of each process. What is not named has the kernel's own.
    pub resources: Vec<ResourceLimit>,
}

/// How much memory a container may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Memory {
    /// Half of what the machine has.
    Half,
    /// So many bytes.
    Bytes(u64),
}

/// One of a process's limits (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceLimit {
    /// Of what.
    pub resource: Resource,
    /// What holds, in the resource's own unit.
    pub soft: u64,
    /// What a process without privileges may raise it to.
    pub hard: u64,
}

/// No limit (`RLIM_INFINITY`).
pub const UNLIMITED: u64 = u64::MAX;

/// What a process can be limited in, by Compose's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are those of setrlimit(2), which explains them")]
pub enum Resource {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}
