//! Where things stand: the source tree, what tasks make below `target/`, and the cache that outlives both.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::process::{Result, because};

/// The source tree and the development cache.
pub struct Workspace {
    /// The folder of the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// `$XDG_CACHE_HOME/coracle-dev`: made once, kept over `cargo clean`.
    pub cache: PathBuf,
}

impl Workspace {
    /// The workspace that this program was built from.
    pub fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("xtask has no parent folder")?;
        if !root.join("Cargo.toml").is_file() {
            return Err(format!("`{}` is gone: run `cargo xtask` from a checkout", root.display()));
        }
        let cache = match (env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
            (Some(cache), _) if Path::new(&cache).is_absolute() => PathBuf::from(cache),
            (_, Some(home)) => PathBuf::from(home).join(".cache"),
            _ => return Err("neither `XDG_CACHE_HOME` nor `HOME` is set: no place for the cache".to_owned()),
        };
        Ok(Self { root: root.to_owned(), cache: cache.join("coracle-dev") })
    }

    /// A path below `target/`, which holds all that tasks make.
    pub fn target(&self, path: &str) -> PathBuf {
        self.root.join("target").join(path)
    }

    /// Makes `target/NAME` a symbolic link to something in the cache.
    pub fn link(&self, name: &str, to: &Path) -> Result<()> {
        let link = self.target(name);
        if fs::read_link(&link).is_ok_and(|now| now == to) {
            return Ok(());
        }
        make_folder(&self.target(""))?;
        if fs::symlink_metadata(&link).is_ok() {
            fs::remove_file(&link).map_err(because(format!("cannot remove `{}`", link.display())))?;
        }
        std::os::unix::fs::symlink(to, &link).map_err(because(format!("cannot link `{}`", link.display())))
    }
}

/// Makes a folder and its parents.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(because(format!("cannot make the folder `{}`", path.display())))
}

/// Writes a whole file.
pub fn write_file(path: &Path, contents: &str) -> Result<()> {
    fs::write(path, contents).map_err(because(format!("cannot write `{}`", path.display())))
}

/// Reads a whole text file.
pub fn read_file(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(because(format!("cannot read `{}`", path.display())))
}
