//! Clusters: pieces of a file, each compressed into whole blocks.
//!
//! EROFS compresses to a fixed size: a cluster takes as much of the file as fits into so many blocks, so that none is
//! wasted on padding. What does not get smaller by a block stays plain, block by block, since Linux reads plain
//! clusters of one block only.

use std::fmt;

use super::codec::Encoder;
use super::format::{BLOCK, Codec};

/// How much of a file is compressed by itself, for all cores to have something to do. The last cluster of each piece
/// ends in a block that is not full: 2 KiB lost of a megabyte.
pub const SEGMENT: usize = 1 << 20;

/// The smallest and the largest cluster. Linux reads up to 1 MiB, and has to inflate a cluster to read a byte of it.
pub const CLUSTER_RANGE: std::ops::RangeInclusive<usize> = BLOCK..=256 * 1024;

/// The most bytes of a last block that are rather put behind the inode. What is longer fills the block well enough, and
/// fits ill between other inodes.
const INLINED: usize = 3072;

/// A file that is not larger than this is not worth looking at.
const TOO_SMALL: usize = 96;

/// How files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    /// The format of a cluster.
    pub codec: Codec,
    /// How hard it is tried, as the codec counts: the bytes differ, the format does not.
    pub level: i32,
    /// The most bytes that a cluster takes in the image: whole blocks, within [`CLUSTER_RANGE`].
    pub cluster: usize,
}

/// A cluster, or a block that is stored as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The bytes of the file that it stands for.
    pub length: u32,
    /// The blocks that it takes; none if it stands behind the inode.
    pub blocks: u16,
    /// Whether it is stored as it is.
    pub plain: bool,
}

/// A compressed piece of a file.
#[derive(Debug, Default)]
pub struct Segment {
    /// Its clusters, in the file's order, without the tail.
    pub extents: Vec<Extent>,
    /// Their blocks.
    pub blocks: Vec<u8>,
    /// What remains at the end of a file, and may go behind its inode.
    pub tail: Option<Tail>,
}

/// The last cluster of a file, of at most one block.
#[derive(Debug, Default)]
pub struct Tail {
    /// The bytes of the file that it stands for.
    pub length: u32,
    /// These bytes, if they are at most a block; else there is `packed`.
    pub raw: Vec<u8>,
    /// The same compressed; empty if that is not smaller.
    pub packed: Vec<u8>,
}

impl Compression {
    /// What measurement shows to be best for most layers. Of PostgreSQL's 161.5 MB, LZ4 leaves 59.8 at level 3, 58.5 at
    /// level 9 in twice the time, and 58.3 at level 12 in ten times; zstd 49.1 at level 3 and 46.2 at level 9, in four
    /// times. mkfs.erofs leaves 62.6 at LZ4's level 9.
    pub const fn usual(codec: Codec) -> Self {
        match codec {
            Codec::Lz4 => Self { codec, level: 3, cluster: 64 * 1024 },
            Codec::Zstd => Self { codec, level: 3, cluster: 64 * 1024 },
        }
    }

    /// Compresses a piece of a file, of at most [`SEGMENT`] bytes and, unless it is the last, of whole blocks.
    pub fn compress(&self, encoder: &mut Encoder, input: &[u8], is_last: bool) -> Segment {
        encoder.begin();
        let mut segment = Segment::default();
        let mut room = vec![0; self.cluster];
        let mut rest = input;
        while !rest.is_empty() {
            if is_last && rest.len() <= BLOCK {
                segment.tail = Some(tail(encoder, rest, &mut room));
                break;
            }
            let (mut taken, mut stored) = encoder.fill(rest, &mut room);
            let whole = stored - stored % BLOCK;
            if is_last && taken == rest.len() && whole > 0 && stored - whole <= INLINED {
                // The last block would be far from full. Full blocks and a tail behind the inode take less.
                (taken, stored) = encoder.fill(rest, &mut room[..whole]);
            }
            let blocks = stored.div_ceil(BLOCK);
            if taken.div_ceil(BLOCK) <= blocks {
                rest = segment.add_plain(rest, taken.max(BLOCK), is_last);
                continue;
            }
            if is_last && taken == rest.len() && blocks == 1 {
                let packed = room[..stored].to_vec();
                segment.tail = Some(Tail { length: length(taken), raw: Vec::new(), packed });
                break;
            }
            segment.add(taken, &room[..stored], false);
            rest = &rest[taken..];
        }
        segment
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { codec, level, cluster } = self;
        write!(text, "{codec}, level {level}, clusters of {} KiB", cluster >> 10)
    }
}

impl Segment {
    /// Adds a cluster. Linux expects the zeros that fill its blocks in front.
    pub fn add(&mut self, length: usize, stored: &[u8], plain: bool) {
        let blocks = stored.len().div_ceil(BLOCK);
        let padding = self.blocks.len() + blocks * BLOCK - stored.len();
        if plain {
            self.blocks.extend_from_slice(stored);
            self.blocks.resize(self.blocks.len().next_multiple_of(BLOCK), 0);
        } else {
            self.blocks.resize(padding, 0);
            self.blocks.extend_from_slice(stored);
        }
        // A cluster has at most 64 blocks.
        let blocks = u16::try_from(blocks).unwrap_or(u16::MAX);
        self.extents.push(Extent { length: self::length(length), blocks, plain });
    }

    /// Adds about so many bytes as plain blocks, and returns what is left. What could be the file's tail is left.
    fn add_plain<'a>(&mut self, rest: &'a [u8], about: usize, is_last: bool) -> &'a [u8] {
        let mut rest = rest;
        for _ in 0..about.div_ceil(BLOCK) {
            let (block, later) = rest.split_at(rest.len().min(BLOCK));
            self.add(block.len(), block, true);
            rest = later;
            if rest.is_empty() || (is_last && rest.len() <= BLOCK) {
                break;
            }
        }
        rest
    }
}

/// A length that is at most that of a segment.
fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The last cluster of a file, of at most a block.
fn tail(encoder: &mut Encoder, raw: &[u8], room: &mut [u8]) -> Tail {
    let mut tail = Tail { length: length(raw.len()), raw: raw.to_vec(), packed: Vec::new() };
    if raw.len() > TOO_SMALL {
        let (taken, stored) = encoder.fill(raw, &mut room[..BLOCK]);
        if taken == raw.len() && stored < taken {
            tail.packed.extend_from_slice(&room[..stored]);
        }
    }
    tail
}
