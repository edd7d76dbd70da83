//! The writer: file data goes out as it comes in, names stay in memory, and folders are written last.
//!
//!     block 0        superblock, root folder's inode
//!     block 1 …      whole blocks of files, as they come, and between them blocks of metadata: inodes, each
//!                    with its extended attributes and, where it fits into the same block, its file's rest
//!     at the end     whole blocks of folders, then the folders' inodes with the rest of their entries
//!
//! Where files are compressed, [`super::pack`] writes them in the same order, once they are.
//!
//! Everything is written from front to back, except the number of names of files with hard links and block 0,
//! which are known last, and blocks that turn out to be in the image already: what comes next is written over
//! them. A file whose name something else took stays in the image as bytes that nothing refers to.

use std::fs::File;
use std::io::{self, BufWriter, Cursor, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;

#[cfg(test)]
use super::cluster::Compression;
use super::directory::{self, Name};
use super::format::{
    BLOCK, BLOCK_BYTES, INODE_LEN, Layout, PATH_MAX, RawInode, SLOT, Super, encode_device, file_type,
    root_nid, type_bits,
};
use super::pack::Packer;
use super::pool::Pool;
use super::share::{Digest, Runs};
use super::tree::{Child, Found, InodeId, Slot, Tree, components};
use super::{Kind, Metadata, xattr};
use crate::error::{Context as _, Error, Result};

/// How much is read and written at once: a good size for pipes, files and decompressors alike.
const CHUNK: usize = 256 * 1024;
/// The slots of a block.
const SLOTS: u64 = BLOCK_BYTES / SLOT as u64;

/// Where an image is written to.
pub trait Output: Write + Seek {
    /// Takes away what is behind so many bytes.
    fn truncate(&mut self, length: u64) -> io::Result<()>;

    /// Fills the buffer with what was written from `at` on, wherever the next bytes go.
    fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<()>;
}

impl Output for File {
    fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(buffer, at)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

impl Output for Cursor<Vec<u8>> {
    fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let mut bytes = self.get_ref().get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default();
        bytes.read_exact(buffer)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.get_mut().truncate(usize::try_from(length).unwrap_or(usize::MAX));
        Ok(())
    }
}

impl<T: Output> Output for &mut T {
    fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        (**self).read_at(buffer, at)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        (**self).truncate(length)
    }
}

/// Writes one image. Paths are relative to its root, with or without a leading slash; the last of two entries
/// at one path wins; folders that were not named are root's, mode 0755, time 0. After an error from it the
/// image is lost.
pub struct Writer<W: Output> {
    out: BufWriter<W>,
    /// The length of the output: whole blocks, except within a method.
    pub(super) position: u64,
    pub(super) tree: Tree,
    /// The metadata block that is being filled.
    open: Vec<u8>,
    /// The block numbers of those that were filled.
    pub(super) closed: Vec<u32>,
    buffer: Vec<u8>,
    /// What was stored uncompressed.
    runs: Runs,
    /// Where files are compressed, what compresses them.
    pub(super) packer: Option<Packer>,
}

/// How data is divided between blocks of its own and the inode's block.
pub(super) struct Division {
    pub(super) layout: Layout,
    whole: u64,
    tail: usize,
}

impl Division {
    /// As much as possible goes behind an inode of `head` bytes, if `room` bytes are left in its block.
    pub(super) fn of(size: u64, head: usize, room: usize) -> Self {
        // A remainder of a block fits any integer.
        let tail = usize::try_from(size % BLOCK_BYTES).unwrap_or(BLOCK);
        if tail > 0 && head + tail <= room {
            Self { layout: Layout::Inline, whole: size - size % BLOCK_BYTES, tail }
        } else {
            Self { layout: Layout::Plain, whole: size, tail: 0 }
        }
    }

    fn blocks(&self) -> u64 {
        self.whole.div_ceil(BLOCK_BYTES)
    }
}

impl<W: Output> Writer<W> {
    /// Begins an image at the start of `out`, which has to be empty.
    pub fn new(out: W) -> Result<Self> {
        Self::begin(out, None)
    }

    /// Begins an image whose files are compressed by these threads.
    pub fn packed(out: W, pool: &Pool) -> Result<Self> {
        Self::begin(out, Some(Packer::new(pool.clone())))
    }

    /// The same by so many threads of its own.
    #[cfg(test)]
    pub fn compressed(out: W, compression: Compression, threads: Option<usize>) -> Result<Self> {
        Self::packed(out, &Pool::new(compression, threads, 1)?)
    }

