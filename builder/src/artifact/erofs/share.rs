//! Files with the same contents: their blocks are stored once, whatever their names, owners and times.
//!
//! Contents are told apart by their BLAKE3 digest, which no two different ones are known to share: a layer could else
//! show one file to whoever inspects it and another to the machine.

use std::collections::HashMap;

/// What is remembered may take so much memory: some hundred thousand files. Later ones are stored as they are.
const MEMORY_MAX: usize = 16 << 20;

/// About what an entry takes beside what is said of it.
const ENTRY_COST: usize = 64;

/// Stands for contents.
pub type Digest = [u8; 32];

/// Where the contents of earlier files were stored.
#[derive(Debug)]
pub struct Shared<T> {
    /// Nothing is said of those that are still on their way, or that need no blocks.
    stored: HashMap<Digest, Option<T>>,
    held: usize,
}

impl<T> Shared<T> {
    /// Nothing was stored yet.
    pub fn new() -> Self {
        Self { stored: HashMap::new(), held: 0 }
    }

    /// Whether contents came up before.
    pub fn has_seen(&self, contents: &Digest) -> bool {
        self.stored.contains_key(contents)
    }

    /// Remembers contents that come up, for the first time or again.
    pub fn see(&mut self, contents: Digest) {
        if !self.has_seen(&contents) && self.charge(ENTRY_COST) {
            self.stored.insert(contents, None);
        }
    }

    /// Says where remembered contents were stored, unless that was said before.
    pub fn keep(&mut self, contents: &Digest, place: T, size: usize) {
        if self.stored.get(contents).is_some_and(Option::is_none) && self.charge(size) {
            self.stored.insert(*contents, Some(place));
        }
    }

    /// Where contents were stored.
    pub fn find(&self, contents: &Digest) -> Option<&T> {
        self.stored.get(contents)?.as_ref()
    }

    /// Takes so much memory, unless it is too much.
    fn charge(&mut self, bytes: usize) -> bool {
        let fits = self.held + bytes <= MEMORY_MAX;
        self.held += if fits { bytes } else { 0 };
        fits
    }
}

/// Where contents were stored as they are, in runs of blocks. Most have a length that no other has, and are never looked
/// at again: a run is hashed only when another one of its length comes.
#[derive(Debug)]
pub struct Runs {
    /// The first block of the only run of a length, while it is the only one.
    single: HashMap<u64, Option<u32>>,
    stored: Shared<u32>,
}

impl Runs {
    /// Nothing was stored yet.
    pub fn new() -> Self {
        Self { single: HashMap::new(), stored: Shared::new() }
    }

    /// Whether there is a run of this length.
    pub fn has_length(&self, length: u64) -> bool {
        self.single.contains_key(&length)
    }

    /// Takes the one run of a length that was not hashed, if there is one.
    pub fn take_single(&mut self, length: u64) -> Option<u32> {
        self.single.get_mut(&length)?.take()
    }

    /// Remembers the first run of a length.
    pub fn keep_single(&mut self, length: u64, block: u32) {
        if self.stored.charge(ENTRY_COST) {
            self.single.insert(length, Some(block));
        }
    }

    /// Where contents were stored, or else that they are now, here.
    pub fn find_or_keep(&mut self, contents: Digest, block: u32) -> u32 {
        if let Some(found) = self.stored.find(&contents) {
            return *found;
        }
        self.stored.see(contents);
        self.stored.keep(&contents, block, 0);
        block
    }
}
