//! Every file of one layer's image, from a folder down.

use std::collections::HashSet;
use std::rc::Rc;

use super::names;
use crate::artifact::erofs::{Image, Inode, Kind, PATH_MAX, damaged};
use crate::error::{Result, shown};

/// What the names of a walk may take in memory: no image that was written here has as many.
const NAMES_MAX: usize = 512 << 20;

/// A file's path: relative to the root, which is empty itself. All files of a folder share its part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    folder: Rc<[u8]>,
    name: Box<[u8]>,
}

impl Place {
    /// The place of a folder to begin with.
    pub fn of(path: &[u8]) -> Self {
        let (folder, name) = names::parent(path).unwrap_or_default();
        Self { folder: folder.into(), name: name.into() }
    }

    /// The folder's path.
    pub fn folder(&self) -> &[u8] {
        &self.folder
    }

    /// The name there; empty for the root.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// All of it.
    pub fn path(&self) -> Vec<u8> {
        names::joined(&self.folder, &self.name)
    }

    /// About what it takes in memory.
    pub fn cost(&self) -> usize {
        size_of::<Self>() + self.name.len()
    }
}

/// Adds up what names take in memory.
#[derive(Debug, Default)]
pub struct Held(usize);

impl Held {
    /// Takes up so many bytes more, within reason.
    pub fn add(&mut self, bytes: usize) -> Result<()> {
        self.0 += bytes;
        if self.0 > NAMES_MAX {
            let limit = NAMES_MAX >> 20;
            return Err(damaged(format_args!("its names take more than {limit} MiB of memory")));
        }
        Ok(())
    }
}

/// Goes through the files of an image: a folder first, then what is in it, by name.
pub struct Walk<'a> {
    image: &'a Image,
    /// What comes next is last.
    waiting: Vec<(Place, u64)>,
    /// What the waiting names take in memory.
    held: Held,
    /// The folders so far: a damaged image may have one inside itself.
    folders: HashSet<u64>,
}

impl<'a> Walk<'a> {
    /// Begins with a file, most likely a folder.
    pub fn new(image: &'a Image, place: Place, inode: &Inode) -> Self {
        let held = Held(place.cost());
        Self { image, waiting: vec![(place, inode.nid)], held, folders: HashSet::new() }
    }

    /// The next file.
    pub fn next(&mut self) -> Result<Option<(Place, Inode)>> {
        let Some((place, nid)) = self.waiting.pop() else { return Ok(None) };
        self.held.0 -= place.cost();
        let inode = self.image.inode(nid)?;
        if inode.kind == Kind::Directory {
            self.enter(&place, &inode)?;
        }
        Ok(Some((place, inode)))
    }

    fn enter(&mut self, place: &Place, inode: &Inode) -> Result<()> {
        let path: Rc<[u8]> = place.path().into();
        if !self.folders.insert(inode.nid) {
            return Err(damaged(format_args!("the folder `/{}` is in two places", shown(&path))));
        }
        if path.len() > PATH_MAX {
            return Err(damaged(format_args!("the path `/{}` is too long", shown(&path))));
        }
        for entry in self.image.list(inode)?.into_iter().rev() {
            let place = Place { folder: Rc::clone(&path), name: entry.name.into() };
            self.held.add(place.cost())?;
            self.waiting.push((place, entry.nid));
        }
        Ok(())
    }
}
