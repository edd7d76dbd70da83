//! What the machine says on its console: each line with the name of whoever said it.
//!
//! Nothing here can block. What the console does not take at once waits in a bounded buffer; what does not
//! fit in there is dropped, and the count of it said later.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use manifest::ConsoleFormat;
use nix::libc;

use super::feed::Voice;
use super::json::Object;
use super::ring::Ring;
use super::timestamp::Timestamp;
use crate::clock;

const CONSOLE: &str = "/dev/console";
/// How much waits for a console that is slower than the machine.
const PENDING_MAX: usize = 64 * 1024;
/// How much of that services can fill: the rest is for what init has to say about them.
const SERVICES_MAX: usize = PENDING_MAX / 4 * 3;
/// A service whose line found no room is not heard until so little waits: the others get the room instead,
/// and a few long gaps are easier to read than many short ones.
const RESUME_AT: usize = PENDING_MAX / 8;
/// What one call gives the console at most, about what a terminal's own buffer holds: writing to a slow line
/// costs time even where it does not block.
const WRITE_MAX: usize = 4096;
/// What is kept for the line under construction: a service's longest one takes so much at most.
const LINE_ROOM: usize = 8 * 1024;
/// How much of its own lines init keeps.
const SAID_MAX: usize = 64 * 1024;
/// The name that init's own lines have.
pub const OWN_NAME: &str = "coracle";
/// What begins the names of services on a terminal, in turns: colours but red, which stands for errors elsewhere.
const COLOURS: [&str; 10] = ["36", "33", "32", "35", "34", "96", "93", "92", "95", "94"];
/// What begins init's own name: it is bold.
const OWN_COLOUR: &str = "1";

/// Who says a line.
#[derive(Debug, Clone, Copy)]
pub struct Speaker<'a> {
    /// The service's name.
    pub name: &'a str,
    /// Its number, which decides about its colour.
    pub number: usize,
}

