//! Tells whoever runs the machine that it is ready, or how it ended. Most machines have nobody to tell.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use manifest::report::{PORT, Report};
use nix::libc;

use crate::error::{Error, Result};
use crate::ports;

/// Writes one line to the report port. Nothing happens where there is none; a host that does not read is an
/// error, never a wait.
pub fn send(report: &Report) -> Result<()> {
    let Some(node) = ports::node(PORT) else { return Ok(()) };
    let failed = |error: std::io::Error| Error::io("report to", PORT, &error);
    let mut line = serde_json::to_vec(report).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    let mut port =
        OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(node).map_err(failed)?;
    port.write_all(&line).map_err(failed)
}
