//! Programs of the host that the builder runs: apt-get for kernel packages, QEMU for `coracle run`.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};

/// A program, and the Debian package that brings it.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// Looked for in `PATH`.
    pub program: &'static str,
    /// Named when the program is not there.
    pub package: &'static str,
}

impl Tool {
    /// The failure of starting the program.
    pub fn cannot_start(&self, cause: &std::io::Error) -> Error {
        let error = Error::new(format!("cannot run `{}`: {cause}", self.program));
        if cause.kind() == std::io::ErrorKind::NotFound {
            error.hint(format!("install the Debian package `{}`", self.package))
        } else {
            error
        }
    }

    /// Runs the program to its end in `folder` and returns what it prints, or what it says when it fails.
    pub fn output<S: AsRef<OsStr>>(&self, folder: &std::path::Path, args: &[S]) -> Result<Vec<u8>> {
        let mut command = Command::new(self.program);
        command.args(args).current_dir(folder).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
        let Output { status, stdout, stderr } =
            command.output().map_err(|cause| self.cannot_start(&cause))?;
        if status.success() {
            return Ok(stdout);
        }
        let said = String::from_utf8_lossy(&stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        let words: Vec<String> = args.iter().map(|arg| arg.as_ref().to_string_lossy().into_owned()).collect();
        Err(Error::new(format!("`{} {}` failed ({status}): {last}", self.program, words.join(" "))))
    }
}
