//! The reader of images that this program wrote: what a later layer, or a plan, needs to know of a layer.
//!
//! An image may have been damaged in the store. Every number in it is checked, so that damage is an error.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::format::{
    BLOCK, BLOCK_BYTES, Codec, INODE_LEN, Layout, PATH_MAX, RawInode, SLOT, Super, TYPE_MASK, decode_device,
    root_nid, type_bits,
};
use super::index::{self, Placed};
use super::{Kind, Metadata, codec, directory, xattr};
use crate::error::{Context as _, Error, Result};

/// What the names of one folder may take in memory: the writer takes in no more for all of an image.
const NAMES_MAX: usize = 512 << 20;

/// An image that is open for reading.
#[derive(Debug)]
pub struct Image {
    file: File,
    length: u64,
    root: u64,
    codec: Option<Codec>,
}

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Its owner, mode and so on.
    pub metadata: Metadata,
    /// What it is.
    pub kind: Kind,
    /// The number of its names.
    pub links: u32,
    /// Its number in the image: equal for two names of one file.
    pub nid: u64,
    /// Its place in the order in which files were written; folders come last.
    pub order: u32,
    data: Data,
}

/// Where an inode's data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Data {
    size: u64,
    is_compressed: bool,
    /// How many of the bytes are in blocks of their own, and where these start.
    whole: u64,
    whole_at: u64,
    /// Where the rest starts, or the index of compressed data.
    tail_at: u64,
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Vec<u8>,
    /// The number of the file that has it.
    pub nid: u64,
}

impl Image {
    /// Opens the image in a file.
    pub fn open(path: &Path) -> Result<Self> {
        let doing = || format!("open the layer `{}`", path.display());
        let file = File::open(path).doing(doing)?;
        let length = file.metadata().doing(doing)?.len();
        Self::check(file, length).map_err(|error| error.within(format!("`{}`", path.display())))
    }

