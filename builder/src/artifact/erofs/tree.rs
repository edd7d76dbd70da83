//! The names of an image that is being written: all that stays in memory until the end.

use std::collections::BTreeMap;

use super::format::{NAME_MAX, PATH_MAX};
use super::{Kind, Metadata};
use crate::error::{Error, Result};

/// What the names of one image may take in memory: about three million files. More is an attack or a mistake.
const TREE_MAX: usize = 512 << 20;

/// About what a name, a file and a folder take in memory beside the bytes that they hold.
const NAME_COST: usize = 64;
const INODE_COST: usize = 40;
const DIRECTORY_COST: usize = 160;

/// A file of the image, whatever its names: anything but a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InodeId(u32);

impl InodeId {
    /// Its place in [`Tree::leaves`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a path of the image stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// A folder.
    Directory(&'a Metadata),
    /// A symbolic link, with its target.
    Symlink(InodeId, &'a [u8]),
    /// A character device 0:0.
    Whiteout(InodeId),
    /// Any other file.
    Other(InodeId),
}

/// Where an inode was put: a slot of a metadata block that may not have an address yet.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// Which of the metadata blocks.
    pub block: usize,
    /// The inode's place in it, counted in slots.
    pub slot: u32,
}

/// An inode. Where it is, is known once it is written.
#[derive(Debug)]
pub struct Leaf {
    /// Where it is.
    pub slot: Slot,
    /// Its file type bits.
    pub type_bits: u16,
    what: What,
}

/// What has to be known of an inode when a later path meets it.
#[derive(Debug)]
enum What {
    Symlink(Box<[u8]>),
    Whiteout,
    Other,
}

/// What a name in a folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Child {
    /// An index into [`Tree::directories`].
    Directory(usize),
    /// A file.
    Inode(InodeId),
}

/// A folder, written at the end.
#[derive(Debug)]
pub struct Directory {
    /// The folder above; the root is its own.
    pub parent: usize,
    /// Its owner, mode and so on.
    pub metadata: Metadata,
    /// What is in it, by name.
    pub children: BTreeMap<Box<[u8]>, Child>,
}

/// All names of an image.
#[derive(Debug)]
pub struct Tree {
    /// The root is the first. Some may not be reached any more, because something else took their name.
    pub directories: Vec<Directory>,
    leaves: Vec<Leaf>,
    held: usize,
}

impl Tree {
    /// A root folder that belongs to root, with mode 0755.
    pub fn new() -> Self {
        let root = Directory { parent: 0, metadata: Metadata::new(0o755), children: BTreeMap::new() };
        Self { directories: vec![root], leaves: Vec::new(), held: 0 }
    }

    /// The written inode.
    pub fn leaf(&self, id: InodeId) -> &Leaf {
        &self.leaves[id.index()]
    }

    /// All written inodes, in the order of writing.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// The number of inodes so far.
    pub fn leaf_count(&self) -> u32 {
        // `add_leaf` lets no more in.
        u32::try_from(self.leaves.len()).unwrap_or(u32::MAX)
    }

    /// Takes up an inode that will be written.
    pub fn add_leaf(&mut self, type_bits: u16, kind: &Kind) -> Result<InodeId> {
        let id = InodeId(self.leaf_count());
        let what = match kind {
            Kind::Symlink(target) => {
                self.charge(target.len())?;
                What::Symlink(target.as_slice().into())
            }
            _ if *kind == Kind::WHITEOUT => What::Whiteout,
            _ => What::Other,
        };
        self.charge(INODE_COST)?;
        self.leaves.push(Leaf { slot: Slot { block: 0, slot: 0 }, type_bits, what });
        Ok(id)
    }

    /// Says where an inode was written.
    pub fn place(&mut self, id: InodeId, slot: Slot) {
        self.leaves[id.index()].slot = slot;
    }

