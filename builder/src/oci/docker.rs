//! Images as `docker save` writes them: a tar archive with a `manifest.json`.
//!
//! Old versions and skopeo name layers `ID/layer.tar` or `HEX.tar`, with symbolic links between equal ones; new
//! versions keep them below `blobs/sha256`. All list them in `manifest.json`, so all are read alike.

use serde::Deserialize;

use super::archive::{Archive, Extent};
use super::descriptor::{Digest, null_is_default};
use super::document::{self, LIMIT};
use super::reference::Selector;
use crate::error::{Error, Result};

/// One image of an archive.
#[derive(Debug)]
pub struct Saved {
    archive: Archive,
    config: Vec<u8>,
    layers: Vec<String>,
}

/// An element of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default, deserialize_with = "null_is_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    layers: Vec<String>,
}

impl Saved {
    /// The selected image of an archive.
    pub fn open(archive: Archive, selector: &Selector) -> Result<Self> {
        let name = "`manifest.json`";
        let bytes = archive
            .file("manifest.json")?
            .ok_or_else(|| Error::new(format!("it is no archive of `docker save`: it has no {name}")))?
            .read(LIMIT, name)?;
        let Item { config: path, layers, .. } = select(document::parse(&bytes, name)?, selector)?;
        let shown = format!("the configuration `{}`", path.escape_debug());
        let config = archive
            .file(&path)?
            .ok_or_else(|| Error::new(format!("{shown} is missing")))?
            .read(LIMIT, &shown)?;
        // Its name is its digest, in every version: `HEX.json` or `blobs/sha256/HEX`.
        let stem = path.rsplit('/').next().unwrap_or(&path).trim_end_matches(".json");
        let named: Option<Digest> = format!("sha256:{stem}").parse().ok();
        let found = Digest::of(&config);
        if named.is_some_and(|named| named != found) {
            return Err(Error::new(format!("{shown} is damaged: its bytes have the digest `{found}`")));
        }
        Ok(Self { archive, config, layers })
    }

    /// The image configuration, whose digest is the image's id.
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// Where the layer at a position lies, the lowest being 0, of an image with `count` layers.
    pub fn layer(&self, position: usize, count: usize) -> Result<Extent> {
        if self.layers.len() != count {
            let listed = self.layers.len();
            return Err(Error::new(format!(
                "`manifest.json` lists {listed} layers, the image's configuration {count}"
            )));
        }
        let path = self.layers.get(position).map_or("", String::as_str);
        self.archive.file(path)?.ok_or_else(|| Error::new(format!("`{}` is missing", path.escape_debug())))
    }
}

fn select(items: Vec<Item>, selector: &Selector) -> Result<Item> {
    let tags: Vec<_> = items.iter().flat_map(|item| &item.repo_tags).map(|tag| full(tag)).collect();
    let hint = match tags.as_slice() {
        [] => "none of its images has a name: name one by its position, `:@0` for the first".to_owned(),
        tags => format!("its images are: {}", tags.join(", ").escape_debug()),
    };
    let count = items.len();
    let mut items = items.into_iter();
    let (found, why) = match selector {
        Selector::Only if count > 1 => (None, format!("it has {count} images, and no name says which")),
        Selector::Only => (items.next(), "it has no images".to_owned()),
        Selector::Name(name) => {
            let wanted = full(name);
            let found = items.find(|item| item.repo_tags.iter().any(|tag| full(tag) == wanted));
            (found, format!("it has no image `{}`", wanted.escape_debug()))
        }
        Selector::Position(position) => {
            (items.nth(*position), format!("it has no image at position {position}, only {count} images"))
        }
    };
    found.ok_or_else(|| Error::new(why).hint(hint))
}

/// A name with what people leave out: `redis` is `docker.io/library/redis:latest`.
fn full(name: &str) -> String {
    let tag = if name.rsplit('/').next().is_some_and(|last| last.contains(':')) { "" } else { ":latest" };
    let is_host = |first: &str| first.contains(['.', ':']) || first == "localhost";
    match name.split_once('/') {
        None => format!("docker.io/library/{name}{tag}"),
        Some((first, _)) if is_host(first) => format!("{name}{tag}"),
        Some(_) => format!("docker.io/{name}{tag}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_matches_however_much_of_it_is_written() {
        for (name, whole) in [
            ("redis", "docker.io/library/redis:latest"),
            ("redis:7", "docker.io/library/redis:7"),
            ("me/redis", "docker.io/me/redis:latest"),
            ("docker.io/library/redis:7", "docker.io/library/redis:7"),
            ("localhost:5000/redis", "localhost:5000/redis:latest"),
        ] {
            assert_eq!(full(name), whole);
        }
    }
}