    /// Opens an image that is in memory.
    #[cfg(any(test, fuzzing))]
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        let file = tempfile::tempfile().doing(|| "make a temporary file")?;
        file.write_all_at(&bytes, 0).doing(|| "write a temporary file")?;
        Self::check(file, bytes.len() as u64)
    }

    fn check(file: File, length: u64) -> Result<Self> {
        let mut image = Self { file, length, root: 0, codec: None };
        let mut block = [0; BLOCK];
        image.read_at(&mut block, 0)?;
        let found = Super::get(&block)
            .map_err(|reason| Error::new(format!("this is not a layer in Coracle's format: {reason}")))?;
        if u64::from(found.blocks) * BLOCK_BYTES != length {
            return Err(damaged("its length is not what its superblock says"));
        }
        image.root = root_nid(found.packing);
        image.codec = found.packing.map(|packing| packing.codec);
        Ok(image)
    }

    /// The root folder.
    pub fn root(&self) -> Result<Inode> {
        let root = self.inode(self.root)?;
        if root.kind != Kind::Directory {
            return Err(damaged("its root is not a folder"));
        }
        Ok(root)
    }

    /// What a path stands for; symbolic links are not followed.
    #[cfg(test)]
    pub fn find(&self, path: &[u8]) -> Result<Option<Inode>> {
        let mut inode = self.root()?;
        for name in super::tree::components(path)? {
            match self.lookup(&inode, name)? {
                Some(found) => inode = found,
                None => return Ok(None),
            }
        }
        Ok(Some(inode))
    }

    /// What a name in a folder stands for; nothing if the inode is not a folder.
    pub fn lookup(&self, folder: &Inode, name: &[u8]) -> Result<Option<Inode>> {
        if folder.kind != Kind::Directory {
            return Ok(None);
        }
        // Blocks are sorted: the name is in the last block that does not begin with a greater one.
        let mut low = 0;
        let mut high = folder.data.size.div_ceil(BLOCK_BYTES);
        let mut candidate = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let block = self.directory_block(folder, middle)?;
            let names = unpack(&block)?;
            if names.first().is_some_and(|first| first.name <= name) {
                candidate = names.iter().find(|found| found.name == name).map(|found| found.nid);
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        candidate.map(|nid| self.inode(nid)).transpose()
    }

    /// The names in a folder, sorted, without `.` and `..`.
    pub fn list(&self, folder: &Inode) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut held = 0;
        if folder.kind != Kind::Directory {
            return Ok(entries);
        }
        for number in 0..folder.data.size.div_ceil(BLOCK_BYTES) {
            let block = self.directory_block(folder, number)?;
            let names = unpack(&block)?;
            held += names.iter().map(|found| size_of::<Entry>() + found.name.len()).sum::<usize>();
            if held > NAMES_MAX {
                return Err(damaged("a folder has more names than are ever written"));
            }
            let names = names.iter().filter(|found| !matches!(found.name, b"." | b".."));
            entries.extend(names.map(|found| Entry { name: found.name.to_vec(), nid: found.nid }));
        }
        Ok(entries)
    }

    /// The inode with this number.
    pub fn inode(&self, nid: u64) -> Result<Inode> {
        let at = nid.checked_mul(SLOT as u64).ok_or_else(|| damaged("an inode's number is too large"))?;
        let mut raw = [0; INODE_LEN];
        self.read_at(&mut raw, at)?;
        let raw =
            RawInode::decode(&raw).ok_or_else(|| damaged("an inode has a layout that is never written"))?;
        let mut attributes = vec![0; xattr::len(raw.xattr_count)];
        let head = (INODE_LEN + attributes.len()) as u64;
        if raw.mtime_nsec >= 1_000_000_000 {
            return Err(damaged("a time has more nanoseconds than a second"));
        }
        self.read_at(&mut attributes, at + INODE_LEN as u64)?;
        let xattrs = xattr::decode(&attributes).ok_or_else(|| damaged("extended attributes are corrupt"))?;
        let (whole, tail_at) = match raw.layout {
            Layout::Plain => (raw.size, at + head),
            Layout::Inline => (raw.size - raw.size % BLOCK_BYTES, at + head),
            Layout::Compressed => (0, at + head.next_multiple_of(8)),
        };
        let is_compressed = raw.layout == Layout::Compressed;
        let whole_at = u64::from(raw.block_or_device) * BLOCK_BYTES;
        let data = Data { size: raw.size, is_compressed, whole, whole_at, tail_at };
        let inode = Inode {
            metadata: Metadata {
                mode: raw.mode & !TYPE_MASK,
                uid: raw.uid,
                gid: raw.gid,
                mtime: raw.mtime,
                mtime_nsec: raw.mtime_nsec,
                xattrs,
            },
            kind: self.kind(&raw, &data)?,
            links: raw.nlink,
            nid,
            order: raw.ino,
            data,
        };
        let has_data = matches!(inode.kind, Kind::Directory | Kind::File { .. } | Kind::Symlink(_));
        // A compressed file has an index, and more bytes than the image perhaps.
        let stored = if is_compressed { index::len(raw.size) } else { raw.size };
        if has_data && stored > self.length {
            return Err(damaged("a file is larger than the image"));
        }
        if is_compressed && (self.codec.is_none() || !matches!(inode.kind, Kind::File { .. })) {
            return Err(damaged("something is compressed that never is"));
        }
        Ok(inode)
    }

    /// The contents of a file: nothing if the inode is of another kind.
    pub fn contents<'a>(&'a self, inode: &Inode) -> Contents<'a> {
        let left = if matches!(inode.kind, Kind::File { .. }) { inode.data.size } else { 0 };
        let at = inode.data.size - left;
        Contents { image: self, data: inode.data, at, clusters: None, cluster: Vec::new(), cluster_at: 0 }
    }

    fn kind(&self, raw: &RawInode, data: &Data) -> Result<Kind> {
        let (major, minor) = decode_device(raw.block_or_device);
        let kinds = [
            Kind::Directory,
            Kind::File { size: raw.size },
            Kind::CharDevice { major, minor },
            Kind::BlockDevice { major, minor },
            Kind::Fifo,
            Kind::Socket,
            Kind::Symlink(Vec::new()),
        ];
        let found = kinds.into_iter().find(|kind| type_bits(kind) == raw.mode & TYPE_MASK);
        match found.ok_or_else(|| damaged("an inode has no file type"))? {
            Kind::Symlink(mut target) => {
                let length = usize::try_from(raw.size).unwrap_or(PATH_MAX);
                if length >= PATH_MAX {
                    return Err(damaged("a symbolic link is too long"));
                }
                target.resize(length, 0);
                self.read_data(data, 0, &mut target)?;
                if target.is_empty() || target.contains(&0) {
                    return Err(damaged("a symbolic link leads nowhere"));
                }
                Ok(Kind::Symlink(target))
            }
            kind => Ok(kind),
        }
    }

    fn directory_block(&self, folder: &Inode, number: u64) -> Result<Vec<u8>> {
        let start = number * BLOCK_BYTES;
        let length = (folder.data.size - start).min(BLOCK_BYTES);
        // At most the length of a block.
        let mut block = vec![0; usize::try_from(length).unwrap_or(BLOCK)];
        self.read_data(&folder.data, start, &mut block)?;
        Ok(block)
    }

    /// Reads data that does not cross from the blocks to the rest, which is shorter than a block.
    fn read_data(&self, data: &Data, from: u64, buffer: &mut [u8]) -> Result<()> {
        let at = if from < data.whole { data.whole_at + from } else { data.tail_at + (from - data.whole) };
        self.read_at(buffer, at)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        let end = at.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(damaged("it refers to bytes beyond its end"));
        }
        self.file.read_exact_at(buffer, at).doing(|| "read a layer")
    }
}

