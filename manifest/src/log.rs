//! What becomes of what services and init say.

use serde::{Deserialize, Serialize};

/// What becomes of it beside the memory that each service has for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// How it appears on the console.
    pub console: ConsoleFormat,
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

/// What becomes of what a service writes, beside the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logging {
    /// How many bytes of it are kept in memory, the last ones.
    pub size: u64,
}
