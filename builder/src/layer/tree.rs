//! A stack of layers as the one tree that overlayfs will show.

use std::collections::{BTreeSet, VecDeque};
use std::io::Read as _;
use std::sync::Arc;

use super::names::{self, LINKS_MAX};
use crate::artifact::erofs::{Contents, Image, Inode, Kind};
use crate::error::{Context as _, Error, Result};

/// The extended attribute by which overlayfs hides all that lower layers have in a folder.
pub const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// Opened layers, the lowest first. Empty by default: a root folder with nothing in it.
#[derive(Debug, Default)]
pub struct Tree {
    layers: Vec<Arc<Image>>,
}

/// A file that was found in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Its path without symbolic links: relative to the root, which is empty itself.
    pub path: Vec<u8>,
    /// The file. Of a folder in several layers it is the highest layer's, as overlayfs shows it.
    pub inode: Inode,
    /// The layers that have it, the highest first: several only for folders.
    parts: Vec<Part>,
}

/// An inode in one of the layers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    layer: usize,
    inode: Inode,
}

impl Tree {
    /// The tree of these layers, the lowest first.
    #[cfg(test)]
    pub fn new(layers: Vec<Image>) -> Self {
        Self { layers: layers.into_iter().map(Arc::new).collect() }
    }

    /// Puts a layer on top.
    pub fn push(&mut self, layer: impl Into<Arc<Image>>) {
        self.layers.push(layer.into());
    }

    /// What a path stands for, with all symbolic links followed as a process whose root this is would follow
    /// them. Nothing if it does not exist; an error if there are more than 40 links on the way.
    pub fn find(&self, path: &[u8]) -> Result<Option<Located>> {
        self.walk(path, true)
    }

    /// The same, but a symbolic link at the very end is what is found.
    pub fn find_link(&self, path: &[u8]) -> Result<Option<Located>> {
        self.walk(path, false)
    }

    /// What a path stands for if no part of it before the last is a symbolic link.
    pub fn find_exactly(&self, path: &[u8]) -> Result<Option<Located>> {
        let Some(mut at) = self.root()? else { return Ok(None) };
        for name in names::split(path) {
            match self.child(&at, name)? {
                Some(child) => at = child,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// The names in a folder, sorted; none if it is not a folder.
    pub fn list(&self, folder: &Located) -> Result<Vec<Vec<u8>>> {
        let mut found = BTreeSet::new();
        let mut hidden = BTreeSet::new();
        for Part { layer, inode } in &folder.parts {
            for entry in self.layers[*layer].list(inode)? {
                let child = self.layers[*layer].inode(entry.nid)?;
                if child.kind == Kind::WHITEOUT {
                    hidden.insert(entry.name);
                } else if !hidden.contains(&entry.name) {
                    found.insert(entry.name);
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    /// The contents of a regular file; empty for any other.
    pub fn contents(&self, file: &Located) -> Option<Contents<'_>> {
        let part = file.parts.first()?;
        Some(self.layers.get(part.layer)?.contents(&part.inode))
    }

    /// All of a regular file that has at most `limit` bytes, by its path, links followed. Nothing if there is
    /// none.
    pub fn read(&self, path: &[u8], limit: u64) -> Result<Option<Vec<u8>>> {
        let shown = path.escape_ascii();
        let Some(found) = self.find(path)? else { return Ok(None) };
        let Kind::File { size } = found.inode.kind else {
            return Err(Error::new(format!("cannot read `{shown}`: it is not a regular file")));
        };
        if size > limit {
            return Err(Error::new(format!(
                "cannot read `{shown}`: it has {size} bytes, at most {limit} are expected"
            )));
        }
        let mut bytes = Vec::new();
        if let Some(mut contents) = self.contents(&found) {
            contents.read_to_end(&mut bytes).doing(|| format!("read `{shown}`"))?;
        }
        Ok(Some(bytes))
    }

    fn walk(&self, path: &[u8], follow_last: bool) -> Result<Option<Located>> {
        let Some(root) = self.root()? else { return Ok(None) };
        let mut waiting: VecDeque<Vec<u8>> = names::split(path).map(<[u8]>::to_vec).collect();
        let mut links = 0;
        // The folders from the root to where we are: `..` goes back along them, and never above the root.
        let mut trail = vec![root];
        while let (Some(name), Some(here)) = (waiting.pop_front(), trail.last()) {
            if name == b".." {
                trail.truncate((trail.len() - 1).max(1));
                continue;
            }
            let Some(child) = self.child(here, &name)? else { return Ok(None) };
            match &child.inode.kind {
                Kind::Symlink(target) if follow_last || !waiting.is_empty() => {
                    links += 1;
                    if links > LINKS_MAX {
                        let shown = path.escape_ascii();
                        return Err(Error::new(format!(
                            "cannot find `{shown}`: there are more than {LINKS_MAX} symbolic links on the way"
                        )));
                    }
                    if target.starts_with(b"/") {
                        trail.truncate(1);
                    }
                    names::prepend(&mut waiting, target);
                }
                _ => trail.push(child),
            }
        }
        Ok(trail.pop())
    }

    fn root(&self) -> Result<Option<Located>> {
        let layers = self.layers.iter().enumerate().rev();
        let parts: Vec<_> =
            layers.map(|(layer, image)| Ok(Part { layer, inode: image.root()? })).collect::<Result<_>>()?;
        Ok(parts.first().map(|top| top.inode.clone()).map(|inode| Located { path: Vec::new(), inode, parts }))
    }

    /// What a name in a folder stands for, by overlayfs's rules: the highest layer decides; folders of lower
    /// layers are joined with it until one is opaque, or something else is in between.
    fn child(&self, folder: &Located, name: &[u8]) -> Result<Option<Located>> {
        let mut parts: Vec<Part> = Vec::new();
        for Part { layer, inode } in &folder.parts {
            let Some(inode) = self.layers[*layer].lookup(inode, name)? else { continue };
            let is_directory = inode.kind == Kind::Directory;
            if inode.kind == Kind::WHITEOUT || (!is_directory && !parts.is_empty()) {
                break;
            }
            let last = !is_directory || inode.metadata.xattrs.contains_key(OPAQUE);
            parts.push(Part { layer: *layer, inode });
            if last {
                break;
            }
        }
        let Some(top) = parts.first() else { return Ok(None) };
        let inode = top.inode.clone();
        Ok(Some(Located { path: names::joined(&folder.path, name), inode, parts }))
    }
}
