//! The control channel: how somebody talks to a machine that runs. One JSON object per line, in both directions.
//!
//! It is spoken on the virtio-serial port [`PORT`], on a unix socket that a service has if its config says so
//! ([`TARGET`]), and on a port of the vsock if the machine's config names one ([`Control::vsock`](crate::Control::vsock)). A client begins with [`Ask::Hello`]. Each further request begins a session under a number that the
//! client chooses, several may go on at a time, and each ends with exactly one of [`Answer::Done`], [`Answer::Exit`] and
//! [`Answer::Error`]. Times are nanoseconds of the machine's monotonic clock, unless they say otherwise.

use serde::{Deserialize, Serialize};

use crate::{Name, base64};

/// The version of what is said here. A machine answers with its own, and a client that has another says so.
pub const VERSION: u32 = 1;
/// The name of the virtio-serial port.
pub const PORT: &str = "coracle.ctl";
/// The socket as a service sees it.
pub const TARGET: &str = "/dev/coracle.ctl";
/// The longest line that a machine takes, in bytes. A longer one is answered with an error, and left out.
pub const REQUEST_MAX: usize = 64 * 1024;
/// How many bytes of input of one session may be underway: see [`Answer::Taken`].
pub const WINDOW: usize = 32 * 1024;

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The session: a new one, or for the lower part of [`Ask`] one that goes on.
    pub id: u64,
    /// What is wanted.
    pub ask: Ask,
}

/// What can be asked of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// Who is there? Ends every other session of the connection, which may be of a client before this one.
    Hello,
    /// How the services are: [`Answer::Machine`], then [`Answer::Service`] for each.
    Status,
    /// What they use: [`Answer::Load`], then [`Answer::Usage`] for each whose cgroup is there.
    Usage,
    /// How the boot went: [`Answer::Boot`], then [`Answer::Node`] for each.
    Boot,
    /// What services have written: [`Answer::Log`] for each line, the earliest first.
    Logs {
        /// Whose; all when it is empty.
        services: Vec<Name>,
        /// The last lines of each only, so many at most.
        tail: Option<u32>,
        /// Goes on with what they write from now on, until [`Ask::Cancel`].
        follow: bool,
    },
    /// What has happened: [`Answer::Event`] for each event that is still known.
    Events {
        /// Only those with this number and later ones.
        since: u64,
        /// Goes on with what happens from now on, until [`Ask::Cancel`].
        follow: bool,
    },
    /// Wants something of a service. The answer is there at once: events tell what comes of it.
    Order {
        /// Of which.
        service: Name,
        /// What.
        order: Order,
    },
    /// Ends the machine, in order.
    Power {
        /// And then?
        power: Power,
    },
    /// Runs a program in a service's container: [`Answer::Started`], then [`Answer::Output`] until [`Answer::Exit`].
    Exec(Exec),

    /// Of an exec session: something for the program to read.
    Input {
        /// In base64.
        #[serde(with = "base64")]
        data: Vec<u8>,
    },
    /// Of an exec session: there is no more for the program to read.
    InputEnd,
    /// Of an exec session: its terminal has another size.
    Resize(Size),
    /// Of an exec session: a signal for its program.
    Signal {
        /// 1 to 64.
        number: i32,
    },
    /// Ends a session. A program that runs in it is killed.
    Cancel,
}

/// What somebody wants of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Run, whatever it has been through.
    Start,
    /// Not run until it is started again.
    Stop,
    /// End, and run again.
    Restart,
}

/// What a machine does when everything has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// Off.
    Off,
    /// On again.
    Reboot,
    /// Neither: the processor stops, the power stays on.
    Halt,
}

/// A program to be run in a container: its user, limits and filters are those of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// Whose container.
    pub service: Name,
    /// The program and its arguments; not empty.
    pub argv: Vec<String>,
    /// `NAME=value` each, beside and over the service's environment.
    pub env: Vec<String>,
    /// The working directory, absolute; the service's own when there is none.
    pub cwd: Option<String>,
    /// The size of its terminal. None: it has none, but pipes.
    pub terminal: Option<Size>,
}