/// The console, or nothing where the machine has none.
pub struct Console {
    device: Option<File>,
    pending: VecDeque<u8>,
    /// Lines that found no room since the last one that did.
    dropped: u64,
    /// Whose line was the last of those.
    loudest: String,
    /// How wide the column of names is.
    width: usize,
    format: ConsoleFormat,
    /// Whether names have colours.
    is_painted: bool,
    /// The line under construction, kept for its allocation.
    line: Vec<u8>,
    /// What init has said lately, for those who pass it on.
    said: Ring,
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
            loudest: String::new(),
            width: OWN_NAME.len(),
            format: ConsoleFormat::Text,
            is_painted: false,
            line: Vec::with_capacity(LINE_ROOM),
            said: kept(),
        }
    }

    /// Makes room for names of this length.
    pub fn widen(&mut self, width: usize) {
        self.width = self.width.max(width);
    }

    /// Shows lines in another way from now on.
    pub fn show_as(&mut self, format: ConsoleFormat) {
        self.format = format;
    }

    /// Whether nobody would see a line.
    pub fn is_silent(&self) -> bool {
        self.device.is_none() || self.format == ConsoleFormat::None
    }

    /// Gives names colours from now on, for somebody who looks at them on a terminal.
    pub fn paint(&mut self) {
        self.is_painted = true;
    }

    /// Whether somebody looks at it on a terminal.
    pub fn is_painted(&self) -> bool {
        self.is_painted
    }

    /// Says something in init's own name, at once if the console takes it.
    pub fn say(&mut self, text: fmt::Arguments<'_>) {
        self.said.append(clock::now(), format!("{text}\n").as_bytes());
        self.queue(OWN_NAME, OWN_COLOUR, &text, PENDING_MAX);
        self.flush();
    }

    /// Init's own lines.
    pub fn voice(&self) -> Voice<'_> {
        Voice { name: OWN_NAME, ring: &self.said }
    }

    /// Says something in the name of a service, with the next [`flush`](Self::flush): a flood of
    /// lines is not to be a flood of system calls. The text has no control characters: see
    /// [`Line`](super::Line).
    pub fn line(&mut self, speaker: Speaker<'_>, text: impl fmt::Display) {
        if self.pending.len() <= RESUME_AT {
            self.loudest.clear();
        }
        if speaker.name == self.loudest {
            self.dropped += 1;
            return;
        }
        let colour = COLOURS.get(speaker.number % COLOURS.len()).copied().unwrap_or_default();
        self.queue(speaker.name, colour, &text, SERVICES_MAX);
    }

    /// Adds a line if no more than `room` is waiting then.
    fn queue(&mut self, who: &str, colour: &str, text: &dyn fmt::Display, room: usize) {
        if self.is_silent() {
            return;
        }
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        if self.dropped > 0 {
            let notice = format_args!("the console is too slow: {} lines dropped", self.dropped);
            self.compose(&mut line, OWN_NAME, OWN_COLOUR, &notice);
        }
        self.compose(&mut line, who, colour, text);
        if self.pending.len() + line.len() > room {
            self.dropped += 1;
            self.loudest.clear();
            self.loudest.push_str(who);
        } else {
            self.dropped = 0;
            self.pending.extend(&line);
        }
        line.clear();
        // One line at boot, of all services, is longer than any that follows.
        line.shrink_to(LINE_ROOM);
        self.line = line;
    }

    /// Adds a line as it is shown to `line`.
    fn compose(&self, line: &mut Vec<u8>, who: &str, colour: &str, text: &dyn fmt::Display) {
        let width = self.width;
        let written = match self.format {
            ConsoleFormat::Json => {
                writeln!(line, "{}", Object { time: Timestamp(clock::of_day()), name: who, text })
            }
            _ if self.is_painted => writeln!(line, "\x1b[{colour}m{who:>width$} |\x1b[0m {text}"),
            _ => writeln!(line, "{who:>width$} | {text}"),
        };
        // Writing to a vector cannot fail; a Display that does leaves a shorter line.
        if written.is_err() {
            line.push(b'\n');
        }
    }

    /// Gives the console one piece, if it takes any without blocking.
    pub fn flush(&mut self) {
        let Some(device) = &mut self.device else { return };
        let (front, _) = self.pending.as_slices();
        if front.is_empty() {
            return;
        }
        match device.write(front.get(..WRITE_MAX).unwrap_or(front)) {
            Ok(written) => drop(self.pending.drain(..written)),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            // A console that was taken away (EIO after a hang-up) has no reader either.
            Err(_) => self.pending.clear(),
        }
    }

    /// Waits until everything is said, but no longer than `patience`.
    pub fn drain(&mut self, patience: Duration) {
        let deadline = clock::now() + patience;
        while self.is_pending() && clock::now() < deadline {
            let before = self.pending.len();
            self.flush();
            if self.pending.len() == before {
                std::thread::sleep(Duration::from_millis(1));
            }
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

/// Where init's own lines are kept.
fn kept() -> Ring {
    let mut ring = Ring::new(SAID_MAX);
    ring.begin_run(1);
    ring
}

#[cfg(test)]
mod tests {
    use super::super::Line;
    use super::*;

    fn full_pipe() -> (File, File) {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
        let mut write = File::from(write);
        while write.write(&[b'.'; 4096]).is_ok() {}
        (File::from(read), write)
    }

    fn console(device: Option<File>) -> Console {
        Console {
            device,
            pending: VecDeque::new(),
            dropped: 0,
            loudest: String::new(),
            width: 7,
            format: ConsoleFormat::Text,
            is_painted: false,
            line: Vec::new(),
            said: kept(),
        }
    }

    fn speaker(name: &str) -> Speaker<'_> {
        Speaker { name, number: 0 }
    }

    #[test]
    fn a_console_that_never_reads_costs_lines_and_not_time() {
        let (mut read, write) = full_pipe();
        let mut console = console(Some(write));
        for _ in 0..2000 {
            console.line(speaker("web"), "x".repeat(100));
        }
        assert!(console.pending.len() <= SERVICES_MAX);
        assert!(console.dropped > 0);
        console.say(format_args!("init has room"));
        assert_eq!(console.dropped, 0);
        let mut said = read_all(&mut read);
        console.flush();
        console.line(speaker("web"), "z");
        console.line(speaker("db"), "heard");
        while console.is_pending() {
            said.push_str(&read_all(&mut read));
            console.flush();
        }
        said.push_str(&read_all(&mut read));
        let end =
            "coracle | init has room\ncoracle | the console is too slow: 1 lines dropped\n     db | heard\n";
        assert!(said.ends_with(end), "{said}");
        console.line(speaker("web"), "y");
        console.flush();
        assert_eq!(read_all(&mut read), "    web | y\n");
    }

    fn read_all(read: &mut File) -> String {
        use std::io::Read;
        let mut buffer = vec![0; 1 << 20];
        let length = read.read(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn names_have_colours_on_a_terminal_and_what_is_said_has_none() {
        let (mut read, write) = full_pipe();
        drop(read_all(&mut read));
        let mut console = console(Some(write));
        console.paint();
        for number in [0, 1, COLOURS.len()] {
            console.line(Speaker { name: "web", number }, Line(b"\x1b[0m"));
        }
        console.say(format_args!("hello"));
        let web = |colour: &str| format!("\x1b[{colour}m    web |\x1b[0m \\x1b[0m\n");
        let own = "\x1b[1mcoracle |\x1b[0m hello\n";
        assert_eq!(read_all(&mut read), web("36") + &web("33") + &web("36") + own);
    }

    #[test]
    fn a_program_reads_objects_and_nothing_else() {
        let (mut read, write) = full_pipe();
        drop(read_all(&mut read));
        let mut console = console(Some(write));
        console.paint();
        console.show_as(ConsoleFormat::Json);
        console.dropped = 3;
        console.line(speaker("web"), Line(b"\xff\"\x1b[0m"));
        console.say(format_args!("hello"));
        let said = read_all(&mut read);
        let objects: Vec<serde_json::Value> =
            said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let lines: Vec<_> = objects.iter().map(|object| (&object["service"], &object["text"])).collect();
        let expected = [
            ("coracle", "the console is too slow: 3 lines dropped"),
            ("web", "\\xff\"\\x1b[0m"),
            ("coracle", "hello"),
        ];
        let expected = expected.map(|(name, text)| (name.into(), text.into()));
        assert!(lines.into_iter().eq(expected.iter().map(|(name, text)| (name, text))), "{said}");
    }

    #[test]
    fn a_console_that_is_not_wanted_is_told_nothing() {
        let (mut read, write) = full_pipe();
        drop(read_all(&mut read));
        let mut console = console(Some(write));
        console.show_as(ConsoleFormat::None);
        console.line(speaker("web"), "x");
        console.say(format_args!("hello"));
        assert!(!console.is_pending());
        console.show_as(ConsoleFormat::Text);
        console.say(format_args!("at last"));
        assert_eq!(read_all(&mut read), "coracle | at last\n");
    }

    #[test]
    fn a_machine_without_a_console_says_nothing_and_keeps_nothing() {
        let mut console = console(None);
        console.say(format_args!("hello"));
        assert!(!console.is_pending());
    }
}