    /// What a path stands for; symbolic links are not followed.
    pub fn find(&self, path: &[u8]) -> Result<Option<Found<'_>>> {
        let mut child = Child::Directory(0);
        for name in components(path)? {
            let Child::Directory(index) = child else { return Ok(None) };
            let Some(found) = self.directories[index].children.get(name) else { return Ok(None) };
            child = *found;
        }
        Ok(Some(self.found(child)))
    }

    /// Makes a folder, or gives the one that is there new metadata. Anything else there gives way.
    pub fn set_directory(&mut self, path: &[u8], metadata: Metadata) -> Result<()> {
        self.charge(metadata.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum())?;
        let Some((parent, name)) = self.parent(path)? else {
            self.directories[0].metadata = metadata;
            return Ok(());
        };
        if let Some(Child::Directory(index)) = self.directories[parent].children.get(name).copied() {
            self.directories[index].metadata = metadata;
            return Ok(());
        }
        self.add_directory(parent, name, metadata)?;
        Ok(())
    }

    /// Gives an inode a name. Whatever had the name before gives way, with all below it.
    pub fn set_inode(&mut self, path: &[u8], inode: InodeId) -> Result<()> {
        let Some((parent, name)) = self.parent(path)? else {
            return Err(Error::new("the root of a file system has to be a folder"));
        };
        self.charge(NAME_COST + name.len())?;
        self.directories[parent].children.insert(name.into(), Child::Inode(inode));
        Ok(())
    }

    /// Takes a name away, with all below it.
    pub fn remove(&mut self, path: &[u8]) -> Result<()> {
        let names = components(path)?;
        let Some((name, parents)) = names.split_last() else {
            return Err(Error::new("the root of a file system cannot be removed"));
        };
        let mut index = 0;
        for name in parents {
            match self.directories[index].children.get(*name) {
                Some(Child::Directory(below)) => index = *below,
                _ => return Ok(()),
            }
        }
        self.directories[index].children.remove(*name);
        Ok(())
    }

    /// Shows every path, a folder before what is in it, with what it stands for. The root's path is empty.
    pub fn walk(&self, mut visit: impl FnMut(&[u8], Found<'_>)) {
        let mut waiting = vec![(Vec::new(), Child::Directory(0))];
        while let Some((path, child)) = waiting.pop() {
            visit(&path, self.found(child));
            let Child::Directory(index) = child else { continue };
            for (name, child) in self.directories[index].children.iter().rev() {
                waiting.push((joined(&path, name), *child));
            }
        }
    }

    /// The folders that can be reached, each after the one above it.
    pub fn reachable(&self) -> Vec<usize> {
        let mut order = vec![0];
        let mut next = 0;
        while let Some(&index) = order.get(next) {
            let below = self.directories[index].children.values();
            order.extend(below.filter_map(|child| match child {
                Child::Directory(index) => Some(*index),
                Child::Inode(_) => None,
            }));
            next += 1;
        }
        order
    }

    /// The folder that a path is in, and the name there; nothing for the root. Folders that are missing on
    /// the way are made: root's, mode 0755, time 0.
    fn parent<'a>(&mut self, path: &'a [u8]) -> Result<Option<(usize, &'a [u8])>> {
        let names = components(path)?;
        let Some((name, parents)) = names.split_last() else { return Ok(None) };
        let mut index = 0;
        for name in parents {
            index = match self.directories[index].children.get(*name) {
                Some(Child::Directory(below)) => *below,
                None => self.add_directory(index, name, Metadata::new(0o755))?,
                Some(Child::Inode(_)) => {
                    return Err(Error::new(format!("`{}` is not a folder", name.escape_ascii())));
                }
            };
        }
        Ok(Some((index, name)))
    }

    fn add_directory(&mut self, parent: usize, name: &[u8], metadata: Metadata) -> Result<usize> {
        self.charge(DIRECTORY_COST + NAME_COST + name.len())?;
        let index = self.directories.len();
        self.directories.push(Directory { parent, metadata, children: BTreeMap::new() });
        self.directories[parent].children.insert(name.into(), Child::Directory(index));
        Ok(index)
    }

    fn found(&self, child: Child) -> Found<'_> {
        match child {
            Child::Directory(index) => Found::Directory(&self.directories[index].metadata),
            Child::Inode(id) => match &self.leaf(id).what {
                What::Symlink(target) => Found::Symlink(id, target),
                What::Whiteout => Found::Whiteout(id),
                What::Other => Found::Other(id),
            },
        }
    }

    fn charge(&mut self, bytes: usize) -> Result<()> {
        self.held += bytes;
        if self.held > TREE_MAX {
            let limit = TREE_MAX >> 20;
            return Err(Error::new(format!("the names of all files take more than {limit} MiB of memory")));
        }
        Ok(())
    }
}

/// The names of a path, from the root down. `.` and doubled slashes mean nothing; `..` is refused, since what
/// it means depends on links.
pub fn components(path: &[u8]) -> Result<Vec<&[u8]>> {
    let reason = if path.len() > PATH_MAX {
        format!("is longer than {PATH_MAX} bytes")
    } else if path.contains(&0) {
        "contains a NUL byte".to_owned()
    } else {
        let names: Vec<_> =
            path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
        if names.contains(&b"..".as_slice()) {
            "contains `..`".to_owned()
        } else if names.iter().any(|name| name.len() > NAME_MAX) {
            format!("has a name of more than {NAME_MAX} bytes")
        } else {
            return Ok(names);
        }
    };
    Err(Error::new(format!("the path {reason}")))
}

/// The path of a name in a folder, where the root is empty and no path begins with a slash.
fn joined(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, name].join(&b'/') }
}
