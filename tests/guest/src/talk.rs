//! What writes to its standard output in ways that are hard on whoever reads it.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;

/// How many bytes a line of a flood has, with its end.
const FLOOD_LINE: usize = 100;

/// Writes numbered lines, with a pause after each.
pub fn lines(count: &str, milliseconds: &str) -> Result<(), String> {
    let pause = Duration::from_millis(number(milliseconds)?);
    for line in 0..number(count)? {
        println!("line {line}");
        thread::sleep(pause);
    }
    Ok(())
}

/// Writes numbered lines of 100 bytes as fast as it can.
pub fn flood(count: &str) -> Result<(), String> {
    const AT_ONCE: u64 = 600;
    let (count, mut first) = (number(count)?, 0);
    let mut output = io::stdout().lock();
    while first < count {
        let last = count.min(first + AT_ONCE);
        let piece: String =
            (first..last).map(|line| format!("{line:<width$}\n", width = FLOOD_LINE - 1)).collect();
        output.write_all(piece.as_bytes()).map_err(|error| format!("cannot write: {error}"))?;
        first = last;
    }
    Ok(())
}

/// Lets many processes write numbered lines at the same time, and waits for them.
pub fn many(processes: &str, count: &str) -> Result<(), String> {
    let mut children = Vec::new();
    for process in 0..number(processes)? {
        let child = Command::new("/proc/self/exe")
            .args(["talk", "one-of-many", &process.to_string(), count])
            .stdin(Stdio::null())
            .spawn();
        children.push(child.map_err(|error| format!("cannot start a process: {error}"))?);
    }
    for mut child in children {
        child.wait().map_err(|error| format!("cannot wait for a process: {error}"))?;
    }
    Ok(())
}

/// One of them. Each line is one write, which a pipe keeps whole.
pub fn one_of_many(process: &str, count: &str) -> Result<(), String> {
    for line in 0..number(count)? {
        let line = format!("process {process} line {line}\n");
        io::stdout().write_all(line.as_bytes()).map_err(|error| format!("cannot write: {error}"))?;
    }
    Ok(())
}

/// Writes what is no line of text: pieces of one, bytes of all kinds, escapes, a mebibyte without an end; and reads what
/// is for others to read.
pub fn oddities() -> Result<(), String> {
    println!("a line that it takes away again, where it can");
    // Its own pipe, which it shares with whoever is at the other end.
    let taken = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open("/proc/self/fd/1");
    match taken.map(|mut pipe| (0..1000).filter(|_| pipe.read(&mut [0; 64]).is_ok()).count()) {
        Ok(_) => println!("has taken what it could of its own lines"),
        Err(error) => println!("cannot read what it writes: {error}"),
    }
    let write = |bytes: &[u8]| io::stdout().write_all(bytes).and_then(|()| io::stdout().flush());
    let all = || -> io::Result<()> {
        for piece in ["a line ", "in three ", "pieces\n"] {
            write(piece.as_bytes())?;
            thread::sleep(Duration::from_millis(50));
        }
        let every_byte: Vec<u8> = (0..=u8::MAX).filter(|&byte| byte != b'\n').collect();
        write(&every_byte)?;
        write(b"\n\x1b[2J\x1b]0;title\x07\x1b[31mred\n\"quoted\" \\ \xc3\xa9\xe2\x82\n\n")?;
        write(&[b'x'; 1 << 20])?;
        write(b"\nafter a mebibyte\n")
    };
    all().map_err(|error| format!("cannot write: {error}"))?;
    print!("no end");
    io::stdout().flush().map_err(|error| format!("cannot write: {error}"))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|error| format!("`{text}` is no number: {error}"))
}