    fn begin(out: W, packer: Option<Packer>) -> Result<Self> {
        let mut writer = Self {
            out: BufWriter::with_capacity(CHUNK, out),
            position: 0,
            tree: Tree::new(),
            open: Vec::with_capacity(BLOCK),
            closed: Vec::new(),
            buffer: vec![0; CHUNK],
            runs: Runs::new(),
            packer,
        };
        writer.write(&[0; BLOCK])?;
        Ok(writer)
    }

    /// What a path stands for so far; symbolic links are not followed.
    pub fn find(&self, path: &[u8]) -> Result<Option<Found<'_>>> {
        self.tree.find(path)
    }

    /// Shows every path so far, a folder before what is in it. The root's path is empty.
    pub fn walk(&self, visit: impl FnMut(&[u8], Found<'_>)) {
        self.tree.walk(visit);
    }

    /// Makes a folder, or gives the one at this path other metadata.
    pub fn directory(&mut self, path: &[u8], metadata: Metadata) -> Result<()> {
        // Attributes are stored at the end; what cannot be stored has to be told now, with the name at hand.
        let head = INODE_LEN + encode_xattrs(&metadata)?.len();
        if components(path)?.is_empty() && self.root_offset() + head > BLOCK {
            return Err(Error::new(
                "the extended attributes of the root folder do not fit into the first block",
            ));
        }
        self.tree.set_directory(path, metadata)
    }

    /// Adds a regular file with the next `size` bytes of `data`.
    pub fn file(&mut self, path: &[u8], metadata: &Metadata, size: u64, data: impl Read) -> Result<InodeId> {
        self.add_data(path, metadata, &Kind::File { size }, (size, data))
    }

    /// Adds a symbolic link, a device, a fifo or a socket.
    pub fn node(&mut self, path: &[u8], metadata: &Metadata, kind: &Kind) -> Result<InodeId> {
        let mut inode = raw_inode(metadata);
        match kind {
            Kind::Directory | Kind::File { .. } => {
                return Err(Error::new("folders and regular files are no special files"));
            }
            Kind::Symlink(target) => {
                if target.is_empty() || target.len() >= PATH_MAX || target.contains(&0) {
                    return Err(Error::new(
                        "the link's target is empty, longer than 4095 bytes or has a NUL byte",
                    ));
                }
                return self.add_data(path, metadata, kind, (target.len() as u64, target.as_slice()));
            }
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                inode.block_or_device = encode_device(*major, *minor).ok_or_else(|| {
                    Error::new(format!("the device number {major}:{minor} is out of Linux's range"))
                })?;
            }
            Kind::Fifo | Kind::Socket => {}
        }
        let id = self.add(path, kind)?;
        self.put(id, record(id, inode, kind, &[&encode_xattrs(metadata)?]))
    }

    /// Gives a file that was added before one more name.
    pub fn link(&mut self, path: &[u8], inode: InodeId) -> Result<()> {
        self.tree.set_inode(path, inode)
    }

    /// Takes a name away, with all below it, if it is there.
    pub fn remove(&mut self, path: &[u8]) -> Result<()> {
        self.tree.remove(path)
    }

    /// Writes the folders and the superblock. The image is complete only then.
    pub fn finish(mut self) -> Result<()> {
        self.finish_packing()?;
        let plan = self.plan_directories()?;
        for folder in plan.folders.iter().filter(|folder| folder.division.whole > 0) {
            let entries = self.entries(folder, &plan);
            self.write(&entries[..entries.len() - folder.division.tail])?;
            self.pad_to_block()?;
        }
        let metadata_start = self.position;
        let open = std::mem::take(&mut self.open);
        self.write(&open)?;
        let mut first = [0; BLOCK];
        for (number, folder) in plan.folders.iter().enumerate() {
            let record = self.directory_record(number, folder, &plan)?;
            if number == 0 {
                first[self.root_offset()..][..record.len()].copy_from_slice(&record);
            } else {
                self.write_zeros(metadata_start + folder.offset - self.position)?;
                self.write(&record)?;
            }
        }
        self.pad_to_block()?;
        let blocks = self.block_number()?;
        let files = self.patch_link_counts(&plan)?;
        let packing = self.packer.as_ref().map(Packer::packing);
        Super { inodes: files + plan.folders.len() as u64, blocks, packing }.put(&mut first);
        self.patch(0, &first)?;
        let written = self.out.flush().and_then(|()| self.out.get_mut().truncate(self.position));
        written.doing(|| "write the image")
    }

    /// Adds a file that has data: so many bytes from a reader.
    fn add_data(
        &mut self,
        path: &[u8],
        metadata: &Metadata,
        kind: &Kind,
        (size, data): (u64, impl Read),
    ) -> Result<InodeId> {
        let xattrs = encode_xattrs(metadata)?;
        if self.packer.is_some() && matches!(kind, Kind::File { .. }) {
            let id = self.add(path, kind)?;
            let inode = RawInode { size, ..raw_inode(metadata) };
            return self.pack(id, (inode, xattrs), data);
        }
        let division = Division::of(size, INODE_LEN + xattrs.len(), BLOCK);
        let (block, tail) = self.copy(&division, data)?;
        let inode = RawInode { layout: division.layout, size, block_or_device: block, ..raw_inode(metadata) };
        let id = self.add(path, kind)?;
        self.put(id, record(id, inode, kind, &[&xattrs, &tail]))
    }

    /// Stores the blocks of a file, and returns the first one and the rest.
    fn copy(&mut self, division: &Division, mut data: impl Read) -> Result<(u32, Vec<u8>)> {
        let mut block = 0;
        let length = division.whole;
        if length > 0 {
            let start = self.block_number()?;
            block = if self.runs.has_length(length) {
                let contents = self.copy_blocks(length, &mut data, true)?;
                if let Some(single) = self.runs.take_single(length) {
                    let contents = self.hash_blocks(single, length)?;
                    self.runs.find_or_keep(contents, single);
                }
                self.runs.find_or_keep(contents, start)
            } else {
                self.copy_blocks(length, &mut data, false)?;
                self.runs.keep_single(length, start);
                start
            };
            if block != start {
                self.rewind(start)?;
            }
        }
        let mut tail = vec![0; division.tail];
        fill(&mut data, &mut tail)?;
        Ok((block, tail))
    }

    /// Copies so many bytes to the output, in whole blocks, and hashes them if that is asked for.
    fn copy_blocks(&mut self, length: u64, data: &mut impl Read, hashes: bool) -> Result<Digest> {
        let mut contents = blake3::Hasher::new();
        let mut left = length;
        while left > 0 {
            let length = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            let chunk = &mut self.buffer[..length];
            fill(data, chunk)?;
            if hashes {
                contents.update(chunk);
            }
            self.out.write_all(chunk).doing(|| "write the image")?;
            self.position += length as u64;
            left -= length as u64;
        }
        self.pad_to_block()?;
        Ok(contents.finalize().into())
    }

    /// Hashes so many bytes that were written before.
    fn hash_blocks(&mut self, block: u32, length: u64) -> Result<Digest> {
        self.out.flush().doing(|| "write the image")?;
        let mut contents = blake3::Hasher::new();
        let mut at = u64::from(block) * BLOCK_BYTES;
        let end = at + length;
        while at < end {
            let length = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
            let chunk = &mut self.buffer[..length];
            self.out.get_mut().read_at(chunk, at).doing(|| "read the image again")?;
            contents.update(chunk);
            at += length as u64;
        }
        Ok(contents.finalize().into())
    }

    /// Goes back to a block, which is written anew, and all behind it.
    pub(super) fn rewind(&mut self, block: u32) -> Result<()> {
        self.position = u64::from(block) * BLOCK_BYTES;
        self.out.seek(SeekFrom::Start(self.position)).map(|_| ()).doing(|| "write the image")
    }

    /// Names an inode that will be put somewhere.
    fn add(&mut self, path: &[u8], kind: &Kind) -> Result<InodeId> {
        let id = self.tree.add_leaf(type_bits(kind), kind)?;
        self.tree.set_inode(path, id)?;
        Ok(id)
    }

    /// Puts an inode and what follows it into a metadata block.
    fn put(&mut self, id: InodeId, record: Vec<u8>) -> Result<InodeId> {
        if self.packer.is_some() {
            return self.pack_record(id, record);
        }
        if !self.open.is_empty() && self.open.len() + record.len() > BLOCK {
            self.close_block()?;
        }
        // The length of a block fits 32 bits.
        let slot = Slot {
            block: self.closed.len(),
            slot: u32::try_from(self.open.len() / SLOT).unwrap_or(u32::MAX),
        };
        self.open.extend(record);
        self.open.resize(self.open.len().next_multiple_of(SLOT), 0);
        self.tree.place(id, slot);
        Ok(id)
    }

    /// Writes the filled metadata block. One inode with large attributes may take several.
    fn close_block(&mut self) -> Result<()> {
        let number = self.block_number()?;
        self.closed.push(number);
        let open = std::mem::take(&mut self.open);
        self.write(&open)?;
        self.open = open;
        self.open.clear();
        self.pad_to_block()
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).doing(|| "write the image")?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn write_zeros(&mut self, count: u64) -> Result<()> {
        self.position += count;
        io::copy(&mut io::repeat(0).take(count), &mut self.out).map(|_| ()).doing(|| "write the image")
    }

    pub(super) fn pad_to_block(&mut self) -> Result<()> {
        self.write_zeros(self.position.next_multiple_of(BLOCK_BYTES) - self.position)
    }

    /// Overwrites bytes that were written before.
    fn patch(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.out.seek(SeekFrom::Start(at)).and_then(|_| self.out.write_all(bytes)).doing(|| "write the image")
    }

    /// The number of the block that is written next.
    pub(super) fn block_number(&self) -> Result<u32> {
        u32::try_from(self.position / BLOCK_BYTES)
            .map_err(|_| Error::new("the image would be larger than 16 TiB, which EROFS cannot hold"))
    }
}

