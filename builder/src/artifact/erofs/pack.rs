//! The part of the writer that compresses: files are cut into segments, which threads compress, and written in the
//! order in which they came.

use std::collections::VecDeque;
use std::io::Read;

use super::Kind;
use super::cluster::{Extent, SEGMENT, Segment, Tail};
use super::codec::Encoder;
use super::format::{BLOCK, BLOCK_BYTES, INODE_LEN, Layout, Packing, RawInode};
use super::index::{self, Placed};
use super::pool::{Pool, Ticket};
use super::share::{Digest, Shared};
use super::shelf::Shelf;
use super::tree::{InodeId, Slot};
use super::write::{Division, Output, Writer, fill, record};
use crate::error::{Context as _, Result};

/// What an entry of the queue takes beside its bytes.
const ENTRY_COST: usize = 256;

/// What compresses the files of an image, and those on their way.
pub struct Packer {
    pool: Pool,
    queue: VecDeque<(Waiting, usize)>,
    /// What the queue takes in memory.
    waiting: usize,
    /// The segments of the file at the front of the queue that were written.
    file: Parts,
    shelf: Shelf,
    /// The clusters of what was stored.
    shared: Shared<Box<[Placed]>>,
    /// What compresses the ends of copies.
    encoder: Option<Encoder>,
}

/// What comes next in the image.
enum Waiting {
    /// An inode that is complete.
    Record(InodeId, Vec<u8>),
    /// A piece of a file, whose inode comes later.
    Segment(Ticket),
    /// A file whose segments came before.
    File(Box<Packed>),
    /// A file with the contents of one that came before, and these.
    Copy(Box<Packed>, Vec<u8>),
}

/// A file that is being compressed.
struct Packed {
    id: InodeId,
    inode: RawInode,
    xattrs: Vec<u8>,
    /// What it contains, unless that is too little for blocks of its own.
    contents: Option<Digest>,
}

/// What is stored of a file: its clusters, and what remains at its end.
#[derive(Default)]
struct Parts {
    clusters: Vec<Placed>,
    tail: Option<Tail>,
}

impl Parts {
    /// How much of the file is in its clusters.
    fn end(&self) -> u64 {
        self.clusters.last().map_or(0, Placed::end)
    }

    /// Whether it is stored as it is in one run of blocks, to which one more can be added if it is this one.
    fn is_run(&self, next: Option<u32>) -> bool {
        let after = |cluster: &Placed| cluster.block + u32::from(cluster.extent.blocks);
        let follows = |pair: &[Placed]| pair[1].block == after(&pair[0]);
        let is_joined = next.is_none() || self.clusters.last().is_none_or(|last| next == Some(after(last)));
        is_joined
            && self.clusters.iter().all(|cluster| cluster.extent.plain)
            && self.clusters.windows(2).all(follows)
    }
}

