//! The digest of a file that is being written, so that it does not have to be read again.
//!
//! The file is taken in pieces of a mebibyte; its digest is that of their digests. A piece that is written from front
//! to back is hashed on its way. One that is written otherwise (a number is corrected, or blocks turn out to be
//! superfluous) is read at the end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;

use blake3::{Hash, Hasher};

use crate::artifact::erofs::Output;

const PIECE: usize = 1 << 20;
const PIECE_BYTES: u64 = PIECE as u64;

/// A file that is written, and hashed.
#[derive(Debug)]
pub struct Hashed<'a> {
    file: &'a mut File,
    /// Where the next bytes go.
    position: u64,
    /// The pieces that are complete; none of one that has to be read again.
    pieces: Vec<Option<Hash>>,
    /// What was written from the start of the piece behind those to `end`.
    open: Hasher,
    end: u64,
    /// Whether something in that was written over.
    is_spoiled: bool,
}

impl<'a> Hashed<'a> {
    /// Begins with an empty file.
    pub fn new(file: &'a mut File) -> Self {
        Self { file, position: 0, pieces: Vec::new(), open: Hasher::new(), end: 0, is_spoiled: false }
    }

    /// The digest of all that was written.
    pub fn finish(mut self) -> io::Result<Hash> {
        let length = self.file.metadata()?.len();
        let count = usize::try_from(length.div_ceil(PIECE_BYTES)).map_err(io::Error::other)?;
        let is_whole = !self.is_spoiled && self.end == length;
        self.pieces.push(is_whole.then(|| self.open.finalize()));
        self.pieces.resize(count, None);
        if self.end > length
            && let Some(cut) = self.pieces.last_mut()
        {
            *cut = None;
        }
        let mut whole = Hasher::new();
        let mut buffer = Vec::new();
        for (number, piece) in self.pieces.iter().enumerate() {
            let hash = match piece {
                Some(hash) => *hash,
                None => {
                    let start = number as u64 * PIECE_BYTES;
                    buffer.resize(usize::try_from(length - start).map_or(PIECE, |left| left.min(PIECE)), 0);
                    self.file.read_exact_at(&mut buffer, start)?;
                    blake3::hash(&buffer)
                }
            };
            whole.update(hash.as_bytes());
        }
        Ok(whole.finalize())
    }

    /// Takes in what was written within one piece.
    fn take(&mut self, bytes: &[u8]) {
        let again = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let (again, new) = bytes.split_at(again.min(bytes.len()));
        let piece = usize::try_from(self.position / PIECE_BYTES).unwrap_or(usize::MAX);
        let is_hole = self.position > self.end;
        self.position += bytes.len() as u64;
        if !again.is_empty() || is_hole {
            match self.pieces.get_mut(piece) {
                Some(complete) => *complete = None,
                None => self.is_spoiled = true,
            }
        }
        if new.is_empty() || is_hole {
            return;
        }
        self.open.update(new);
        self.end += new.len() as u64;
        if self.end.is_multiple_of(PIECE_BYTES) {
            let hash = std::mem::take(&mut self.open).finalize();
            let is_spoiled = std::mem::take(&mut self.is_spoiled);
            self.pieces.push((!is_spoiled).then_some(hash));
        }
    }
}

impl Write for Hashed<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.file.write(buffer)?;
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let room = PIECE_BYTES - self.position % PIECE_BYTES;
            let (within, behind) =
                rest.split_at(usize::try_from(room).map_or(rest.len(), |room| room.min(rest.len())));
            self.take(within);
            rest = behind;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Hashed<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = self.file.seek(to)?;
        Ok(self.position)
    }
}

impl Output for Hashed<'_> {
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }
}

/// The digest of a file, read from its start.
pub fn digest(mut file: &File) -> io::Result<Hash> {
    file.rewind()?;
    let mut whole = Hasher::new();
    let mut buffer = Vec::with_capacity(PIECE);
    loop {
        buffer.clear();
        if file.take(PIECE_BYTES).read_to_end(&mut buffer)? == 0 {
            return Ok(whole.finalize());
        }
        whole.update(blake3::hash(&buffer).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_piece_that_is_cut_is_read_again() {
        let mut file = tempfile::tempfile().unwrap();
        let mut hashed = Hashed::new(&mut file);
        hashed.write_all(&[7; PIECE + 1]).unwrap();
        hashed.truncate(PIECE_BYTES - 1).unwrap();
        let found = hashed.finish().unwrap();
        assert_eq!(found, digest(&file).unwrap());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn a_written_file_has_the_digest_that_it_has_when_it_is_read(
            writes in prop::collection::vec(
                (any::<u8>(), 0usize..700_000, prop::option::weighted(0.3, any::<prop::sample::Index>())), 1..12),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut file = tempfile::tempfile().unwrap();
            let mut hashed = Hashed::new(&mut file);
            let mut length = 0;
            for (byte, count, elsewhere) in writes {
                if let Some(elsewhere) = elsewhere {
                    let at = elsewhere.index(length + 1) as u64;
                    hashed.seek(SeekFrom::Start(at)).unwrap();
                }
                hashed.write_all(&vec![byte; count]).unwrap();
                length = length.max(usize::try_from(hashed.position).unwrap());
            }
            if let Some(cut) = cut {
                hashed.truncate(cut.index(length + 1) as u64).unwrap();
            }
            let found = hashed.finish().unwrap();
            prop_assert_eq!(found, digest(&file).unwrap());
        }
    }
}
