//! The places that images come from, behind one face.

use std::path::{Path, PathBuf};

use super::archive::Archive;
use super::descriptor::Digest;
use super::docker::Saved;
use super::fingerprint::Fingerprint;
use super::folder;
use super::layout::Layout;
use super::limits::Limits;
use super::reference::{Reference, Selector, Transport};
use crate::error::{Error, Result};
use crate::store::Store;

/// Where images are looked for, where they get to, and how much they may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    /// The folder of the config.
    pub base: &'a Path,
    /// Where documents are kept.
    pub store: &'a Store,
    /// What each image may take.
    pub limits: Limits,
}

/// The place that a reference names, opened.
#[derive(Debug)]
pub enum Source {
    /// `oci:` and `oci-archive:`.
    Layout(Layout, Selector),
    /// `docker-archive:`, the image already selected.
    Saved(Saved),
    /// `dir:`.
    Folder(PathBuf),
}

impl Source {
    /// Opens the place that `reference` names.
    pub fn open(reference: &Reference, bounds: Bounds<'_>) -> Result<Self> {
        let base = bounds.base;
        Ok(match reference.transport() {
            Transport::Layout(folder, selector) => {
                Self::Layout(Layout::Folder(base.join(folder)), selector.clone())
            }
            Transport::LayoutArchive(file, selector) => {
                Self::Layout(Layout::Archive(Archive::open(&base.join(file), bounds)?), selector.clone())
            }
            Transport::DockerArchive(file, selector) => {
                Self::Saved(Saved::open(Archive::open(&base.join(file), bounds)?, selector)?)
            }
            Transport::Folder(folder) => Self::Folder(base.join(folder)),
            Transport::Registry(name) => {
                return Err(Error::new("registries are not supported yet")
                    .hint(format!("copy the image: `skopeo copy docker://{name} oci:DIR:TAG`")));
            }
        })
    }
}

/// The digest that a reference stands for now: a manifest's in a layout, the configuration's in a
/// `docker-archive`, the diff id of a `dir`.
pub fn resolve(reference: &Reference, bounds: Bounds<'_>) -> Result<Digest> {
    let Bounds { base, store, .. } = bounds;
    let resolve = || {
        // Taken before anything is read: what changes while it is read has another fingerprint next time.
        let fingerprint = Fingerprint::take(reference, base)?;
        if let Some(fingerprint) = &fingerprint
            && let Some(digest) = store.recall(&fingerprint.key)?
        {
            return Ok(digest);
        }
        let digest = match Source::open(reference, bounds)? {
            Source::Layout(layout, selector) => layout.resolve(&selector, store)?,
            Source::Saved(saved) => store.insert_blob(saved.config())?,
            Source::Folder(folder) => folder::diff_id(&folder)?,
        };
        if let Some(fingerprint) = fingerprint.filter(|fingerprint| fingerprint.is_settled) {
            store.remember(&fingerprint.key, &digest)?;
        }
        Ok(digest)
    };
    resolve().map_err(|error: Error| error.within(format_args!("image `{reference}`")))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_place_with_a_known_fingerprint_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("store")).unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        let bounds = Bounds { base: folder.path(), store: &store, limits: Limits::default() };
        let reference = "dir:root".parse().unwrap();
        let fingerprint = Fingerprint::take(&reference, folder.path()).unwrap().unwrap();
        let remembered = Digest::of(b"remembered");
        store.remember(&fingerprint.key, &remembered).unwrap();
        assert_eq!(resolve(&reference, bounds).unwrap(), remembered);
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(folder.path().join("root/a"), "").unwrap();
        assert_ne!(resolve(&reference, bounds).unwrap(), remembered);
    }
}