impl<W: Output> Writer<W> {
    fn root_nid(&self) -> u64 {
        root_nid(self.packer.as_ref().map(Packer::packing))
    }

    /// Where the root's inode starts in block 0.
    fn root_offset(&self) -> usize {
        // It is in the first block.
        usize::try_from(self.root_nid()).map_or(BLOCK, |nid| nid * SLOT)
    }
}

/// Where the folders go.
struct Plan {
    /// Each after the one above it: the root is the first.
    folders: Vec<Folder>,
    /// The nids by the folders' indexes in the tree.
    nids: Vec<u64>,
}

/// Where a folder's inode and data go.
struct Folder {
    /// Its index in the tree.
    index: usize,
    division: Division,
    /// The first block of its data.
    block: u32,
    /// Where its inode starts, counted from the first block of metadata behind the folders' data.
    offset: u64,
}

impl<W: Output> Writer<W> {
    /// Decides where every folder goes, so that folders can refer to each other before any is written.
    fn plan_directories(&mut self) -> Result<Plan> {
        let first_block = u64::from(self.block_number()?);
        let mut blocks = 0;
        let mut offset = self.open.len() as u64;
        let mut folders = Vec::new();
        let root_nid = self.root_nid();
        let root_room = BLOCK - self.root_offset();
        for index in self.tree.reachable() {
            let directory = &self.tree.directories[index];
            let head = INODE_LEN + encode_xattrs(&directory.metadata)?.len();
            let names = directory.children.keys().map(|name| Name { name, nid: 0, file_type: 0 });
            let size = directory::pack(names.collect(), root_nid, root_nid).len() as u64;
            let is_root = index == 0;
            let division = Division::of(size, head, if is_root { root_room } else { BLOCK });
            let length = (head + division.tail) as u64;
            offset = offset.next_multiple_of(SLOT as u64);
            if !is_root && offset % BLOCK_BYTES + length > BLOCK_BYTES {
                offset = offset.next_multiple_of(BLOCK_BYTES);
            }
            let block = if division.whole == 0 { 0 } else { first_block + blocks };
            let block = u32::try_from(block).doing(|| "address an image of more than 16 TiB")?;
            blocks += division.blocks();
            folders.push(Folder { index, division, block, offset });
            // The root's inode has its place in block 0.
            offset += if is_root { 0 } else { length };
        }
        // The metadata block that is still open moves behind the folders' data, and the folders' inodes
        // follow in it.
        let metadata_block = first_block + blocks;
        self.closed.push(u32::try_from(metadata_block).doing(|| "address an image of more than 16 TiB")?);
        let mut nids = vec![root_nid; self.tree.directories.len()];
        for folder in folders.iter().skip(1) {
            nids[folder.index] = metadata_block * SLOTS + folder.offset / SLOT as u64;
        }
        Ok(Plan { folders, nids })
    }

