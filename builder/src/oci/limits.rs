//! How much the layers of an image may take: what a build may fill a disk and its time with.
//!
//! Formats have limits of their own, which stand where each format is read. These are the ones that an honest image
//! can exceed, so each is a key of `[layers]`.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// The limits of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that all layers together inflate to: `max-size`.
    pub size: u64,
    /// How many times its own size a layer inflates to: `max-ratio`.
    pub ratio: u64,
    /// Entries of one layer: `max-entries`.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        // gzip makes at most 1,032 of one byte, and does so only with zeros; trees of files come to 2 to 10.
        Self { size: 16 << 30, ratio: 1000, entries: 2_000_000 }
    }
}

/// What an archive of an image has beside its layers, compressed or not: documents, and headers in between.
const BESIDE_LAYERS: u64 = 64 << 20;

/// A layer this small is never held to the ratio: a handful of files in a block of zeros each exceeds it.
const FREE: u64 = 1 << 20;

impl Limits {
    /// Counts the bytes of one more read against the limit of the image, which other layers add to as well.
    pub fn count(&self, bytes: usize, total: &AtomicU64) -> Result<()> {
        let bytes = bytes as u64;
        if total.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= self.size {
            return Ok(());
        }
        let limit = self.size;
        Err(Error::new(format!("the image's layers inflate to more than {limit} bytes (`layers.max-size`)")))
    }

    /// Checks what a layer inflated to so far against what was read for it.
    pub fn check_ratio(&self, read: u64, inflated: u64) -> Result<()> {
        if inflated <= FREE || inflated / self.ratio <= read {
            return Ok(());
        }
        let limit = self.ratio;
        Err(Error::new(format!("it inflates to more than {limit} times its size (`layers.max-ratio`)")))
    }

    /// The most that a compressed archive of so many bytes may inflate to. All images in it
    /// together are held to what one may take.
    pub fn of_archive(&self, compressed: u64) -> u64 {
        // The ratio is checked in whole numbers.
        let by_ratio = compressed.saturating_add(1).saturating_mul(self.ratio).saturating_sub(1).max(FREE);
        by_ratio.min(self.size.saturating_add(BESIDE_LAYERS))
    }

    /// Checks the number of a layer's entries so far.
    pub fn check_entries(&self, entries: u64) -> Result<()> {
        if entries <= self.entries {
            return Ok(());
        }
        let limit = self.entries;
        Err(Error::new(format!("it has more than {limit} entries (`layers.max-entries`)")))
    }
}
