//! The builder's store as the benchmark uses it: kernels stay from one run to the next, layers stand
//! elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Bench;
use crate::process::{Result, because};
use crate::workspace::make_folder;

/// A store whose layers can be forgotten.
pub struct Store {
    /// For `CORACLE_CACHE`.
    pub root: PathBuf,
    /// Where the layers stand.
    pub layers: PathBuf,
}

impl Store {
    /// The benchmark's store, with its layers in a folder below `folder`. There is one at a time.
    pub fn with_layers_in(bench: &Bench, folder: &Path) -> Result<Self> {
        let root = bench.folder("store")?;
        let layers = folder.join("layers");
        make_folder(&layers)?;
        let link = root.join("layers");
        if fs::symlink_metadata(&link).is_ok() {
            fs::remove_file(&link).map_err(because(format!("cannot remove `{}`", link.display())))?;
        }
        std::os::unix::fs::symlink(&layers, &link)
            .map_err(because(format!("cannot link `{}`", link.display())))?;
        let store = Self { root, layers };
        store.forget_layers().map(|()| store)
    }

    /// Makes all layers new to the builder.
    pub fn forget_layers(&self) -> Result<()> {
        empty(&self.layers)
    }
}

/// Empties a folder, which is made when it is missing.
pub fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(because(format!("cannot empty `{}`", folder.display())))?;
    }
    make_folder(folder)
}

/// A folder in memory, where the machine has one.
pub fn in_memory() -> Result<TempDir> {
    match tempfile::tempdir_in("/dev/shm") {
        Ok(folder) => Ok(folder),
        Err(_) => tempfile::tempdir().map_err(because("cannot make a temporary folder")),
    }
}