    /// A folder's inode, attributes and the rest of its entries.
    fn directory_record(&self, number: usize, folder: &Folder, plan: &Plan) -> Result<Vec<u8>> {
        let directory = &self.tree.directories[folder.index];
        let xattrs = encode_xattrs(&directory.metadata)?;
        let entries = self.entries(folder, plan);
        let below = directory.children.values().filter(|child| matches!(child, Child::Directory(_)));
        let ino = self.tree.leaf_count() as usize + 1 + number;
        let mut inode = raw_inode(&directory.metadata);
        inode.mode |= type_bits(&Kind::Directory);
        inode.layout = folder.division.layout;
        inode.xattr_count = xattr::count(xattrs.len());
        inode.size = entries.len() as u64;
        inode.block_or_device = folder.block;
        inode.ino = u32::try_from(ino).doing(|| "number more than 4 billion files")?;
        inode.nlink = u32::try_from(below.count() + 2).doing(|| "count the folders in a folder")?;
        let mut record = inode.encode().to_vec();
        record.extend(xattrs);
        record.extend(&entries[entries.len() - folder.division.tail..]);
        Ok(record)
    }

    /// A folder's data.
    fn entries(&self, folder: &Folder, plan: &Plan) -> Vec<u8> {
        let directory = &self.tree.directories[folder.index];
        let names = directory.children.iter().map(|(name, child)| match child {
            Child::Directory(index) => {
                Name { name, nid: plan.nids[*index], file_type: file_type(type_bits(&Kind::Directory)) }
            }
            Child::Inode(id) => {
                let leaf = self.tree.leaf(*id);
                Name { name, nid: self.nid(leaf.slot), file_type: file_type(leaf.type_bits) }
            }
        });
        directory::pack(names.collect(), plan.nids[folder.index], plan.nids[directory.parent])
    }

