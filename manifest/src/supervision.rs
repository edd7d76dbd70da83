//! How a service is supervised: what it waits for, when it is ready and healthy, and what follows its end.

use serde::{Deserialize, Serialize};

/// What a service is in the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Kind {
    /// Long-running.
    Service,
    /// Run to its end once.
    Oneshot {
        /// What a final failure does.
        on_failure: OnFailure,
    },
    /// Run to its end once, when the machine is about to stop its services.
    Shutdown {
        /// Milliseconds after which it is killed.
        timeout_ms: u64,
    },
}

/// What the final failure of something does to those who wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// While the machine boots: it stops what runs and powers off, with the exit code in its report. Later it is
    /// [`Degrade`](Self::Degrade).
    AbortBoot,
    /// They are not started, and the machine goes on without them.
    Degrade,
    /// They are started all the same.
    Ignore,
}

/// An edge of the graph: a service is not started before another one has come so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    /// The other one: an index into [`Manifest::services`](crate::Manifest::services).
    pub service: usize,
    /// How far.
    pub condition: Condition,
    /// What follows when it never will.
    pub on_failure: OnFailure,
    /// Whether the service is started again when the other one has ended.
    pub restart_with: bool,
}

/// How far a service has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Its program runs, or has run.
    Started,
    /// It is ready, in the way that its own table says.
    Ready,
    /// Its last health check passed.
    Healthy,
    /// It has ended with code 0 and is not started again.
    Completed,
}

/// A wait for something that is no service: a service is not started before it is so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// For what.
    pub until: Awaited,
    /// Milliseconds from when nothing else is waited for, after which it counts as failed; 0 for as long as it takes.
    pub timeout_ms: u64,
    /// What follows then.
    pub on_failure: OnFailure,
}

/// What is waited for of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Awaited {
    /// The machine has an address, and a network to use it on.
    Network,
    /// The kernel takes the wall clock for synchronised.
    Clock,
    /// There is something at this absolute path of the machine. `/dev/virtio-ports/NAME` stands for the port of that
    /// name.
    Path(String),
}

/// When a service is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// What says so.
    pub by: ReadyBy,
    /// Milliseconds from its start after which a service that is not ready is stopped, which counts as a failure; 0
    /// for as long as it takes.
    pub timeout_ms: u64,
}

/// What says that a service is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadyBy {
    /// Its program runs.
    Started,
    /// It says `READY=1` on the socket of sd_notify(3).
    Notify,
    /// It writes a newline to this descriptor, which it has from the beginning (s6).
    Fd(u32),
    /// A probe passes.
    Probe(Probe),
    /// Its health check passes.
    Healthy,
}

/// A question to a service that runs, with yes or no for an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Probe {
    /// A program in the container ends with code 0.
    Exec(Vec<String>),
    /// A TCP connection to this port of the service's loopback interface is accepted.
    Tcp(u16),
    /// A GET request gets a status from 200 to 399.
    Http {
        /// Of the service's loopback interface.
        port: u16,
        /// The `Host` header: the host as the config writes it, with the port where it is not 80.
        host: String,
        /// Path and query, from the slash on.
        path: String,
    },
}

/// How a service's health is found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// What is asked.
    pub probe: Probe,
    /// Milliseconds from one check's end to the next check.
    pub interval_ms: u64,
    /// Milliseconds that a check may take.
    pub timeout_ms: u64,
    /// Failed checks in a row that make a service unhealthy.
    pub retries: u32,
    /// Milliseconds from its start in which failed checks do not count.
    pub start_period_ms: u64,
    /// The interval within that time, until the first check passes.
    pub start_interval_ms: u64,
    /// What follows.
    pub on_unhealthy: OnUnhealthy,
}

/// What becomes of a service that is not healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnUnhealthy {
    /// It is stopped, which counts as a failure, and so started again if its restart policy says so.
    Restart,
    /// The machine reboots.
    Reboot,
    /// Nothing but a message.
    None,
}

/// What follows a service's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// After which ends it is started again.
    pub policy: RestartPolicy,
    /// Exit codes after which it is not, whatever the policy says.
    pub prevented_by: Vec<u8>,
    /// How long that waits.
    pub backoff: Backoff,
    /// When that has no end.
    pub give_up: Option<GiveUp>,
}

/// The restart policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Its end is final.
    Never,
    /// Started again when it ends with a code other than 0 or by a signal.
    OnFailure,
    /// Started again however it ends.
    Always,
}

/// The pauses before restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    /// Milliseconds of the first pause.
    pub first_ms: u64,
    /// How many times as long as the one before each is.
    pub factor: u32,
    /// Milliseconds of the longest pause.
    pub cap_ms: u64,
    /// By how many hundredths a pause may be shorter or longer, by chance.
    pub jitter_percent: u8,
    /// Milliseconds of a run after which the next pause is the first again.
    pub reset_ms: u64,
}

/// When restarts have an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GiveUp {
    /// With this many ends ...
    pub after: u32,
    /// ... in so many milliseconds.
    pub within_ms: u64,
    /// What follows.
    pub then: Then,
}

/// What follows when a service is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// It stays as it is.
    Stop,
    /// The machine reboots.
    Reboot,
    /// The machine powers off.
    Poweroff,
}

/// How a service is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Sent first, to the container's first process: a signal number, 1 to 64.
    pub signal: i32,
    /// Milliseconds from the stop signal to `cgroup.kill`.
    pub grace_ms: u64,
}
