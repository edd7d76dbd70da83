//! A client's line to the machine: bytes in and out, cut into lines, and never more of them than fit.
//!
//! Nothing here blocks. A client that does not read is not read from any more once enough waits for it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use manifest::control::{Answer, REQUEST_MAX, Response};
use rustix::io::{Errno, read};
use rustix::net::{SendFlags, send};

/// No answer is begun while so much waits to be sent: with the one underway it is what a connection can take.
const OUTPUT_ENOUGH: usize = 32 * 1024;
/// What one turn reads at most.
const READ_MAX: usize = 16 * 1024;

/// One connection.
pub struct Connection {
    stream: File,
    /// Whether reading and writing may succeed: until they would block.
    readable: bool,
    writable: bool,
    /// What was read and not yet taken as lines.
    input: Vec<u8>,
    /// The rest of a line that was too long is thrown away.
    is_skipping: bool,
    output: VecDeque<u8>,
    /// Nothing more comes.
    has_ended: bool,
    /// Nothing more can be sent.
    is_broken: bool,
}

/// A line from a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// What it says.
    Text(Vec<u8>),
    /// It was longer than any may be, and is lost.
    TooLong,
}

impl Connection {
    /// Takes a stream that does not block.
    pub fn new(stream: OwnedFd) -> Self {
        Self {
            stream: stream.into(),
            readable: true,
            writable: true,
            input: Vec::new(),
            is_skipping: false,
            output: VecDeque::new(),
            has_ended: false,
            is_broken: false,
        }
    }

    /// To wait for.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Takes note of an event.
    pub fn wake(&mut self) {
        (self.readable, self.writable) = (true, true);
    }

    /// Forgets everything: the other side is gone, and another may come.
    pub fn reset(&mut self) {
        self.input.clear();
        self.output.clear();
        (self.is_skipping, self.has_ended, self.is_broken) = (false, false, false);
    }

    /// Whether nothing more comes.
    pub fn has_ended(&self) -> bool {
        self.has_ended && !self.input.contains(&b'\n')
    }

    /// Whether nothing more can be sent.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Whether everything is sent.
    pub fn is_flushed(&self) -> bool {
        self.output.is_empty()
    }

    /// Whether there is room for an answer.
    pub fn has_room(&self) -> bool {
        self.output.len() < OUTPUT_ENOUGH && !self.is_broken
    }

