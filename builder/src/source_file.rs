//! A file of the host that becomes part of an artifact.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};

/// A file that is copied into an artifact. Size and time tell whether it is still the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified: u128,
}

impl SourceFile {
    /// Notes a file's size and time.
    pub fn look(path: &Path) -> Result<Self> {
        let doing = || format!("look at `{}`", path.display());
        let metadata = std::fs::metadata(path).doing(doing)?;
        if !metadata.is_file() {
            return Err(Error::new(format!("`{}` is no regular file", path.display())));
        }
        let modified =
            metadata.modified().doing(doing)?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(Self { path: path.to_owned(), size: metadata.len(), modified: modified.as_nanos() })
    }

    /// Opens it.
    pub fn open(&self) -> Result<File> {
        File::open(&self.path).doing(|| format!("open `{}`", self.path.display()))
    }

    /// Refuses a copy of another length: somebody writes the file at this moment.
    pub fn check_size(&self, copied: u64) -> Result<()> {
        if copied == self.size {
            return Ok(());
        }
        Err(Error::new(format!(
            "`{}` changed from {} to {copied} bytes meanwhile",
            self.path.display(),
            self.size
        )))
    }
}
