//! One layer, from the tar archive of the OCI image specification (`layer.md`) to an EROFS image for
//! overlayfs.
//!
//! An archive may rely on the layers below it, and an image cannot: an entry below a link of a lower layer
//! belongs where the link leads, a folder that is needed but not in the archive looks as it does below, and a
//! hard link to a file below is a copy of it. [`Converted::depends_on_lower`] tells whether any of this came
//! up.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;

use super::names::{self, LINKS_MAX, Meaning};
use super::special::{Notes, Special};
use super::tree::{OPAQUE, Tree};
use crate::archive::{Archive, Entry, EntryKind};
use crate::artifact::erofs::{Found, InodeId, Kind, Metadata, Output, Writer, has_known_prefix};
use crate::error::{Error, Result, shown};
use crate::oci::limits::Limits;

/// What overlayfs keeps for itself, in its two spellings: an archive that could set these could make a layer
/// lie.
const OVERLAY_PREFIXES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// What a layer is made from.
pub struct Input<'a, R> {
    /// Its archive, uncompressed.
    pub tar: R,
    /// Gives the layers that it lies upon. Most layers never ask.
    pub lower: &'a dyn Fn() -> Result<&'a Tree>,
    /// How much of it there may be.
    pub limits: Limits,
}

/// What is known of a layer once it is converted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// Whether the lower layers were asked: on top of other layers, the same archive may make another image.
    pub depends_on_lower: bool,
    /// The number of entries in the archive.
    pub entries: u64,
    /// What somebody might want to know of it.
    pub special: Special,
}

/// Converts one layer. Nothing was written by `writer` yet.
///
/// The archive is read to the very end of the stream, and an error from it is an error of the layer. The root
/// folder is root's with mode 0755 unless the archive has an entry for it: hardly any does, and the lower
/// one's is not looked at, so that most layers do not depend on others.
pub fn convert<W: Output>(input: Input<'_, impl Read>, writer: Writer<W>) -> Result<Converted> {
    let Input { tar, lower, limits } = input;
    let mut archive = Archive::new("the layer", tar);
    let mut converter = Converter {
        writer,
        lower,
        asked: false,
        opaque_root: false,
        whiteout: None,
        copies: BTreeMap::new(),
        notes: Notes::default(),
    };
    let mut entries = 0;
    while let Some(entry) = archive.next()? {
        entries += 1;
        limits.check_entries(entries)?;
        let Entry { name, metadata, kind } = entry;
        converter
            .add(&name, metadata, kind, archive.contents())
            .map_err(|error| error.within(format!("the layer's entry `{}`", shown(&name))))?;
    }
    let (depends_on_lower, special) = converter.finish()?;
    Ok(Converted { depends_on_lower, entries, special })
}

struct Converter<'a, W: Output> {
    writer: Writer<W>,
    lower: &'a dyn Fn() -> Result<&'a Tree>,
    /// Whether anything was looked up in the lower layers.
    asked: bool,
    /// Whether nothing of the lower layers is to be seen at all.
    opaque_root: bool,
    /// The one inode that all whiteouts are names of.
    whiteout: Option<InodeId>,
    /// The files of lower layers that were copied, by their paths.
    copies: BTreeMap<Vec<u8>, InodeId>,
    /// What is special about the files so far.
    notes: Notes,
}

/// A folder of the tree that this layer and the lower ones make, links resolved.
struct Folder {
    path: Vec<u8>,
    /// Whether what lower layers have at this path is to be seen.
    shows_lower: bool,
}

/// What the layer has at a path so far.
enum Here {
    Folder { opaque: bool },
    Link(Vec<u8>),
    Whiteout,
    Other,
    Nothing,
}

impl<'a, W: Output> Converter<'a, W> {
    fn add(&mut self, name: &[u8], mut metadata: Metadata, kind: EntryKind, data: impl Read) -> Result<()> {
        let path = match names::meaning(name)? {
            Meaning::Skip => return Ok(()),
            Meaning::Whiteout(path) => {
                let path = self.place(&path)?;
                return self.hide(&path);
            }
            Meaning::Opaque(folder) => {
                let folder = self.folder(&folder)?;
                return self.hide_below(&folder);
            }
            Meaning::Add(path) => self.place(&path)?,
        };
        if let Some(name) = metadata.xattrs.keys().find(|name| is_overlays(name)) {
            let name = shown(name);
            return Err(Error::new(format!("the extended attribute `{name}` is reserved for overlayfs")));
        }
        // Archives made elsewhere have attributes such as `com.apple.provenance`, which no Linux could have
        // set.
        metadata.xattrs.retain(|name, _| has_known_prefix(name));
        if let EntryKind::Node(kind) = &kind {
            self.notes.add(&path, &metadata, kind);
        }
        match kind {
            EntryKind::Node(Kind::Directory) => self.add_folder(&path, metadata),
            EntryKind::Node(Kind::File { size }) => {
                self.writer.file(&path, &metadata, size, data).map(|_| ())
            }
            EntryKind::Node(Kind::WHITEOUT) => {
                Err(Error::new("it is a character device 0:0, which overlayfs takes for a whiteout"))
            }
            EntryKind::Node(kind) => {
                if matches!(kind, Kind::Symlink(_)) {
                    // Linux gives every link this mode; archives from elsewhere may have others.
                    metadata.mode = 0o777;
                }
                self.writer.node(&path, &metadata, &kind).map(|_| ())
            }
            EntryKind::HardLink(target) => {
                let shown = shown(&target);
                self.add_link(&path, &target)
                    .map_err(|error| error.within(format!("cannot link it to `{shown}`")))
            }
        }
    }

