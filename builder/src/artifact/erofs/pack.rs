//! The part of the writer that compresses: files are cut into segments, which threads compress, and written in the
//! order in which they came.

use std::collections::VecDeque;
use std::io::{Read, Seek, Write};

use super::Kind;
use super::cluster::{Compression, Extent, SEGMENT, Segment, Tail};
use super::format::{BLOCK, Codec, INODE_LEN, Layout, Packing, RawInode};
use super::index;
use super::pool::{Pool, Ticket};
use super::shelf::Shelf;
use super::tree::{InodeId, Slot};
use super::write::{Division, Writer, fill, record};
use crate::error::Result;

/// The bytes of files that may wait for their turn. Compressed, they take at most as much again.
const fn waiting_max(codec: Codec) -> usize {
    match codec {
        Codec::Lz4 => 16 << 20,
        // Fewer threads work, since the tables of each are large.
        Codec::Zstd => 8 << 20,
    }
}

/// What an entry of the queue takes beside its bytes.
const ENTRY_COST: usize = 256;

/// What compresses the files of an image, and those on their way.
pub struct Packer {
    compression: Compression,
    pool: Pool,
    queue: VecDeque<(Waiting, usize)>,
    /// What the queue takes in memory.
    waiting: usize,
    /// The segments of the file at the front of the queue that were written.
    file: Parts,
    shelf: Shelf,
}

/// What comes next in the image.
enum Waiting {
    /// An inode that is complete.
    Record(InodeId, Vec<u8>),
    /// A piece of a file, whose inode comes later.
    Segment(Ticket),
    /// The inode of a file whose segments came before, and its attributes.
    File(InodeId, Box<RawInode>, Vec<u8>),
}

/// A file whose segments were written one behind the other.
#[derive(Default)]
struct Parts {
    first_block: u32,
    extents: Vec<Extent>,
    tail: Option<Tail>,
}

impl Packer {
    pub fn new(compression: Compression, threads: Option<usize>) -> Result<Self> {
        Ok(Self {
            compression,
            pool: Pool::new(compression, threads)?,
            queue: VecDeque::new(),
            waiting: 0,
            file: Parts::default(),
            shelf: Shelf::default(),
        })
    }

    /// What the superblock says.
    pub fn packing(&self) -> Packing {
        let blocks = self.compression.cluster / BLOCK;
        Packing { codec: self.compression.codec, cluster_blocks: u16::try_from(blocks).unwrap_or(u16::MAX) }
    }

    fn push(&mut self, waiting: Waiting, cost: usize) {
        let cost = cost + ENTRY_COST;
        self.waiting += cost;
        self.queue.push_back((waiting, cost));
    }

    fn pop(&mut self) -> Option<Waiting> {
        let (waiting, cost) = self.queue.pop_front()?;
        self.waiting -= cost;
        Some(waiting)
    }
}

impl<W: Write + Seek> Writer<W> {
    /// Takes a file in, segment by segment.
    pub(super) fn pack(
        &mut self,
        id: InodeId,
        (inode, xattrs): (RawInode, Vec<u8>),
        mut data: impl Read,
    ) -> Result<InodeId> {
        let mut left = inode.size;
        while left > 0 {
            let length = usize::try_from(left).map_or(SEGMENT, |left| left.min(SEGMENT));
            let mut input = vec![0; length];
            fill(&mut data, &mut input)?;
            left -= length as u64;
            if let Some(packer) = &mut self.packer {
                let ticket = packer.pool.compress(input, left == 0)?;
                packer.push(Waiting::Segment(ticket), length);
            }
            self.settle()?;
        }
        let cost = xattrs.len();
        if let Some(packer) = &mut self.packer {
            packer.push(Waiting::File(id, Box::new(inode), xattrs), cost);
        }
        self.settle()?;
        Ok(id)
    }

    /// Takes an inode in that is complete.
    pub(super) fn pack_record(&mut self, id: InodeId, record: Vec<u8>) -> Result<InodeId> {
        let cost = record.len();
        if let Some(packer) = &mut self.packer {
            packer.push(Waiting::Record(id, record), cost);
        }
        self.settle()?;
        Ok(id)
    }

    /// Writes everything that was taken in.
    pub(super) fn finish_packing(&mut self) -> Result<()> {
        if self.packer.is_none() {
            return Ok(());
        }
        self.write_waiting(0)?;
        self.close_shelf()
    }

    /// Writes what is too much to wait.
    fn settle(&mut self) -> Result<()> {
        let codec = self.packer.as_ref().map(|packer| packer.compression.codec);
        self.write_waiting(codec.map_or(0, waiting_max))
    }

