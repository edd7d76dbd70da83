//! What the program says on the way, on stderr: results go to stdout.

use std::fmt::Display;
use std::io::Write;

/// Says a line. A reader that has gone away, such as `2>&1 | head`, must not end a build or orphan a machine.
pub fn say(line: impl Display) {
    drop(writeln!(std::io::stderr(), "coracle: {line}"));
}
