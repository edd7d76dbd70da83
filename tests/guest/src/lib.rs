//! What tests and the guest probe say to each other: one JSON document a line, over a virtio-serial port.
//!
//! The test asks with a [`Request`] and gets one [`Message::Answer`] or [`Message::Refusal`]; a [`Message::Event`]
//! may come at any time.

pub mod hostile;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the probe expects its port, unless its command line names another path.
pub const PORT: &str = "/dev/probe";

/// A question, or something to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What the probe is: answered with [`Answer::Identity`].
    Identity,
    /// A file's contents, at most a mebibyte: [`Answer::Text`].
    Read {
        /// Which.
        path: String,
    },
    /// Makes or truncates a file, and writes it: [`Answer::Done`].
    Write {
        /// Which.
        path: String,
        /// The whole contents.
        contents: String,
    },
    /// A symbolic link's target: [`Answer::Text`].
    Link {
        /// Which.
        path: String,
    },
    /// A folder's names, sorted: [`Answer::Names`].
    List {
        /// Which.
        path: String,
    },
    /// Metadata, symbolic links not followed: [`Answer::Metadata`].
    Stat {
        /// Of what.
        path: String,
    },
    /// An extended attribute's value, in hexadecimal: [`Answer::Text`].
    Attribute {
        /// Of which file.
        path: String,
        /// With the namespace: `user.name`.
        name: String,
    },
    /// Sends a signal: [`Answer::Done`].
    Signal {
        /// To whom, in the probe's PID namespace.
        pid: i32,
        /// Its number.
        signal: i32,
    },
    /// Ends the probe: [`Answer::Done`] comes first.
    Exit {
        /// Its exit code.
        code: i32,
    },
    /// Leaves behind a process whose parent has ended: [`Answer::Pid`].
    Orphan {
        /// How long it lives.
        milliseconds: u64,
    },
    /// Makes system calls, each in a process of its own: [`Answer::Outcomes`].
    Call {
        /// The program that makes one: it reads the number and six arguments, native words, from its standard input.
        program: String,
        /// Numbers with arguments.
        calls: Vec<[u64; 7]>,
    },
    /// Sends a datagram to the socket that `NOTIFY_SOCKET` names: [`Answer::Done`].
    Notify {
        /// What it says.
        text: String,
    },
    /// Runs a program to its end: [`Answer::Output`].
    Run {
        /// The program and its arguments.
        argv: Vec<String>,
    },
}

/// One line from the probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Message {
    /// What was asked for.
    Answer(Answer),
    /// It could not be done, and why.
    Refusal(Refusal),
    /// Something happened.
    Event(Event),
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// It has been done.
    Done,
    /// Who the probe is.
    Identity(Box<Identity>),
    /// A text.
    Text(String),
    /// Names in a folder.
    Names(Vec<String>),
    /// A file's metadata.
    Metadata(Metadata),
    /// A process of the probe's PID namespace.
    Pid(i32),
    /// What a program did.
    Output(Output),
    /// What became of system calls, in their order.
    Outcomes(Vec<Outcome>),
}

/// Why a request was not met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The kernel's error number, 0 when the cause is another.
    pub errno: i32,
    /// A sentence.
    pub reason: String,
}

/// What became of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Outcome {
    /// It was carried out; or it ended the process, as `exit` does.
    Done,
    /// It failed with this error number.
    Failed(i32),
    /// The process was killed by this signal. It is SIGALRM when the call did not return within a second.
    Killed(i32),
}

/// What happened to the probe. Times are nanoseconds of the machine's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// The port is open.
    Started {
        /// When the probe's first instruction ran.
        first_ns: u64,
    },
    /// A stop signal came.
    Stopping {
        /// Its number.
        signal: i32,
        /// When it came.
        at_ns: u64,
    },
}

/// Who the probe is, as far as it can see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Its process id.
    pub pid: i32,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Supplementary groups, sorted.
    pub groups: Vec<u32>,
    /// Its command line.
    pub argv: Vec<String>,
    /// Its environment, sorted.
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub cwd: String,
    /// The host name.
    pub hostname: String,
    /// The descriptors that it was born with, sorted.
    pub descriptors: Vec<u32>,
    /// When its first instruction ran, by the monotonic clock.
    pub first_ns: u64,
    /// The monotonic clock now.
    pub now_ns: u64,
}

/// Metadata of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Names that the file has.
    pub links: u64,
    /// Inode number.
    pub inode: u64,
    /// Device numbers of a device node, major and minor.
    pub device: (u32, u32),
    /// Seconds since 1970.
    pub mtime: i64,
}

/// What a program did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it printed, invalid UTF-8 replaced.
    pub stdout: String,
    /// What it complained about, likewise.
    pub stderr: String,
}

/// How long a server took to answer: what `probe ask` prints. Times are in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// How many answers there were, all of them right.
    pub answers: usize,
    /// As many took longer as did not.
    pub median_us: u64,
    /// One in ten took longer.
    pub p90_us: u64,
    /// None took longer.
    pub longest_us: u64,
}

/// How the whole machine is: what `probe census` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Census {
    /// Processes that have ended and that nobody has reaped for a second.
    pub zombies: Vec<i32>,
    /// Bytes of memory of PID 1's own: `Anonymous` of its `smaps_rollup`.
    pub init_memory: u64,
    /// What PID 1's descriptors lead to, sorted; of pipes and sockets the kind.
    pub init_descriptors: Vec<String>,
    /// The cgroups of services, sorted.
    pub cgroups: Vec<String>,
    /// PID 1's mounts.
    pub mounts: Vec<String>,
    /// How many namespaces of each kind somebody is in.
    pub namespaces: BTreeMap<String, usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_reads_what_the_other_writes() {
        let request = Request::Signal { pid: 7, signal: 15 };
        let line = serde_json::to_string(&request).unwrap();
        assert_eq!(line, r#"{"signal":{"pid":7,"signal":15}}"#);
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        let message = Message::Answer(Answer::Done);
        let line = serde_json::to_string(&message).unwrap();
        assert_eq!(line, r#"{"answer":"done"}"#);
        assert_eq!(serde_json::from_str::<Message>(&line).unwrap(), message);
    }
}