    /// Reads once, unless there is enough to do. Returns whether anything came.
    pub fn read(&mut self, buffer: &mut [MaybeUninit<u8>]) -> bool {
        if !self.readable || !self.has_room() || self.input.len() >= READ_MAX && self.input.contains(&b'\n') {
            return false;
        }
        let length = buffer.len().min(READ_MAX);
        match read(&self.stream, buffer.get_mut(..length).unwrap_or_default()) {
            Ok(([], _)) => {
                (self.readable, self.has_ended) = (false, true);
                self.is_broken |= is_closed(&self.stream);
            }
            Ok((bytes, _)) => {
                self.take(bytes);
                return true;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => self.readable = false,
            Err(_) => (self.readable, self.has_ended, self.is_broken) = (false, true, true),
        }
        false
    }

    fn take(&mut self, mut bytes: &[u8]) {
        if self.is_skipping {
            let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else { return };
            bytes = bytes.get(end + 1..).unwrap_or_default();
            self.is_skipping = false;
        }
        self.input.extend_from_slice(bytes);
    }

    /// The next line that has come whole. Empty ones are passed over.
    pub fn next_line(&mut self) -> Option<Line> {
        loop {
            let Some(end) = self.input.iter().position(|&byte| byte == b'\n') else {
                if self.input.len() <= REQUEST_MAX {
                    return None;
                }
                self.input.clear();
                self.is_skipping = true;
                return Some(Line::TooLong);
            };
            let mut line: Vec<u8> = self.input.drain(..=end).collect();
            line.pop();
            if line.len() > REQUEST_MAX {
                return Some(Line::TooLong);
            }
            if !line.trim_ascii().is_empty() {
                return Some(Line::Text(line));
            }
        }
    }

    /// Queues a part of an answer. Whoever calls has asked for room.
    pub fn send(&mut self, id: u64, answer: Answer) {
        match serde_json::to_vec(&Response { id, answer }) {
            Ok(line) => {
                self.output.extend(line);
                self.output.push_back(b'\n');
            }
            // Only a map with strange keys could fail, and there is none.
            Err(_) => self.is_broken = true,
        }
    }

    /// Sends once. Returns whether anything went.
    pub fn flush(&mut self) -> bool {
        let (front, _) = self.output.as_slices();
        if front.is_empty() || !self.writable {
            return false;
        }
        match self.stream.write(front) {
            Ok(written) => {
                self.output.drain(..written);
                return written > 0;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
            Err(_) => {
                self.is_broken = true;
                self.output.clear();
            }
        }
        false
    }
}

/// Whether a socket's other side is gone, and does not just say nothing more. epoll tells that of unix sockets, and not of
/// a vsock: there it is an error to send, even nothing. A port is no socket, and has an event of its own.
fn is_closed(stream: &File) -> bool {
    send(stream, &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) == Err(Errno::PIPE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn pair() -> (UnixStream, Connection) {
        let (client, machine) = UnixStream::pair().unwrap();
        machine.set_nonblocking(true).unwrap();
        (client, Connection::new(machine.into()))
    }

    fn lines(connection: &mut Connection) -> Vec<Line> {
        let mut buffer = Box::new_uninit_slice(READ_MAX);
        let mut lines = vec![];
        connection.wake();
        while connection.read(&mut buffer) {
            lines.extend(std::iter::from_fn(|| connection.next_line()));
        }
        lines
    }

    #[test]
    fn lines_come_whole_however_they_were_sent() {
        let (mut client, mut connection) = pair();
        client.write_all(b"one\n\n  \ntw").unwrap();
        assert_eq!(lines(&mut connection), [Line::Text(b"one".to_vec())]);
        client.write_all(b"o\nthree").unwrap();
        assert_eq!(lines(&mut connection), [Line::Text(b"two".to_vec())]);
        drop(client);
        assert_eq!(lines(&mut connection), []);
        assert!(connection.has_ended());
    }

    #[test]
    fn a_line_that_is_too_long_is_lost_alone() {
        let (mut client, mut connection) = pair();
        let sender = std::thread::spawn(move || {
            client.write_all(&vec![b'x'; 10 * REQUEST_MAX]).unwrap();
            client.write_all(b"\nnext\n").unwrap();
        });
        let mut all = vec![];
        while all.len() < 2 {
            all.extend(lines(&mut connection));
            assert!(connection.input.len() <= REQUEST_MAX + READ_MAX);
        }
        sender.join().unwrap();
        assert_eq!(all, [Line::TooLong, Line::Text(b"next".to_vec())]);
    }

    #[test]
    fn a_client_that_does_not_read_is_not_read_from() {
        let (mut client, mut connection) = pair();
        client.write_all(b"request\n").unwrap();
        while connection.has_room() {
            connection.send(1, Answer::Done);
        }
        assert!(lines(&mut connection).is_empty());
        let mut buffer = vec![0; 1 << 20];
        while !connection.is_flushed() {
            connection.wake();
            connection.flush();
            let length = client.read(&mut buffer).unwrap();
            assert!(length > 0);
        }
        assert_eq!(lines(&mut connection), [Line::Text(b"request".to_vec())]);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_cut_into_lines_and_stays_bounded(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..8),
        ) {
            let (mut client, mut connection) = pair();
            let mut count = 0;
            for piece in &pieces {
                client.write_all(piece).unwrap();
                count += lines(&mut connection).len();
            }
            let all = pieces.concat();
            let mut whole: Vec<&[u8]> = all.split(|&byte| byte == b'\n').collect();
            whole.pop();
            prop_assert_eq!(count, whole.iter().filter(|line| !line.trim_ascii().is_empty()).count());
        }
    }
}
