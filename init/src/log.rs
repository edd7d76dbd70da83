//! What the machine says on its console: each line with the name of whoever said it.
//!
//! Nothing here can block. What the console does not take at once waits in a bounded buffer; what does not fit in
//! there is dropped, and the count of it said later.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::libc;

use crate::clock;

const CONSOLE: &str = "/dev/console";
/// How much waits for a console that is slower than the machine.
const PENDING_MAX: usize = 64 * 1024;
/// The name that init's own lines have.
const OWN_NAME: &str = "coracle";

/// The console, or nothing where the machine has none.
pub struct Console {
    device: Option<File>,
    pending: VecDeque<u8>,
    /// Lines that found no room since the last one that did.
    dropped: u64,
    /// How wide the column of names is.
    width: usize,
    /// The line under construction, kept for its allocation.
    line: Vec<u8>,
}

impl Console {
    /// Opens the machine's console. One that is absent or has no driver behind it is not missed.
    pub fn open() -> Self {
        let device =
            OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(CONSOLE).ok();
        Self {
            device,
            pending: VecDeque::with_capacity(PENDING_MAX),
            dropped: 0,
            width: OWN_NAME.len(),
            line: Vec::with_capacity(8 * 1024),
        }
    }

    /// Makes room for names of this length.
    pub fn widen(&mut self, width: usize) {
        self.width = self.width.max(width);
    }

    /// Says something in init's own name.
    pub fn say(&mut self, text: fmt::Arguments<'_>) {
        self.line(OWN_NAME, text);
    }

    /// Says something in the name of `who`. The text has no control characters: see `supervisor::output`.
    pub fn line(&mut self, who: &str, text: impl fmt::Display) {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        let width = self.width;
        // Writing to a vector cannot fail; a Display that does leaves a shorter line.
        let complete = writeln!(line, "{who:>width$} | {text}").is_ok();
        if !complete {
            line.push(b'\n');
        }
        self.queue(&line);
        self.line = line;
        self.flush();
    }

    fn queue(&mut self, line: &[u8]) {
        // The message about dropped lines needs room as well.
        const NOTICE_MAX: usize = 128;
        if self.device.is_none() {
            return;
        }
        if self.pending.len() + line.len() + NOTICE_MAX > PENDING_MAX {
            self.dropped += 1;
            return;
        }
        if self.dropped > 0 {
            let notice = format!(
                "{OWN_NAME:>1$} | the console is too slow: {0} lines dropped\n",
                self.dropped, self.width
            );
            self.pending.extend(notice.as_bytes());
            self.dropped = 0;
        }
        self.pending.extend(line);
    }

    /// Gives the console what it takes without blocking.
    pub fn flush(&mut self) {
        let Some(device) = &mut self.device else { return };
        while !self.pending.is_empty() {
            let (front, _) = self.pending.as_slices();
            match device.write(front) {
                Ok(0) => break,
                Ok(written) => drop(self.pending.drain(..written)),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // A console that was taken away (EIO after a hang-up) has no reader either.
                Err(_) => {
                    self.pending.clear();
                    break;
                }
            }
        }
    }

    /// Waits until everything is said, but no longer than `patience`.
    pub fn drain(&mut self, patience: Duration) {
        let deadline = clock::now() + patience;
        self.flush();
        while self.is_pending() && clock::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
            self.flush();
        }
    }

    /// Whether something waits for the console to become writable.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The console's descriptor, to wait for.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.device.as_ref().map(AsFd::as_fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full_pipe() -> (File, File) {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
        let mut write = File::from(write);
        while write.write(&[b'.'; 4096]).is_ok() {}
        (File::from(read), write)
    }

    fn console(device: Option<File>) -> Console {
        Console { device, pending: VecDeque::new(), dropped: 0, width: 7, line: Vec::new() }
    }

    #[test]
    fn a_console_that_never_reads_costs_lines_and_not_time() {
        let (mut read, write) = full_pipe();
        let mut console = console(Some(write));
        for _ in 0..2000 {
            console.line("web", "x".repeat(100));
        }
        assert!(console.pending.len() <= PENDING_MAX);
        assert!(console.dropped > 0);
        let mut sink = vec![0; 1 << 20];
        loop {
            use std::io::Read;
            match read.read(&mut sink) {
                Ok(n) if n > 0 => console.flush(),
                _ => break,
            }
        }
        console.line("web", "y");
        let said = read_all(&mut read);
        assert!(said.starts_with("coracle | the console is too slow: "), "{said}");
        assert!(said.ends_with("    web | y\n"), "{said}");
    }

    fn read_all(read: &mut File) -> String {
        use std::io::Read;
        let mut buffer = vec![0; 1 << 20];
        let length = read.read(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_machine_without_a_console_says_nothing_and_keeps_nothing() {
        let mut console = console(None);
        console.say(format_args!("hello"));
        assert!(!console.is_pending());
    }
}
