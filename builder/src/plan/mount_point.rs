//! Mount points: what a container's root must have before init can mount anything on it.
//!
//! Nothing is made in an image's tree at run time. What an image lacks goes into a layer of the builder's own, above
//! those of the image; services of one image with the same needs share it.

use std::collections::BTreeMap;
use std::io::Cursor;

use crate::artifact::erofs::{Metadata, Writer};
use crate::error::{Error, Result};
use crate::root::{Found, Root};
use crate::target::{Target, TargetKind};

/// A node of the layer.
enum Node {
    Folder(Metadata),
    File(&'static str),
}

/// The layer that brings what the image lacks of `targets`; `None` when it lacks nothing.
pub fn layer(targets: &[Target], root: &Root) -> Result<Option<Vec<u8>>> {
    let mut nodes: BTreeMap<&str, Node> = BTreeMap::new();
    for target in targets {
        let place = root.place(&target.path)?;
        match (place.found, target.kind) {
            (Found::Folder, TargetKind::Folder | TargetKind::Either) => continue,
            (Found::File, TargetKind::File(_) | TargetKind::Either) => continue,
            (Found::Nothing, _) => {}
            (found, _) => {
                let expected = if target.kind == TargetKind::Folder { "a folder" } else { "a file" };
                return Err(Error::new(format!(
                    "`{}` is {found} in the image, and must be {expected}",
                    target.path
                )));
            }
        }
        // A folder of an upper layer replaces the owner and mode of the same folder below it, so that each of those
        // on the way is restated as the image has it.
        for parent in super::parents(&place.path).chain(["/"]) {
            let metadata = place.parents.get(parent).cloned().unwrap_or_else(|| Metadata::new(0o755));
            nodes.entry(parent).or_insert(Node::Folder(metadata));
        }
        let node = match target.kind {
            TargetKind::File(contents) => Node::File(contents),
            TargetKind::Folder | TargetKind::Either => Node::Folder(Metadata::new(0o755)),
        };
        nodes.insert(&place.path, node);
    }
    if nodes.is_empty() { Ok(None) } else { write(nodes).map(Some) }
}

fn write(nodes: BTreeMap<&str, Node>) -> Result<Vec<u8>> {
    let mut image = Cursor::new(Vec::new());
    let mut writer = Writer::new(&mut image)?;
    for (path, node) in nodes {
        match node {
            Node::Folder(metadata) => writer.directory(path.as_bytes(), metadata)?,
            Node::File(contents) => {
                let data = contents.as_bytes();
                writer.file(path.as_bytes(), &Metadata::new(0o644), data.len() as u64, data)?;
            }
        }
    }
    writer.finish()?;
    Ok(image.into_inner())
}
