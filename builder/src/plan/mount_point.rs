//! Mount points: what a container's root must have before init can mount anything on it.
//!
//! Nothing is made in an image's tree at run time. What an image lacks goes into a layer of the builder's own, above
//! those of the image; services of one image with the same needs share it.

use std::collections::BTreeMap;
use std::io::Cursor;

use super::container::{declared_volumes, working_dir};
use crate::artifact::erofs::{Metadata, Writer};
use crate::config::{Config, Service};
use crate::error::{Error, Result};
use crate::oci::image::Process;
use crate::root::{Found, Root};

/// Something that a container's root must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Absolute and normalised; the image's links on the way are not resolved yet.
    pub path: String,
    /// What is expected there, and made when there is nothing.
    pub kind: TargetKind,
}

/// What a [`Target`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// A folder.
    Folder,
    /// A file; with these contents when it is made.
    File(&'static str),
    /// A folder or a file, as the image has it; a folder when it is made.
    Either,
}

/// `localhost` for programs that look it up in the file instead of asking libc.
const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// What init mounts in every container, and what programs expect.
const STANDARD: &[(&str, TargetKind)] = &[
    ("/dev", TargetKind::Folder),
    ("/etc/hosts", TargetKind::File(HOSTS)),
    (manifest::path::RESOLV_CONF, TargetKind::File("")),
    ("/proc", TargetKind::Folder),
    ("/sys", TargetKind::Folder),
];

/// Folders in which nothing of an image is visible at run time.
const HIDDEN: &[&str] = &["/dev", "/proc", "/sys"];

/// The one of these folders that a path is in, or is.
pub fn hidden(path: &str) -> Option<&'static str> {
    HIDDEN.iter().copied().find(|top| is_within(path, top))
}

/// Whether an absolute path is `folder` or something below it.
pub fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// All that the root of a service's container must have, the standard places first.
pub fn targets(config: &Config, service: &Service, defaults: &Process) -> Result<Vec<Target>> {
    let mut targets: Vec<Target> =
        STANDARD.iter().map(|(path, kind)| Target { path: (*path).to_owned(), kind: *kind }).collect();
    let cwd = working_dir(service, defaults)?;
    // A process that begins below `/proc/self/fd` begins outside its root (CVE-2024-21626).
    if let Some(top) = hidden(&cwd) {
        return Err(Error::new(format!(
            "the working directory `{cwd}` is below {top}, which the kernel fills"
        ))
        .hint("set `working-dir` to a folder of the image"));
    }
    targets.push(Target { path: cwd, kind: TargetKind::Folder });
    let tmpfs =
        service.tmpfs.iter().map(|tmpfs| tmpfs.target.clone()).chain(declared_volumes(service, defaults)?);
    targets.extend(tmpfs.map(|path| Target { path, kind: TargetKind::Folder }));
    for volume in &service.volumes {
        let is_file = config.files.iter().any(|file| file.path == volume.source);
        let kind = if is_file { TargetKind::File("") } else { TargetKind::Either };
        targets.push(Target { path: volume.target.clone(), kind });
    }
    Ok(targets)
}

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
    let mut bytes = Vec::new();
    let mut writer = Writer::new(Cursor::new(&mut bytes))?;
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
    Ok(bytes)
}
