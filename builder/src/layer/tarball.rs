//! A layer's image as the archive of an OCI layer again, whiteouts and opaque folders as its specification spells them.
//!
//! Folders come first, so that nothing in the archive asks for a layer below; then all other files in the order in which
//! the image was written. So the archive makes the same image again, byte for byte, on the same lower layers. Only the
//! names are in memory; contents go from the image to the archive in pieces.

use std::io::{Read as _, Write};

use super::names::{self, WHITEOUT};
use super::tree::OPAQUE;
use super::walk::{Held, Place, Walk};
use crate::archive::{Entry, EntryKind, header};
use crate::artifact::erofs::{Image, Inode, Kind, Metadata};
use crate::error::{Context as _, Error, Result, shown};

/// How much is copied at once.
const CHUNK: usize = 256 * 1024;

/// What a whiteout of everything in a folder is called.
const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

/// One name of a file that is no folder.
struct Leaf {
    place: Place,
    order: u32,
    nid: u64,
}

/// Writes the archive of a layer.
pub fn write(image: &Image, out: &mut impl Write) -> Result<()> {
    let mut leaves = Vec::new();
    let mut held = Held::default();
    let mut walk = Walk::new(image, Place::of(b""), &image.root()?);
    let mut archive = Archive { image, out, buffer: vec![0; CHUNK] };
    while let Some((place, inode)) = walk.next()? {
        if place.name().starts_with(WHITEOUT) {
            return Err(Error::new("it has the name of a whiteout").within(quoted(&place.path())));
        }
        if inode.kind == Kind::Directory {
            held.add(place.path().len())?;
            archive.folder(&place, inode.metadata)?;
            continue;
        }
        held.add(size_of::<Leaf>() + place.name().len())?;
        leaves.push(Leaf { place, order: inode.order, nid: inode.nid });
    }
    // The names of one file stay in the order of their paths.
    leaves.sort_by_key(|leaf| (leaf.order, leaf.nid));
    for names in leaves.chunk_by(|a, b| a.nid == b.nid) {
        archive.file(names)?;
    }
    archive.put(&header::END)
}

/// The archive that is written.
struct Archive<'a, W> {
    image: &'a Image,
    out: &'a mut W,
    buffer: Vec<u8>,
}

impl<W: Write> Archive<'_, W> {
    fn folder(&mut self, place: &Place, mut metadata: Metadata) -> Result<()> {
        let path = place.path();
        let is_opaque = metadata.xattrs.remove(OPAQUE).is_some();
        let name = if path.is_empty() { b".".to_vec() } else { path.clone() };
        self.entry(name, metadata, EntryKind::Node(Kind::Directory))?;
        if is_opaque { self.marker(names::joined(&path, OPAQUE_NAME)) } else { Ok(()) }
    }

    /// Writes a file and its further names.
    fn file(&mut self, leaves: &[Leaf]) -> Result<()> {
        let Some((first, others)) = leaves.split_first() else { return Ok(()) };
        let inode = self.image.inode(first.nid)?;
        if inode.kind == Kind::WHITEOUT {
            let hidden = leaves.iter().map(|leaf| &leaf.place);
            let name = |place: &Place| names::joined(place.folder(), &[WHITEOUT, place.name()].concat());
            return hidden.map(name).try_for_each(|name| self.marker(name));
        }
        let path = first.place.path();
        self.entry(path.clone(), inode.metadata.clone(), EntryKind::Node(inode.kind.clone()))?;
        if let Kind::File { size } = inode.kind {
            self.contents(&inode, size).map_err(|error| error.within(quoted(&path)))?;
        }
        for leaf in others {
            let kind = EntryKind::HardLink(path.clone());
            self.entry(leaf.place.path(), inode.metadata.clone(), kind)?;
        }
        Ok(())
    }

    fn contents(&mut self, inode: &Inode, size: u64) -> Result<()> {
        let mut contents = self.image.contents(inode);
        let mut left = size;
        while left > 0 {
            let length = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            let read =
                contents.read(&mut self.buffer[..length]).map_err(|error| Error::new(error.to_string()))?;
            if read == 0 {
                return Err(Error::new("its contents end early"));
            }
            self.out.write_all(&self.buffer[..read]).doing(writing)?;
            left -= read as u64;
        }
        self.put(header::padding(size))
    }

    /// Writes an empty file whose name says everything.
    fn marker(&mut self, name: Vec<u8>) -> Result<()> {
        self.entry(name, Metadata::new(0), EntryKind::Node(Kind::File { size: 0 }))
    }

    fn entry(&mut self, name: Vec<u8>, metadata: Metadata, kind: EntryKind) -> Result<()> {
        let entry = Entry { name, metadata, kind };
        let header = header::encode(&entry).map_err(|error| error.within(quoted(&entry.name)))?;
        self.put(&header)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).doing(writing)
    }
}

fn writing() -> &'static str {
    "write the archive"
}

fn quoted(path: &[u8]) -> String {
    format!("`/{}`", shown(path))
}