/// Of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// What a machine sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// The session; 0 for an error about a line that belongs to none.
    pub id: u64,
    /// A part of its answer.
    pub answer: Answer,
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// Who is there.
    Hello {
        /// [`VERSION`] of the machine.
        version: u32,
        /// The machine's name.
        name: Name,
    },
    /// How the machine is.
    Machine(Machine),
    /// How a service is.
    Service(Service),
    /// What the machine as a whole uses.
    Load(Load),
    /// What a service uses.
    Usage(Usage),
    /// How the machine came up.
    Boot(Boot),
    /// How a service came up.
    Node(Node),
    /// Something that a service has written.
    Log(Log),
    /// Something that has happened.
    Event(Event),
    /// The program's process is there.
    Started,
    /// Something that the program has written.
    Output {
        /// Where to.
        stream: Stream,
        /// In base64.
        #[serde(with = "base64")]
        data: Vec<u8>,
    },
    /// So many bytes of input have left the window, in which [`WINDOW`] bytes at most may be.
    Taken {
        /// Bytes.
        bytes: usize,
    },
    /// The end of an exec session.
    Exit {
        /// As a shell has it: 128 and the signal for one that a signal has ended.
        code: u8,
    },
    /// The end of a session that has done what it was asked.
    Done,
    /// The end of a session that has not.
    Error {
        /// Why, as a sentence without a capital: "no service is called `x`".
        why: String,
    },
}

/// Where a program has written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard output, or a terminal.
    Output,
    /// Standard error.
    Error,
}

/// A moment by both of the machine's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Now {
    /// The monotonic one.
    pub monotonic_ns: u64,
    /// Milliseconds since 1970, by what the machine takes for the time.
    pub unix_ms: u64,
}

/// How a machine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its name.
    pub name: Name,
    /// The moment of the answer.
    pub now: Now,
    /// Where it stands.
    pub state: MachineState,
    /// The number of the last event that had happened then; 0 before the first. What happens after the answer is asked
    /// for with the next number as [`Ask::Events::since`].
    pub last_event: u64,
}

/// Where a machine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineState {
    /// Not everything has come up.
    Starting,
    /// Everything has come as far as it should.
    Ready,
    /// It goes down.
    Stopping,
}

/// How a service is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name.
    pub name: Name,
    /// Its table in the config.
    pub kind: ServiceKind,
    /// Where it stands.
    pub state: ServiceState,
    /// Its first process, in the machine's numbers.
    pub pid: Option<i32>,
    /// When its run began.
    pub since_ns: Option<u64>,
    /// When it starts again, in state [`ServiceState::Backoff`].
    pub starts_at_ns: Option<u64>,
    /// Whether its last health check passed, if it has had one.
    pub healthy: Option<bool>,
    /// How often it was started.
    pub starts: u32,
    /// How its last run ended.
    pub last: Option<End>,
    /// What it says of itself (`STATUS=` of sd_notify), as it says it.
    pub says: Option<String>,
    /// Whom it waits for, in state [`ServiceState::Waiting`].
    pub waits_for: Vec<String>,
    /// Bytes that it has written since the boot.
    pub log_bytes: u64,
    /// How many of those are not kept any more.
    pub log_dropped: u64,
}

/// A service's table in the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceKind {
    /// `[service]`
    Service,
    /// `[oneshot]`
    Oneshot,
    /// `[shutdown]`
    Shutdown,
}

/// Where a service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceState {
    /// It starts when what it waits for is there.
    Waiting,
    /// Its container is being made, or its program runs and is not ready.
    Starting,
    /// It is ready.
    Ready,
    /// It has been asked to end.
    Stopping,
    /// It has ended, and starts again after a pause.
    Backoff,
    /// Somebody has stopped it, or its time has not come.
    Stopped,
    /// It has ended with code 0, and does not start again.
    Completed,
    /// It has ended otherwise, and does not start again.
    Failed,
    /// It is not started, because something that it waits for has failed.
    Skipped,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// What ended it.
    pub cause: Cause,
    /// Its exit code, if it has one.
    pub code: Option<u8>,
    /// The signal's number, if one ended it.
    pub signal: Option<i32>,
    /// The end of a sentence: "ended with code 3", "was ended by SIGKILL: it needed more than its 64 MiB of memory".
    pub text: String,
}

/// What ended a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Itself.
    Exit,
    /// A signal.
    Signal,
    /// A lack of memory.
    Memory,
    /// A system call that it may not use.
    Seccomp,
    /// Its program was never run: a step of its start failed.
    Start,
    /// It was not ready in time.
    NotReady,
    /// It was unhealthy.
    Unhealthy,
    /// It gave no sign of life in time.
    Silent,
    /// It could not be killed, and was left behind.
    Stuck,
}

