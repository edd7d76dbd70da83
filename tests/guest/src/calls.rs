//! System calls by number, made in processes of their own, because some of them end theirs.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use probe::Outcome;

/// Makes each call by `program`, whose exit code is the error number.
pub fn make(program: &str, calls: &[[u64; 7]]) -> io::Result<Vec<Outcome>> {
    calls.iter().map(|call| make_one(program, call)).collect()
}

fn make_one(program: &str, call: &[u64; 7]) -> io::Result<Outcome> {
    let words: Vec<u8> = call.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(&words)?;
    }
    let status = child.wait()?;
    Ok(match (status.code(), status.signal()) {
        (Some(0), _) => Outcome::Done,
        (Some(errno), _) => Outcome::Failed(errno),
        (None, signal) => Outcome::Killed(signal.unwrap_or_default()),
    })
}
