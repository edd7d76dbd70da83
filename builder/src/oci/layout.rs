//! Images in the OCI image layout (OCI image specification, `image-layout.md`): a folder, or a tar archive of one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;

use super::archive::{Archive, Extent};
use super::descriptor::{Descriptor, Digest, Platform};
use super::document::{self, Index, Kind, LIMIT};
use super::reference::Selector;
use crate::error::{Error, Result};
use crate::store::Store;

/// The annotation that holds an image's tag.
const TAG: &str = "org.opencontainers.image.ref.name";

/// How many indexes may stand one in another. Tools write one or two.
const DEPTH: usize = 4;

/// The content of a layout.
#[derive(Debug)]
pub enum Layout {
    /// Files in a folder.
    Folder(PathBuf),
    /// Files in a tar archive.
    Archive(Archive),
}

/// The file `oci-layout`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

impl Layout {
    /// The digest of the manifest of the selected image. The manifest is in the store afterwards.
    pub fn resolve(&self, selector: &Selector, store: &Store) -> Result<Digest> {
        let marker: Marker = document::parse(&self.read("oci-layout")?, "`oci-layout`")?;
        if marker.image_layout_version != "1.0.0" {
            let version = marker.image_layout_version.escape_debug().to_string();
            return Err(Error::new(format!("it has layout version {version}, only 1.0.0 is supported")));
        }
        let index = Index::parse(&self.read("index.json")?, "`index.json`")?;
        let mut found = select(&index.manifests, selector)?.clone();
        for _ in 0..DEPTH {
            let digest = found.digest;
            let bytes = document::obtain(&digest, Some(found.size), store, || self.blob(&digest))?;
            let kind = document::kind(&found)?;
            let what = format!("{kind} `{digest}`");
            document::check_type(&bytes, &found.media_type, &what)?;
            found = match kind {
                Kind::Manifest => return Ok(found.digest),
                Kind::Index => ours(&Index::parse(&bytes, &what)?.manifests)?.clone(),
            };
        }
        Err(Error::new(format!("its indexes are nested deeper than {DEPTH}")))
    }

    /// Where a blob lies.
    pub fn blob(&self, digest: &Digest) -> Result<Extent> {
        self.file(&format!("blobs/sha256/{}", digest.hex()))?
            .ok_or_else(|| Error::new(format!("it has no blob `{digest}`")))
    }

    fn file(&self, name: &str) -> Result<Option<Extent>> {
        match self {
            Self::Folder(folder) => Extent::of_file(&folder.join(name)),
            Self::Archive(archive) => archive.file(name),
        }
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let missing = || match self {
            Self::Folder(folder) if !folder.exists() => {
                Error::new(format!("there is no folder `{}`", folder.display()))
                    .hint("paths start from the folder of the config")
            }
            _ => Error::new(format!("it is no OCI image layout: it has no `{name}`")),
        };
        self.file(name)?.ok_or_else(missing)?.read(LIMIT, &format!("`{name}`"))
    }
}

/// The selected image among those of a layout.
fn select<'a>(all: &'a [Descriptor], selector: &Selector) -> Result<&'a Descriptor> {
    match selector {
        Selector::Position(position) => all.get(*position).ok_or_else(|| {
            Error::new(format!("it has no image at position {position}, only {} images", all.len()))
        }),
        Selector::Name(name) => {
            let tagged: Vec<_> = all.iter().filter(|descriptor| tag(descriptor) == Some(name)).collect();
            if tagged.is_empty() {
                return Err(Error::new(format!("it has no tag `{}`", name.escape_debug())).hint(tags(all)));
            }
            ours(tagged)
        }
        Selector::Only => {
            let first = ours(all)?;
            if all.iter().any(|other| is_ours(other) && other.digest != first.digest) {
                return Err(Error::new("it has several images, and no tag says which").hint(tags(all)));
            }
            Ok(first)
        }
    }
}

/// The first image for our platform, which is what the specification says to take.
fn ours<'a>(all: impl IntoIterator<Item = &'a Descriptor, IntoIter: Clone>) -> Result<&'a Descriptor> {
    let mut all = all.into_iter();
    let platforms: BTreeSet<_> =
        all.clone().filter_map(|descriptor| descriptor.platform.as_ref()).map(Platform::to_string).collect();
    all.find(|descriptor| is_ours(descriptor)).ok_or_else(|| {
        let ours = format!("{}/{}", Platform::OS, Platform::ARCHITECTURE);
        let others = Vec::from_iter(platforms).join(", ");
        Error::new(if others.is_empty() {
            "it has no images".to_owned()
        } else {
            format!("it has no image for {ours}, only for {others}")
        })
    })
}

/// Whether an image may be one for our platform: where nothing is said, its configuration will say.
fn is_ours(descriptor: &Descriptor) -> bool {
    descriptor.platform.as_ref().is_none_or(Platform::is_ours)
}

fn tag(descriptor: &Descriptor) -> Option<&str> {
    descriptor.annotations.get(TAG).map(String::as_str)
}

fn tags(all: &[Descriptor]) -> String {
    let tags: BTreeSet<_> = all.iter().filter_map(tag).map(|tag| tag.escape_debug().to_string()).collect();
    if tags.is_empty() {
        return "none of its images has a tag: name one by its position, `:@0` for the first".to_owned();
    }
    format!("its tags are: {}", Vec::from_iter(tags).join(", "))
}