    /// Corrects the inodes that have more than one name, and returns how many have any.
    fn patch_link_counts(&mut self, plan: &Plan) -> Result<u64> {
        let mut counts = vec![0u32; self.tree.leaves().len()];
        for folder in &plan.folders {
            for child in self.tree.directories[folder.index].children.values() {
                if let Child::Inode(id) = child {
                    counts[id.index()] += 1;
                }
            }
        }
        for (index, count) in counts.iter().enumerate().filter(|(_, count)| **count > 1) {
            let inode = self.nid(self.tree.leaves()[index].slot) * SLOT as u64;
            self.patch(inode + RawInode::NLINK_OFFSET, &count.to_le_bytes())?;
        }
        Ok(counts.iter().filter(|count| **count > 0).count() as u64)
    }

    /// The node id of what is in a slot, once its block has a number.
    fn nid(&self, slot: Slot) -> u64 {
        u64::from(self.closed[slot.block]) * SLOTS + u64::from(slot.slot)
    }
}

/// An inode's bytes, and those that follow it: its attributes come first.
pub(super) fn record(id: InodeId, inode: RawInode, kind: &Kind, rest: &[&[u8]]) -> Vec<u8> {
    let xattr_count = xattr::count(rest.first().map_or(0, |xattrs| xattrs.len()));
    let mode = type_bits(kind) | inode.mode;
    // There are fewer than 2^32 inodes.
    let ino = u32::try_from(id.index() + 1).unwrap_or(u32::MAX);
    let mut record = RawInode { xattr_count, mode, ino, ..inode }.encode().to_vec();
    rest.iter().for_each(|bytes| record.extend_from_slice(bytes));
    record
}

/// What an inode takes from the metadata. Bits beyond the permissions would change the type.
fn raw_inode(metadata: &Metadata) -> RawInode {
    RawInode {
        layout: Layout::Plain,
        xattr_count: 0,
        mode: metadata.mode & 0o7777,
        size: 0,
        block_or_device: 0,
        ino: 0,
        uid: metadata.uid,
        gid: metadata.gid,
        mtime: metadata.mtime,
        mtime_nsec: metadata.mtime_nsec,
        nlink: 1,
    }
}

fn encode_xattrs(metadata: &Metadata) -> Result<Vec<u8>> {
    xattr::encode(&metadata.xattrs).map_err(Error::new)
}

/// Reads exactly as much as the buffer takes. The reader's own errors come first: it may have found out that
/// what it reads is not what was promised.
pub(super) fn fill(data: &mut impl Read, buffer: &mut [u8]) -> Result<()> {
    data.read_exact(buffer).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => Error::new("the contents end before the size that was announced"),
        _ => Error::new(error.to_string()),
    })
}
