//! The index of a compressed file: where the cluster of each block of the file is. `fs/erofs/zmap.c` reads it.
//!
//! It follows the inode and its attributes: a header, 8 bytes of nothing, and 8 bytes for each block (*lcluster*) of
//! the file. A cluster begins in the lcluster that is its head. Those after it count back to the head and forward to
//! the next; the first of them says how many blocks the cluster takes. Where a file ends within an lcluster that is no
//! head, that one is a plain head at the end of the file.

use super::cluster::{Extent, SEGMENT};
use super::format::{BLOCK, BLOCK_BYTES, Codec, get16, get32, put16, put32};

/// The header and what follows it: the index is that of Linux's first format, which every kernel reads.
pub const HEADER_LEN: usize = 16;
const ENTRY_LEN: usize = 8;

/// Clusters may have several blocks.
const ADVISE_BIG_CLUSTER: u16 = 2;
/// The last cluster stands behind the index.
const ADVISE_INLINE: u16 = 8;

const PLAIN: u16 = 0;
const HEAD: u16 = 1;
const NON_HEAD: u16 = 2;

/// Marks the number of blocks where else the way back to the head is.
const IS_BLOCK_COUNT: u16 = 1 << 11;

/// The length of a file's index with its header.
pub fn len(size: u64) -> u64 {
    HEADER_LEN as u64 + size.div_ceil(BLOCK_BYTES) * ENTRY_LEN as u64
}

/// The index of a file with these clusters, from the first to the last, and behind the index `inlined` bytes of its last
/// one.
pub fn encode(codec: Codec, clusters: &[Placed], inlined: usize) -> Vec<u8> {
    let mut raw = vec![0; HEADER_LEN];
    put16(&mut raw, 2, u16::try_from(inlined).unwrap_or(u16::MAX));
    put16(&mut raw, 4, ADVISE_BIG_CLUSTER | if inlined > 0 { ADVISE_INLINE } else { 0 });
    raw[6] = codec.number();
    for Placed { start, extent, block } in clusters {
        let end = start + u64::from(extent.length);
        add(&mut raw, if extent.plain { PLAIN } else { HEAD }, within_block(*start), *block);
        let distance = u16::try_from(end / BLOCK_BYTES - start / BLOCK_BYTES).unwrap_or(u16::MAX);
        for back in 1..distance {
            let first = if back == 1 { extent.blocks.max(1) | IS_BLOCK_COUNT } else { back };
            add(&mut raw, NON_HEAD, 0, u32::from(first) | u32::from(distance - back) << 16);
        }
    }
    let (last, size) = clusters.last().map_or((0, 0), |last| (last.start, last.end()));
    if within_block(size) > 0 && last / BLOCK_BYTES < size / BLOCK_BYTES {
        add(&mut raw, PLAIN, within_block(size), 0);
    }
    raw
}

fn add(raw: &mut Vec<u8>, kind: u16, within: u16, rest: u32) {
    let mut entry = [0; ENTRY_LEN];
    put16(&mut entry, 0, kind);
    put16(&mut entry, 2, within);
    put32(&mut entry, 4, rest);
    raw.extend(entry);
}

/// The place in its block of a place in a file.
fn within_block(at: u64) -> u16 {
    u16::try_from(at % BLOCK_BYTES).unwrap_or(0)
}

/// A cluster and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Where in the file it begins.
    pub start: u64,
    /// Its length in the file and its form.
    pub extent: Extent,
    /// Its first block; if it has none, it stands behind the index.
    pub block: u32,
}

impl Placed {
    /// Where in the file it ends.
    pub fn end(&self) -> u64 {
        self.start + u64::from(self.extent.length)
    }
}

/// What an index says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The clusters from the first to the last.
    pub clusters: Vec<Placed>,
    /// The length of the last cluster if it stands behind the index, or 0.
    pub inlined: usize,
}

/// Reads the index of a file of `size` bytes that [`encode`] could have written.
pub fn decode(raw: &[u8], size: u64, codec: Codec) -> Option<Index> {
    let (header, entries) = raw.split_first_chunk::<HEADER_LEN>()?;
    let inlined = usize::from(get16(header, 2));
    let (entries, _) = entries.as_chunks::<ENTRY_LEN>();
    let advise = get16(header, 4);
    if advise & !ADVISE_INLINE != ADVISE_BIG_CLUSTER || header[6] != codec.number() || header[7] != 0 {
        return None;
    }
    if (advise & ADVISE_INLINE != 0) != (inlined > 0) || inlined >= BLOCK {
        return None;
    }
    let mut clusters: Vec<Placed> = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        let (kind, within, rest) = (get16(entry, 0), get16(entry, 2), get32(entry, 4));
        let start = number as u64 * BLOCK_BYTES + u64::from(within);
        match kind {
            // The end of the file is no cluster.
            PLAIN if start == size => break,
            PLAIN | HEAD => {
                let extent = Extent { length: 0, blocks: 1, plain: kind == PLAIN };
                clusters.push(Placed { start, extent, block: rest });
            }
            NON_HEAD => {
                let count = rest.to_le_bytes();
                let count = u16::from_le_bytes([count[0], count[1]]);
                if count & IS_BLOCK_COUNT != 0 {
                    clusters.last_mut()?.extent.blocks = count & !IS_BLOCK_COUNT;
                }
            }
            _ => return None,
        }
    }
    if inlined > 0 {
        clusters.last_mut()?.extent.blocks = 0;
    }
    let mut end = size;
    for cluster in clusters.iter_mut().rev() {
        let length = u32::try_from(end.checked_sub(cluster.start)?).ok()?;
        if length == 0 || length as usize > SEGMENT {
            return None;
        }
        cluster.extent.length = length;
        end = cluster.start;
    }
    (end == 0).then_some(Index { clusters, inlined })
}
