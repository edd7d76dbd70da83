//! What an image has at the places that a service needs: the one look into the layers that the plan is made from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::artifact::erofs::{Kind, Metadata};
use crate::config::{Config, Service};
use crate::convert::Converted;
use crate::error::{Error, Result};
use crate::layer::Tree;
use crate::process::candidates;
use crate::target::{Target, targets};

/// `/etc/passwd` and `/etc/group` are read up to this size; real ones have a few KiB.
const MAX_DATABASE: u64 = 4 << 20;

/// The places of an image that one service needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Root {
    /// Contents of `/etc/passwd`; empty when there is none.
    pub passwd: String,
    /// Contents of `/etc/group`; empty when there is none.
    pub group: String,
    /// Which of the places where the program can be have something that can be run, or nobody knows what.
    pub programs: BTreeSet<String>,
    /// By the path as the config or the image writes it.
    pub places: BTreeMap<String, Place>,
}

/// One place of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The path with the image's links on the way resolved.
    pub path: String,
    /// What is there.
    pub found: Found,
    /// The folders above that exist, `/` among them, with their metadata.
    pub parents: BTreeMap<String, Metadata>,
}

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing yet.
    Nothing,
    /// A folder.
    Folder,
    /// A regular file.
    File,
    /// Anything else.
    Other,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::Folder => "a folder",
            Self::File => "a file",
            Self::Other => "a device, a socket or a pipe",
        })
    }
}

impl Root {
    /// The place that was looked at under this path.
    pub fn place(&self, path: &str) -> Result<&Place> {
        self.places.get(path).ok_or_else(|| Error::new(format!("`{path}` was not looked at")))
    }

    /// The path with the image's links resolved, or as it is when it was not looked at.
    pub fn resolved(&self, path: &str) -> String {
        self.places.get(path).map_or_else(|| path.to_owned(), |place| place.path.clone())
    }
}

/// What every service's image has at the places that the service needs, or why it cannot have it, by the services'
/// key paths.
pub type Roots = BTreeMap<String, Result<Root>>;

/// Looks at the images of all services.
pub fn look(config: &Config, images: &[Converted]) -> Roots {
    let look = |service: &Service| {
        let reference = service.image.to_string();
        let converted = images.iter().find(|converted| converted.image.reference == reference);
        let converted = converted.ok_or_else(|| Error::new("the image was not converted"))?;
        let defaults = &converted.image.defaults;
        look_at(&converted.tree, &targets(config, service, defaults)?, candidates(service, defaults)?)
    };
    config.services.iter().map(|service| (service.path(), look(service))).collect()
}

fn look_at(tree: &Tree, targets: &[Target], candidates: Vec<String>) -> Result<Root> {
    let database = |path: &str| -> Result<String> {
        let bytes = tree.read(path.as_bytes(), MAX_DATABASE)?.unwrap_or_default();
        // A line that is not UTF-8 can be no name that a config asks for.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let mut root =
        Root { passwd: database("/etc/passwd")?, group: database("/etc/group")?, ..Root::default() };
    for path in candidates {
        if can_run(tree, &path)? {
            root.programs.insert(path);
        }
    }
    for target in targets {
        if !root.places.contains_key(&target.path) {
            root.places.insert(target.path.clone(), place(tree, &target.path)?);
        }
    }
    Ok(root)
}

/// Whether a path is a program. A link that leads to nothing may lead to something once there are mounts.
fn can_run(tree: &Tree, path: &str) -> Result<bool> {
    Ok(match tree.find(path.as_bytes())? {
        Some(found) => {
            matches!(found.inode.kind, Kind::File { .. }) && found.inode.metadata.mode & 0o111 != 0
        }
        None => tree.find_link(path.as_bytes())?.is_some(),
    })
}

/// Walks down to a path: links are followed inside the image, and from the first name that is missing on the rest is
/// taken literally.
fn place(tree: &Tree, path: &str) -> Result<Place> {
    let mut parents = BTreeMap::new();
    let mut real = String::new();
    let mut found = Found::Folder;
    let mut names = path.split('/').filter(|name| !name.is_empty());
    let top = tree.find(b"/")?;
    parents.insert("/".to_owned(), top.map_or_else(|| Metadata::new(0o755), |top| top.inode.metadata));
    while let Some(name) = names.next() {
        if found != Found::Folder {
            return Err(Error::new(format!(
                "`{real}` is {found} in the image, and `{path}` would be inside it"
            )));
        }
        let next = format!("{real}/{name}");
        let Some(entry) = tree.find(next.as_bytes())? else {
            if tree.find_link(next.as_bytes())?.is_some() {
                let through =
                    if next == path { String::new() } else { format!(", and `{path}` leads through it") };
                return Err(Error::new(format!("`{next}` is a link to nothing in the image{through}")));
            }
            real = names.fold(next, |path, name| path + "/" + name);
            found = Found::Nothing;
            break;
        };
        real = String::from_utf8([b"/", &entry.path[..]].concat())
            .map_err(|_| Error::new(format!("`{next}` leads to a name that is not UTF-8")))?;
        found = match entry.inode.kind {
            Kind::Directory => Found::Folder,
            Kind::File { .. } => Found::File,
            _ => Found::Other,
        };
        if found == Found::Folder {
            parents.insert(real.clone(), entry.inode.metadata);
        }
    }
    if real.is_empty() {
        real.push('/');
    }
    refuse_special(path, &real)?;
    Ok(Place { path: real, found, parents })
}

/// `/dev`, `/proc` and `/sys` are filled by init, so nothing of an image may lead there by a link, nor be led away.
fn refuse_special(path: &str, real: &str) -> Result<()> {
    for top in ["/dev", "/proc", "/sys"] {
        let below = |path: &str| path == top || path.starts_with(&format!("{top}/"));
        if below(path) != below(real) {
            return Err(Error::new(format!(
                "`{path}` is `{real}` through a link of the image: `{top}` must be a folder"
            )));
        }
    }
    Ok(())
}