    fn add_folder(&mut self, path: &[u8], mut metadata: Metadata) -> Result<()> {
        // What this layer had put in place of a lower folder does not bring the lower one back when it goes.
        let opaque = match self.here(path)? {
            Here::Folder { opaque } => opaque,
            Here::Link(_) | Here::Whiteout | Here::Other => true,
            Here::Nothing => false,
        };
        if opaque {
            metadata.xattrs.insert(OPAQUE.to_vec(), b"y".to_vec());
        }
        self.writer.directory(path, metadata)
    }

    fn add_link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        let Meaning::Add(target) = names::meaning(target)? else {
            return Err(Error::new("that is the name of a whiteout"));
        };
        let Some((folder, name)) = names::parent(&target) else {
            return Err(Error::new("that is a folder"));
        };
        let folder = self.resolve(folder)?;
        let target = names::joined(&folder.path, name);
        let missing = || Error::new("there is no such file");
        match self.writer.find(&target)? {
            Some(Found::Symlink(inode, _) | Found::Other(inode)) => return self.writer.link(path, inode),
            Some(Found::Directory(_)) => return Err(Error::new("that is a folder")),
            None if folder.shows_lower => {}
            Some(Found::Whiteout(_)) | None => return Err(missing()),
        }
        if let Some(copy) = self.copies.get(&target) {
            return self.writer.link(path, *copy);
        }
        let lower = self.lower()?;
        let found = lower.find_exactly(&target)?.ok_or_else(missing)?;
        let metadata = without_overlays(&found.inode.metadata);
        let copy = match (&found.inode.kind, lower.contents(&found)) {
            (Kind::Directory, _) => return Err(Error::new("that is a folder")),
            (Kind::File { size }, Some(contents)) => self.writer.file(path, &metadata, *size, contents)?,
            (kind, _) => self.writer.node(path, &metadata, kind)?,
        };
        self.copies.insert(target, copy);
        Ok(())
    }

    /// Hides what lower layers have at a path. What this layer has there, before or after, stays.
    fn hide(&mut self, path: &[u8]) -> Result<()> {
        match self.here(path)? {
            Here::Folder { .. } => self.hide_below(path),
            Here::Link(_) | Here::Whiteout | Here::Other => Ok(()),
            Here::Nothing => match self.whiteout {
                Some(whiteout) => self.writer.link(path, whiteout),
                None => {
                    self.whiteout = Some(self.writer.node(path, &Metadata::new(0), &Kind::WHITEOUT)?);
                    Ok(())
                }
            },
        }
    }

    /// Hides what lower layers have in a folder.
    fn hide_below(&mut self, folder: &[u8]) -> Result<()> {
        if folder.is_empty() {
            // Overlayfs joins the roots of all layers whatever their attributes say: `finish` finds another
            // way.
            self.opaque_root = true;
            return Ok(());
        }
        let Some(Found::Directory(metadata)) = self.writer.find(folder)? else { return Ok(()) };
        let mut metadata = metadata.clone();
        metadata.xattrs.insert(OPAQUE.to_vec(), b"y".to_vec());
        self.writer.directory(folder, metadata)
    }

    /// Where an entry of this path belongs: in an existing folder, its name not followed if it is a link.
    fn place(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        match names::parent(path) {
            None => Ok(Vec::new()),
            Some((folder, name)) => Ok(names::joined(&self.folder(folder)?, name)),
        }
    }

    /// The folder that a path leads to, made in this layer if it is not there.
    fn folder(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        if matches!(self.writer.find(path)?, Some(Found::Directory(_))) {
            return Ok(path.to_vec());
        }
        let Folder { path, .. } = self.resolve(path)?;
        let mut shows_lower = !self.opaque_root;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let folder = &path[..end];
            match self.here(folder)? {
                Here::Folder { opaque } => shows_lower &= !opaque,
                Here::Nothing => {
                    let lower = if shows_lower { self.lower_folder(folder)? } else { None };
                    shows_lower = lower.is_some();
                    self.writer.directory(folder, lower.unwrap_or_else(|| Metadata::new(0o755)))?;
                }
                Here::Whiteout | Here::Link(_) | Here::Other => {
                    shows_lower = false;
                    self.add_folder(folder, Metadata::new(0o755))?;
                }
            }
        }
        Ok(path)
    }

    /// Follows a path to a folder as if this layer, as far as it is known, lay upon the lower ones. Folders
    /// that are nowhere are taken for granted: whoever asks makes them.
    fn resolve(&mut self, path: &[u8]) -> Result<Folder> {
        let mut waiting: VecDeque<Vec<u8>> = names::split(path).map(<[u8]>::to_vec).collect();
        let root = Folder { path: Vec::new(), shows_lower: !self.opaque_root };
        let mut trail = Vec::new();
        let mut links = 0;
        while let Some(name) = waiting.pop_front() {
            if name == b".." {
                // Only links lead here: above the root there is the root.
                trail.pop();
                continue;
            }
            let above = trail.last().unwrap_or(&root);
            let path = names::joined(&above.path, &name);
            let mut shows_lower = above.shows_lower;
            let here = match self.here(&path)? {
                Here::Nothing if shows_lower => self.below(&path)?,
                here => {
                    shows_lower &= matches!(here, Here::Folder { opaque: false });
                    here
                }
            };
            match here {
                Here::Folder { .. } => trail.push(Folder { path, shows_lower }),
                Here::Nothing | Here::Whiteout => trail.push(Folder { path, shows_lower: false }),
                Here::Other => return Err(Error::new(format!("`{}` is not a folder", shown(&path)))),
                Here::Link(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Error::new(format!("more than {LINKS_MAX} symbolic links lead to it")));
                    }
                    if target.starts_with(b"/") {
                        trail.clear();
                    }
                    names::prepend(&mut waiting, &target);
                }
            }
        }
        Ok(trail.pop().unwrap_or(root))
    }

    /// What this layer has at a path.
    fn here(&self, path: &[u8]) -> Result<Here> {
        Ok(match self.writer.find(path)? {
            Some(Found::Directory(metadata)) => Here::Folder { opaque: metadata.xattrs.contains_key(OPAQUE) },
            Some(Found::Symlink(_, target)) => Here::Link(target.to_vec()),
            Some(Found::Whiteout(_)) => Here::Whiteout,
            Some(Found::Other(_)) => Here::Other,
            None => Here::Nothing,
        })
    }

    /// The lower layers, which this one depends on from now on.
    fn lower(&mut self) -> Result<&'a Tree> {
        self.asked = true;
        (self.lower)()
    }

    /// What the lower layers have at a path.
    fn below(&mut self, path: &[u8]) -> Result<Here> {
        Ok(match self.lower()?.find_exactly(path)?.map(|found| found.inode.kind) {
            Some(Kind::Directory) => Here::Folder { opaque: false },
            Some(Kind::Symlink(target)) => Here::Link(target),
            Some(_) => Here::Other,
            None => Here::Nothing,
        })
    }

    fn lower_folder(&mut self, path: &[u8]) -> Result<Option<Metadata>> {
        let found = self.lower()?.find_exactly(path)?;
        let folder = found.filter(|found| found.inode.kind == Kind::Directory);
        Ok(folder.map(|folder| without_overlays(&folder.inode.metadata)))
    }

    /// Writes the layer, and tells whether the lower ones were asked and what is special about its files.
    fn finish(mut self) -> Result<(bool, Special)> {
        if self.opaque_root {
            let lower = self.lower()?;
            if let Some(root) = lower.find(b"")? {
                for name in lower.list(&root)? {
                    self.hide(&name)?;
                }
            }
        }
        self.drop_idle_whiteouts()?;
        let writer = &self.writer;
        // What is no other kind of file: a link or a folder may have taken the place of one.
        let special = self.notes.into_special(|path| matches!(writer.find(path), Ok(Some(Found::Other(_)))));
        self.writer.finish()?;
        Ok((self.asked, special))
    }

    /// Takes away the whiteouts that hide nothing: where overlayfs has no lower folder to join with, it lists
    /// them as files that cannot be opened.
    fn drop_idle_whiteouts(&mut self) -> Result<()> {
        let mut whiteouts = Vec::new();
        let mut opaque: Option<Vec<u8>> = None;
        self.writer.walk(|path, found| {
            let below = |folder: &Vec<u8>| {
                path.strip_prefix(folder.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
            };
            let hidden = opaque.as_ref().is_some_and(below);
            match found {
                Found::Whiteout(_) => whiteouts.push((path.to_vec(), hidden)),
                Found::Directory(metadata) if !hidden && metadata.xattrs.contains_key(OPAQUE) => {
                    opaque = Some(path.to_vec());
                }
                _ => {}
            }
        });
        for (path, hidden) in whiteouts {
            if hidden || matches!(self.below(&path)?, Here::Nothing) {
                self.writer.remove(&path)?;
            }
        }
        Ok(())
    }
}

fn is_overlays(name: &[u8]) -> bool {
    OVERLAY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The metadata of a lower file, without what overlayfs wrote down about that layer.
fn without_overlays(metadata: &Metadata) -> Metadata {
    let mut metadata = metadata.clone();
    metadata.xattrs.retain(|name, _| !is_overlays(name));
    metadata
}
