//! What becomes of what services and init say.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What becomes of it beside the memory that each service has for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// How it appears on the console.
    pub console: ConsoleFormat,
    /// Where it is sent to, if it is.
    pub syslog: Option<Syslog>,
    /// In which files it is written, if it is.
    pub files: Option<Files>,
}

/// How lines appear on the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsoleFormat {
    /// For people: the name, and the line.
    Text,
    /// For programs: an object a line.
    Json,
    /// Not at all.
    None,
}

/// A syslog server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Syslog {
    /// How messages get there.
    pub transport: Transport,
    /// Where it is.
    pub address: SocketAddr,
}

/// `udp://10.0.0.2:514`
impl fmt::Display for Syslog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        write!(f, "{transport}://{}", self.address)
    }
}

/// How syslog messages are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// A datagram each (RFC 5426).
    Udp,
    /// One after the other, each with its length before it (RFC 6587).
    Tcp,
}

/// Files of the machine, `NAME.log` for each service and `coracle.log` for init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Where they are: absolute, and normalised.
    pub folder: String,
    /// How many bytes a file has at most: then it becomes `NAME.log.1`, and so on.
    pub max_size: u64,
    /// How many there are of each service at most, with the one that is written to.
    pub max_files: u32,
}

/// What becomes of what a service writes, beside the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logging {
    /// How many bytes of it are kept in memory, the last ones.
    pub size: u64,
}