impl Packer {
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            queue: VecDeque::new(),
            waiting: 0,
            file: Parts::default(),
            shelf: Shelf::default(),
            shared: Shared::new(),
            encoder: None,
        }
    }

    /// What the superblock says.
    pub fn packing(&self) -> Packing {
        let blocks = self.pool.compression.cluster / BLOCK;
        Packing {
            codec: self.pool.compression.codec,
            cluster_blocks: u16::try_from(blocks).unwrap_or(u16::MAX),
        }
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

/// Compresses the end of a file.
fn compress_end(packer: &mut Packer, end: &[u8]) -> Result<Segment> {
    let compression = packer.pool.compression;
    let encoder = match &mut packer.encoder {
        Some(encoder) => encoder,
        none => none.insert(Encoder::new(compression).doing(|| "make room for compressing")?),
    };
    Ok(compression.compress(encoder, end, true))
}

impl<W: Output> Writer<W> {
    /// Takes a file in, segment by segment.
    pub(super) fn pack(
        &mut self,
        id: InodeId,
        (inode, xattrs): (RawInode, Vec<u8>),
        mut data: impl Read,
    ) -> Result<InodeId> {
        let mut left = inode.size;
        let mut file = Box::new(Packed { id, inode, xattrs, contents: None });
        let mut hasher = blake3::Hasher::new();
        while left > 0 {
            let length = usize::try_from(left).map_or(SEGMENT, |left| left.min(SEGMENT));
            let mut input = vec![0; length];
            fill(&mut data, &mut input)?;
            hasher.update(&input);
            left -= length as u64;
            let Some(packer) = &mut self.packer else { break };
            if left == 0 && file.inode.size > BLOCK_BYTES {
                let contents = hasher.finalize().into();
                file.contents = Some(contents);
                if packer.shared.has_seen(&contents) && length as u64 == file.inode.size {
                    packer.push(Waiting::Copy(file, input), length);
                    self.settle()?;
                    return Ok(id);
                }
                packer.shared.see(contents);
            }
            let ticket = packer.pool.compress(input, left == 0)?;
            packer.push(Waiting::Segment(ticket), length);
            self.settle()?;
        }
        let cost = file.xattrs.len();
        if let Some(packer) = &mut self.packer {
            packer.push(Waiting::File(file), cost);
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
        let most = self.packer.as_ref().map_or(0, |packer| packer.pool.waiting_max);
        self.write_waiting(most)
    }

    /// Writes from the front of the queue until it takes no more than this.
    fn write_waiting(&mut self, most: usize) -> Result<()> {
        while let Some(packer) = self.packer.as_mut().filter(|packer| packer.waiting > most) {
            match packer.pop() {
                None => break,
                Some(Waiting::Record(id, record)) => self.shelve(id, &record)?,
                Some(Waiting::Segment(ticket)) => self.write_segment(ticket.wait()?)?,
                Some(Waiting::File(file)) => {
                    let parts = std::mem::take(&mut packer.file);
                    let parts = self.share_large(&file, parts)?;
                    self.finish_file(*file, parts)?;
                }
                Some(Waiting::Copy(file, data)) => {
                    let parts = self.share_small(&file, &data)?;
                    self.finish_file(*file, parts)?;
                }
            }
        }
        Ok(())
    }

    fn write_segment(&mut self, segment: Segment) -> Result<()> {
        let mut block = self.block_number()?;
        self.write(&segment.blocks)?;
        let Some(packer) = &mut self.packer else { return Ok(()) };
        let mut start = packer.file.end();
        for extent in segment.extents {
            packer.file.clusters.push(Placed { start, extent, block });
            start += u64::from(extent.length);
            block += u32::from(extent.blocks);
        }
        packer.file.tail = segment.tail;
        Ok(())
    }

    /// Gives up the blocks of a file that are in the image already. They were written last.
    fn share_large(&mut self, file: &Packed, mut parts: Parts) -> Result<Parts> {
        let Some(packer) = &self.packer else { return Ok(parts) };
        let stored = file.contents.and_then(|contents| packer.shared.find(&contents));
        if let (Some(stored), Some(first)) = (stored, parts.clusters.first()) {
            let first = first.block;
            parts.clusters = stored.to_vec();
            if parts.end() == file.inode.size {
                parts.tail = None;
            }
            self.rewind(first)?;
        }
        Ok(parts)
    }

    /// Stores what no other file can be asked for of one whose contents came before: what stands behind its inode.
    fn share_small(&mut self, file: &Packed, data: &[u8]) -> Result<Parts> {
        let Some(packer) = &mut self.packer else { return Ok(Parts::default()) };
        let stored = file.contents.and_then(|contents| packer.shared.find(&contents));
        packer.file.clusters = stored.map(|stored| stored.to_vec()).unwrap_or_default();
        let end = &data[usize::try_from(packer.file.end()).map_or(data.len(), |at| at.min(data.len()))..];
        if !end.is_empty() {
            let segment = compress_end(packer, end)?;
            self.write_segment(segment)?;
        }
        Ok(self.packer.as_mut().map(|packer| std::mem::take(&mut packer.file)).unwrap_or_default())
    }

    /// Decides how a file is stored, now that it is known what compressing brings.
    fn finish_file(&mut self, file: Packed, mut parts: Parts) -> Result<()> {
        let Packed { id, mut inode, xattrs, contents } = file;
        let kind = Kind::File { size: inode.size };
        let head = INODE_LEN + xattrs.len();
        let tail = parts.tail.take().unwrap_or_default();
        let index_len = usize::try_from(index::len(inode.size)).unwrap_or(usize::MAX);
        let index_at = head.next_multiple_of(8);
        let inlined = if tail.packed.is_empty() { tail.raw.as_slice() } else { tail.packed.as_slice() };
        // Linux reads what stands behind an inode from one block.
        let index_end = index_at + index_len;
        let fits = inlined.len() < BLOCK && index_end % BLOCK + inlined.len() <= BLOCK;
        let is_smaller = fits && index_end - head + inlined.len() < tail.raw.len();
        let pays = !tail.packed.is_empty() && (tail.raw.is_empty() || is_smaller);
        let division = Division::of(inode.size, head, BLOCK);
        let is_behind = tail.length > 0 && division.layout == Layout::Inline;
        let next = if tail.length == 0 || is_behind { None } else { Some(self.block_number()?) };
        if !pays && parts.is_run(next) {
            if next.is_some() {
                let placed = self.write_tail(parts.end(), &tail)?;
                parts.clusters.push(placed);
            }
            inode.layout = if is_behind { Layout::Inline } else { Layout::Plain };
            inode.block_or_device = parts.clusters.first().map_or(0, |first| first.block);
            self.keep(contents, &parts.clusters);
            let behind = if is_behind { tail.raw.as_slice() } else { &[] };
            return self.shelve(id, &record(id, inode, &kind, &[&xattrs, behind]));
        }
        let inlined = if fits { inlined } else { &[] };
        if tail.length > 0 && inlined.is_empty() {
            let placed = self.write_tail(parts.end(), &tail)?;
            parts.clusters.push(placed);
        }
        self.keep(contents, &parts.clusters);
        if !inlined.is_empty() {
            let extent = Extent { length: tail.length, blocks: 0, plain: tail.packed.is_empty() };
            parts.clusters.push(Placed { start: parts.end(), extent, block: 0 });
        }
        inode.layout = Layout::Compressed;
        inode.block_or_device = parts.clusters.iter().map(|cluster| u32::from(cluster.extent.blocks)).sum();
        let codec = self.packer.as_ref().map(|packer| packer.pool.compression.codec);
        let index =
            codec.map(|codec| index::encode(codec, &parts.clusters, inlined.len())).unwrap_or_default();
        let gap = vec![0; index_at - head];
        self.shelve(id, &record(id, inode, &kind, &[&xattrs, &gap, &index, inlined]))
    }

    /// Remembers where contents were stored, if they have blocks.
    fn keep(&mut self, contents: Option<Digest>, clusters: &[Placed]) {
        let (Some(packer), Some(contents)) = (&mut self.packer, contents) else { return };
        if !clusters.is_empty() {
            packer.shared.keep(&contents, clusters.into(), size_of_val(clusters));
        }
    }

    /// Writes a tail that does not go behind its inode.
    fn write_tail(&mut self, start: u64, tail: &Tail) -> Result<Placed> {
        let block = self.block_number()?;
        let mut segment = Segment::default();
        let plain = tail.packed.is_empty() || !tail.raw.is_empty();
        // A length fits.
        let length = usize::try_from(tail.length).unwrap_or(BLOCK);
        segment.add(length, if plain { &tail.raw } else { &tail.packed }, plain);
        self.write(&segment.blocks)?;
        Ok(Placed { start, extent: Extent { length: tail.length, blocks: 1, plain }, block })
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