/// What a machine uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// The moment of the answer.
    pub now: Now,
    /// Bytes of memory that there are.
    pub memory_total: u64,
    /// Bytes of memory that can be had.
    pub memory_available: u64,
    /// Processors.
    pub processors: u32,
    /// Microseconds of all processors together that were spent in user mode, in the kernel, idle, and waiting for disks.
    pub user_us: u64,
    /// See above.
    pub system_us: u64,
    /// See above.
    pub idle_us: u64,
    /// See above.
    pub iowait_us: u64,
    /// Processes that wanted to run, averaged over the last 1, 5 and 15 minutes, in hundredths.
    pub load_percent: [u32; 3],
    /// Bytes that PID 1 has in memory.
    pub init_memory: u64,
}

/// What a service uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Its name.
    pub name: Name,
    /// Microseconds of processor time, in user mode and in the kernel.
    pub user_us: u64,
    /// See above.
    pub system_us: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// The most that it had.
    pub memory_peak: u64,
    /// What it may have.
    pub memory_limit: u64,
    /// Processes and threads.
    pub processes: u64,
    /// How often processes were killed for memory.
    pub memory_kills: u64,
    /// Bytes read from disks.
    pub read_bytes: u64,
    /// Bytes written to disks.
    pub written_bytes: u64,
}

/// How a machine came up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// The kernel's release.
    pub kernel: String,
    /// When init's first instruction ran: the kernel's part of the boot.
    pub init_ns: u64,
    /// When services could start.
    pub supervised_ns: u64,
    /// When everything had come as far as it should.
    pub ready_ns: Option<u64>,
    /// How the boot before ended, where the machine remembers, and it was not in order.
    pub previous: Option<Previous>,
}

/// The last words of a boot that was not ended in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Previous {
    /// The line that says why.
    pub cause: String,
    /// The kernel's last lines.
    pub lines: String,
}

/// How a service came up: its first run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name.
    pub name: Name,
    /// Its table in the config.
    pub kind: ServiceKind,
    /// Whom it waits for.
    pub after: Vec<Name>,
    /// When it began to wait.
    pub queued_ns: u64,
    /// When its first process was cloned.
    pub started_ns: Option<u64>,
    /// When its program ran.
    pub executed_ns: Option<u64>,
    /// When it was ready; of a oneshot, when it had completed.
    pub ready_ns: Option<u64>,
    /// When its first run ended.
    pub ended_ns: Option<u64>,
    /// How.
    pub end: Option<End>,
}

/// What a machine writes on its console when it is ready, as one line, unless somebody looks at it on a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootReport {
    /// The machine.
    pub boot: Boot,
    /// Its services.
    pub nodes: Vec<Node>,
}

/// A piece of a service's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Whose.
    pub service: Name,
    /// When it was read.
    pub now: Now,
    /// Lines before this one that are not kept any more, and that nobody who follows has seen.
    pub dropped: u64,
    /// One line. Control characters and bytes that are no UTF-8 are escaped.
    pub text: String,
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Counts from 1, without a gap: where there is one, events are not kept any more.
    pub sequence: u64,
    /// When.
    pub now: Now,
    /// To whom; nobody when it is the machine.
    pub service: Option<Name>,
    /// What.
    pub what: What,
    /// The end of a sentence that begins with the service's name, or with "the machine".
    pub text: String,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum What {
    /// Its first process was cloned.
    Started {
        /// In the machine's numbers.
        pid: i32,
    },
    /// It is ready.
    Ready,
    /// It is healthy again.
    Healthy,
    /// Its health checks fail.
    Unhealthy,
    /// It has been asked to end.
    Stopping,
    /// It has not ended in time, and was killed.
    Killed,
    /// It has ended.
    Ended(End),
    /// It starts again after a pause.
    Restarts {
        /// Its length.
        pause_ns: u64,
    },
    /// It is not started, because another one has failed.
    Skipped,
    /// It does not start again.
    GivenUp,
    /// Something else, which `text` tells.
    Note,
    /// Everything has come as far as it should.
    MachineReady,
    /// The machine goes down.
    MachineStops {
        /// And then?
        power: Power,
    },
}
