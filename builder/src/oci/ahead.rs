//! Reads ahead: a thread reads while the caller works on what was read before.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::error::{Context, Error, Result};

/// Bytes that are handed over at once: waking the other thread should not show beside inflating them.
const CHUNK: usize = 256 << 10;

/// Chunks that may wait for the caller. More would only take memory: both sides run at their mean speed.
const WAITING: usize = 3;

/// What the thread has read: a chunk, an empty one at the end, or why there will be no more.
type Chunk = io::Result<Vec<u8>>;

/// The bytes of a reader that a thread of its own reads. Dropped, it stops the thread at its next chunk.
pub struct Ahead {
    chunks: Receiver<Chunk>,
    /// Where chunks go back to when they are used up, to be filled again.
    used: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    is_ended: bool,
}

impl Ahead {
    /// Starts to read `reader`, to its end or its first error.
    pub fn of(reader: impl Read + Send + 'static) -> Result<Self> {
        let (sender, chunks) = sync_channel(WAITING);
        let (used, free) = sync_channel(WAITING + 2);
        thread::Builder::new()
            .name("read-ahead".to_owned())
            .spawn(move || read(reader, &sender, &free))
            .doing(|| "start a thread")?;
        Ok(Self { chunks, used, chunk: Vec::new(), at: 0, is_ended: false })
    }

    fn next(&mut self) -> io::Result<()> {
        let chunk = self.chunks.recv().unwrap_or_else(|_| {
            // The thread always says how it ended, unless it could not.
            Err(Error::new("the thread that reads it ended early").into())
        })?;
        let used = std::mem::replace(&mut self.chunk, chunk);
        self.at = 0;
        self.is_ended = self.chunk.is_empty();
        // A thread that is at its end takes no chunks back, and needs none.
        self.used.try_send(used).or(Ok(()))
    }
}

/// The thread: reads chunk after chunk, until the end, an error, or a caller that is gone.
fn read(mut reader: impl Read, sender: &SyncSender<Chunk>, free: &Receiver<Vec<u8>>) {
    loop {
        let mut chunk = free.try_recv().unwrap_or_default();
        chunk.clear();
        let outcome = reader.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
        let is_end = chunk.is_empty();
        let message = outcome.map(|_| chunk);
        let is_last = is_end || message.is_err();
        if sender.send(message).is_err() || is_last {
            return;
        }
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() && !self.is_ended && !buffer.is_empty() {
            self.next()?;
        }
        let count = (&self.chunk[self.at..]).read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_reader_whatever_their_number() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 10 * CHUNK + 7] {
            let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
            let mut ahead = Ahead::of(io::Cursor::new(bytes.clone())).unwrap();
            let mut found = Vec::new();
            ahead.read_to_end(&mut found).unwrap();
            assert!(found == bytes, "{length}");
            assert_eq!(ahead.read(&mut [0; 8]).unwrap(), 0, "the end stays");
        }
    }

    #[test]
    fn an_error_of_the_reader_arrives() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let mut ahead = Ahead::of(io::repeat(7).take(1000).chain(Failing)).unwrap();
        assert_eq!(io::copy(&mut ahead, &mut io::sink()).unwrap_err().to_string(), "broken");
    }

    #[test]
    fn a_thread_that_dies_is_an_error_and_not_an_end() {
        struct Dying;
        impl Read for Dying {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                panic!("the test wants this thread to die")
            }
        }
        let mut ahead = Ahead::of(Dying).unwrap();
        assert!(ahead.read(&mut [0; 8]).unwrap_err().to_string().contains("ended early"));
    }

    #[test]
    fn a_caller_that_goes_away_stops_the_thread() {
        let (sender, receiver) = sync_channel::<()>(0);
        struct Endless {
            _held: SyncSender<()>,
        }
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                Ok(buffer.len())
            }
        }
        drop(Ahead::of(Endless { _held: sender }).unwrap());
        assert!(receiver.recv().is_err(), "the thread has dropped its reader");
    }
}
