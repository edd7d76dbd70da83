//! What writes to its standard output in ways that are hard on whoever reads it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::net::sockopt::set_socket_send_buffer_size;

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

/// Pours lines of 100 bytes, so many pieces of so many bytes, to its standard output or into a program that does what
/// cat does, and tells a terminal how long that took.
pub fn pour(pieces: &str, size: &str, terminal: &str, to_cat: bool) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot pour: {error}");
    let (pieces, size) =
        (number(pieces)?, usize::try_from(number(size)?).map_err(|error| error.to_string())?);
    let line = format!("{:<width$}\n", "a line", width = FLOOD_LINE - 1);
    let piece: Vec<u8> = line.bytes().cycle().take(size).collect();
    let begun = Instant::now();
    if to_cat {
        let cat = Command::new("/proc/self/exe").args(["talk", "cat"]).stdin(Stdio::piped()).spawn();
        let mut cat = cat.map_err(failed)?;
        if let Some(mut input) = cat.stdin.take() {
            (0..pieces).try_for_each(|_| input.write_all(&piece)).map_err(failed)?;
        }
        cat.wait().map_err(failed)?;
    } else {
        let mut output = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?);
        // A socket would else take megabytes before anybody reads. A pipe is none, and holds so much.
        let (Ok(()) | Err(_)) = set_socket_send_buffer_size(&output, 32 << 10);
        (0..pieces).try_for_each(|_| output.write_all(&piece)).map_err(failed)?;
    }
    let took = begun.elapsed().as_nanos();
    let mut terminal = OpenOptions::new().write(true).open(terminal).map_err(failed)?;
    terminal.write_all(format!("POUR_NS={took}\n").as_bytes()).map_err(failed)
}

/// Reads its standard input to the end, as cat does for `/dev/null`.
pub fn cat() -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot read: {error}");
    let mut output = OpenOptions::new().write(true).open("/dev/null").map_err(failed)?;
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    let mut buffer = vec![0; 128 << 10];
    loop {
        match input.read(&mut buffer).map_err(failed)? {
            0 => return Ok(()),
            length => output.write_all(buffer.get(..length).unwrap_or_default()).map_err(failed)?,
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|error| format!("`{text}` is no number: {error}"))
}
