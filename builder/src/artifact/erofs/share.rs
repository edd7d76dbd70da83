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

    fn charge(&mut self, bytes: usize) -> bool {
        let fits = self.held + bytes <= MEMORY_MAX;
        self.held += if fits { bytes } else { 0 };
        fits
    }
}
