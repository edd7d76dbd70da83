//! What takes all that there is.

use std::convert::Infallible;
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::process::{Command, ExitCode, Stdio};

/// A piece of memory or of a file, larger than a page of any size that is likely.
const PIECE: usize = 256 << 10;

/// Starts sleepers until that fails, and says how many there are and why there are no more.
pub fn fork() -> Result<(), String> {
    let mut count = 0;
    loop {
        let sleeper = Command::new("/proc/self/exe")
            .args(["sleep", "3600000"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        match sleeper {
            Ok(_) => count += 1,
            Err(error) => {
                println!("{count} children, and no more: {error}");
                return Ok(());
            }
        }
    }
}

/// Starts processes that do the same, whether that succeeds or not.
pub fn fork_without_end() -> Result<Infallible, String> {
    loop {
        // Nobody is reaped: whoever ends makes no room.
        let (Ok(_) | Err(_)) = Command::new("/proc/self/exe").args(["fork-bomb", "without-end"]).spawn();
    }
}

/// Starts processes that each leave one behind, and reaps none of them.
pub fn neglect(count: usize) -> Result<(), String> {
    for _ in 0..count {
        Command::new("/proc/self/exe")
            .args(["orphan", "0"])
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start a process: {error}"))?;
    }
    Ok(())
}

/// Writes to ever more memory.
pub fn allocate() -> Result<ExitCode, String> {
    println!("taking memory");
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    loop {
        pieces.push(vec![1; PIECE]);
        black_box(&pieces);
    }
}

/// Writes a file until that fails, and says how long it is and why it is no longer.
pub fn fill(file: &str) -> Result<ExitCode, String> {
    println!("filling a file");
    let mut open = File::create(file).map_err(|error| format!("cannot make `{file}`: {error}"))?;
    let mut size = 0;
    loop {
        if let Err(error) = open.write_all(&vec![1; PIECE]) {
            println!("{} KiB, and no more: {error}", size >> 10);
            return Ok(ExitCode::SUCCESS);
        }
        size += PIECE;
    }
}
