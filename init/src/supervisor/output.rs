//! What a service writes: read in large pieces, said line by line, and never trusted.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use rustix::io::read;

use crate::log::Line;
use crate::log::ring::LINE_MAX;

/// What one reading takes at most: what a pipe holds, so that whoever writes in bulk costs few turns of the loop.
pub const READ_SIZE: usize = 64 * 1024;

/// The pipe behind a service's standard output and error. It outlives restarts: the last words of one run are
/// read even when the next has begun.
pub struct Output {
    reader: OwnedFd,
    writer: OwnedFd,
    /// The beginning of a line whose end has not come yet; at most [`LINE_MAX`] bytes.
    unfinished: Vec<u8>,
}

impl Output {
    /// Makes the pipe. Only reading from it never blocks.
    pub fn new() -> nix::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { reader, writer, unfinished: Vec::new() })
    }

    /// The end that the service writes to.
    pub fn writer(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }

    /// The end to wait for.
    pub fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Reads once, and returns what there was: nothing as well where that failed, since it is tried again while there is.
    pub fn read<'a>(&self, buffer: &'a mut [MaybeUninit<u8>]) -> &'a [u8] {
        read(&self.reader, buffer).map_or(&[], |(bytes, _)| bytes)
    }

    /// Passes on every line that `bytes`, which were just read, complete.
    pub fn complete(&mut self, bytes: &[u8], say: &mut dyn FnMut(Line<'_>)) {
        split(&mut self.unfinished, bytes, say);
    }

    /// Says the line that the service will not finish any more.
    pub fn finish(&mut self, say: &mut dyn FnMut(Line<'_>)) {
        if !self.unfinished.is_empty() {
            say(Line(&self.unfinished));
            self.unfinished.clear();
        }
    }
}

/// Cuts `bytes` into lines, the first of which continues `unfinished`.
fn split(unfinished: &mut Vec<u8>, bytes: &[u8], say: &mut dyn FnMut(Line<'_>)) {
    for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
        let (text, complete) = match piece.strip_suffix(b"\n") {
            Some(text) => (text, true),
            None => (piece, false),
        };
        let mut rest = text;
        while unfinished.len() + rest.len() > LINE_MAX {
            let (head, tail) = rest.split_at(LINE_MAX - unfinished.len());
            unfinished.extend_from_slice(head);
            say(Line(unfinished));
            unfinished.clear();
            rest = tail;
        }
        if complete && unfinished.is_empty() {
            say(Line(rest));
            continue;
        }
        unfinished.extend_from_slice(rest);
        if complete {
            say(Line(unfinished));
            unfinished.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut unfinished, mut said) = (vec![], vec![]);
        for piece in pieces {
            split(&mut unfinished, piece, &mut |line| said.push(line.to_string()));
        }
        if !unfinished.is_empty() {
            said.push(Line(&unfinished).to_string());
        }
        said
    }

    #[test]
    fn a_line_arrives_whole_however_it_was_written() {
        assert_eq!(lines(&[b"one\ntw", b"o\n\nthree"]), ["one", "two", "", "three"]);
        assert_eq!(lines(&[b"dos\r\n"]), ["dos"]);
    }

    #[test]
    fn a_line_without_an_end_is_said_in_pieces() {
        let said = lines(&[&[b'x'; 3 * LINE_MAX], b"\nnext\n"]);
        assert_eq!(said.iter().map(String::len).collect::<Vec<_>>(), [LINE_MAX, LINE_MAX, LINE_MAX, 4]);
    }

    proptest! {
        #[test]
        fn every_byte_is_said_once_and_no_line_is_too_long(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9000), 0..6),
        ) {
            let (mut unfinished, mut said) = (vec![], 0);
            for piece in &pieces {
                split(&mut unfinished, piece, &mut |line| {
                    assert!(line.0.len() <= LINE_MAX);
                    said += line.0.len();
                });
            }
            let newlines = pieces.iter().flatten().filter(|&&byte| byte == b'\n').count();
            prop_assert_eq!(said + unfinished.len() + newlines, pieces.concat().len());
            prop_assert!(unfinished.len() <= LINE_MAX);
        }
    }
}
