//! Metadata of compressed images: inodes, each where it leaves the least room in one of several open blocks.

use super::format::{BLOCK, SLOT};

/// How many blocks are open at once: the more, the fewer bytes stay unused, and the further files of one folder are
/// from each other.
const OPEN: usize = 16;

/// A run of metadata blocks that is being filled.
#[derive(Debug, Default)]
pub struct Shelf {
    bytes: Vec<u8>,
    /// How much of each block is used.
    used: Vec<usize>,
}

impl Shelf {
    /// Puts a record into the run and returns its slot, or nothing if the run has to be taken first. What is longer
    /// than a block starts with one.
    pub fn put(&mut self, record: &[u8]) -> Option<usize> {
        let room = |used: &usize| BLOCK - used;
        let fitting = (0..self.used.len()).filter(|block| room(&self.used[*block]) >= record.len());
        let block = match fitting.min_by_key(|block| room(&self.used[*block])) {
            Some(block) => block,
            None if self.used.len() >= OPEN => return None,
            None => {
                let block = self.used.len();
                self.used.resize(block + record.len().div_ceil(BLOCK), BLOCK);
                self.bytes.resize(self.used.len() * BLOCK, 0);
                self.bytes[block * BLOCK..][..record.len()].copy_from_slice(record);
                if let Some(last) = self.used.last_mut() {
                    *last = (record.len() - 1) % BLOCK + 1;
                    *last = last.next_multiple_of(SLOT);
                }
                return Some(block * BLOCK / SLOT);
            }
        };
        let at = block * BLOCK + self.used[block];
        self.bytes[at..at + record.len()].copy_from_slice(record);
        self.used[block] = (self.used[block] + record.len()).next_multiple_of(SLOT);
        Some(at / SLOT)
    }

    /// The blocks of the run, which is empty afterwards.
    pub fn take(&mut self) -> Vec<u8> {
        self.used.clear();
        std::mem::take(&mut self.bytes)
    }
}