impl Image {
    /// Where the clusters of compressed data are, the last one first.
    fn clusters(&self, data: &Data) -> Result<Vec<Placed>> {
        let corrupt = || damaged("the index of a compressed file is corrupt");
        let codec = self.codec.ok_or_else(corrupt)?;
        let mut raw = vec![0; usize::try_from(index::len(data.size)).unwrap_or(0)];
        self.read_at(&mut raw, data.tail_at)?;
        let mut index = index::decode(&raw, data.size, codec).ok_or_else(corrupt)?;
        index.clusters.reverse();
        Ok(index.clusters)
    }

    /// The bytes of a file that a cluster stands for.
    fn inflate(&self, data: &Data, placed: &Placed) -> Result<Vec<u8>> {
        let corrupt = || damaged("a compressed file is corrupt");
        let length = usize::try_from(placed.extent.length).unwrap_or(0);
        let mut stored;
        if placed.extent.blocks == 0 {
            stored = vec![0; self.inlined(data)?];
            self.read_at(&mut stored, data.tail_at + index::len(data.size))?;
        } else {
            stored = vec![0; usize::from(placed.extent.blocks) * BLOCK];
            self.read_at(&mut stored, u64::from(placed.block) * BLOCK_BYTES)?;
        }
        if placed.extent.plain {
            if length > stored.len() {
                return Err(corrupt());
            }
            stored.truncate(length);
            return Ok(stored);
        }
        let codec = self.codec.ok_or_else(corrupt)?;
        codec::inflate(codec, &stored, length).ok_or_else(corrupt)
    }

    /// The length of the cluster that stands behind the index.
    fn inlined(&self, data: &Data) -> Result<usize> {
        let mut length = [0; 2];
        self.read_at(&mut length, data.tail_at + 2)?;
        Ok(usize::from(u16::from_le_bytes(length)))
    }
}

/// Reads the contents of a file from front to back.
#[derive(Debug)]
pub struct Contents<'a> {
    image: &'a Image,
    data: Data,
    at: u64,
    /// Of a compressed file, the clusters that were not read yet, the next one last.
    clusters: Option<Vec<Placed>>,
    cluster: Vec<u8>,
    /// How much of the cluster was read.
    cluster_at: usize,
}

impl Contents<'_> {
    fn read_compressed(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.clusters.is_none() {
            self.clusters = Some(self.image.clusters(&self.data)?);
        }
        if self.cluster_at == self.cluster.len()
            && let Some(next) = self.clusters.as_mut().and_then(Vec::pop)
        {
            self.cluster = self.image.inflate(&self.data, &next)?;
            self.cluster_at = 0;
        }
        let left = &self.cluster[self.cluster_at..];
        let length = left.len().min(buffer.len());
        buffer[..length].copy_from_slice(&left[..length]);
        self.cluster_at += length;
        self.at += length as u64;
        Ok(length)
    }
}

impl Read for Contents<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.data.is_compressed {
            let at_end = self.at == self.data.size;
            return Ok(if at_end { 0 } else { self.read_compressed(buffer)? });
        }
        let end = if self.at < self.data.whole { self.data.whole } else { self.data.size };
        let length = usize::try_from(end - self.at).map_or(buffer.len(), |left| left.min(buffer.len()));
        self.image.read_data(&self.data, self.at, &mut buffer[..length])?;
        self.at += length as u64;
        Ok(length)
    }
}

fn unpack(block: &[u8]) -> Result<Vec<directory::Name<'_>>> {
    directory::unpack(block).ok_or_else(|| damaged("a folder is corrupt"))
}

/// An image that was never written like this.
pub fn damaged(reason: impl std::fmt::Display) -> Error {
    Error::new(format!("the layer's image is damaged: {reason}"))
        .hint("remove it from the store, it will be made again")
}