    /// Writes from the front of the queue until it takes no more than this.
    fn write_waiting(&mut self, most: usize) -> Result<()> {
        while let Some(packer) = self.packer.as_mut().filter(|packer| packer.waiting > most) {
            match packer.pop() {
                None => break,
                Some(Waiting::Record(id, record)) => self.shelve(id, &record)?,
                Some(Waiting::Segment(ticket)) => self.write_segment(ticket.wait()?)?,
                Some(Waiting::File(id, inode, xattrs)) => {
                    let parts = std::mem::take(&mut packer.file);
                    self.finish_file(id, *inode, &xattrs, parts)?;
                }
            }
        }
        Ok(())
    }

    fn write_segment(&mut self, segment: Segment) -> Result<()> {
        let block = self.block_number()?;
        self.write(&segment.blocks)?;
        if let Some(packer) = &mut self.packer {
            if packer.file.extents.is_empty() {
                packer.file.first_block = block;
            }
            packer.file.extents.extend(segment.extents);
            packer.file.tail = segment.tail;
        }
        Ok(())
    }

    /// Decides how a file is stored, now that it is known what compressing brings.
    fn finish_file(
        &mut self,
        id: InodeId,
        mut inode: RawInode,
        xattrs: &[u8],
        mut parts: Parts,
    ) -> Result<()> {
        let kind = Kind::File { size: inode.size };
        let head = INODE_LEN + xattrs.len();
        let tail = parts.tail.take().unwrap_or_default();
        if parts.extents.is_empty() {
            // Nothing was written of this file; a tail may need a block.
            parts.first_block = self.block_number()?;
        }
        let is_plain = parts.extents.iter().all(|extent| extent.plain);
        let index_len = usize::try_from(index::len(inode.size)).unwrap_or(usize::MAX);
        let index_at = head.next_multiple_of(8);
        let inlined = if tail.packed.is_empty() { tail.raw.as_slice() } else { tail.packed.as_slice() };
        // Linux reads what stands behind an inode from one block.
        let index_end = index_at + index_len;
        let fits = inlined.len() < BLOCK && index_end % BLOCK + inlined.len() <= BLOCK;
        let is_smaller = fits && index_end - head + inlined.len() < tail.raw.len();
        let pays = !tail.packed.is_empty() && (tail.raw.is_empty() || is_smaller);
        if is_plain && !pays {
            let division = Division::of(inode.size, head, BLOCK);
            inode.layout = division.layout;
            let mut inlined: &[u8] = &tail.raw;
            if division.layout == Layout::Plain {
                self.write(inlined)?;
                self.pad_to_block()?;
                inlined = &[];
            }
            inode.block_or_device = if inode.size > inlined.len() as u64 { parts.first_block } else { 0 };
            return self.shelve(id, &record(id, inode, &kind, &[xattrs, inlined]));
        }
        let inlined = if fits { inlined } else { &[] };
        if tail.length > 0 {
            let plain = tail.packed.is_empty();
            let behind_inode = Extent { length: tail.length, blocks: 0, plain };
            parts.extents.push(if inlined.is_empty() { self.write_tail(&tail)? } else { behind_inode });
        }
        inode.layout = Layout::Compressed;
        inode.block_or_device = parts.extents.iter().map(|extent| u32::from(extent.blocks)).sum();
        let codec = self.packer.as_ref().map(|packer| packer.compression.codec);
        let index = codec.map(|codec| index::encode(codec, parts.first_block, &parts.extents, inlined.len()));
        let gap = vec![0; index_at - head];
        let index = index.unwrap_or_default();
        self.shelve(id, &record(id, inode, &kind, &[xattrs, &gap, &index, inlined]))
    }

    /// Writes a tail that does not go behind its inode.
    fn write_tail(&mut self, tail: &Tail) -> Result<Extent> {
        let mut segment = Segment::default();
        let is_plain = !tail.raw.is_empty();
        // A length fits.
        let length = usize::try_from(tail.length).unwrap_or(BLOCK);
        segment.add(length, if is_plain { &tail.raw } else { &tail.packed }, is_plain);
        self.write(&segment.blocks)?;
        Ok(Extent { length: tail.length, blocks: 1, plain: is_plain })
    }

    /// Puts an inode and what follows it on the shelf.
    fn shelve(&mut self, id: InodeId, record: &[u8]) -> Result<()> {
        loop {
            let Some(packer) = &mut self.packer else { return Ok(()) };
            if let Some(slot) = packer.shelf.put(record) {
                let slot = u32::try_from(slot).unwrap_or(u32::MAX);
                self.tree.place(id, Slot { block: self.closed.len(), slot });
                return Ok(());
            }
            self.close_shelf()?;
        }
    }

    fn close_shelf(&mut self) -> Result<()> {
        let Some(packer) = &mut self.packer else { return Ok(()) };
        let run = packer.shelf.take();
        let number = self.block_number()?;
        self.closed.push(number);
        self.write(&run)
    }
}
