//! Files that appear complete: nobody sees one that is half written.

use std::fs::{self, File, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use tempfile::NamedTempFile;

use crate::error::{Context, Result};

/// The permissions of a draft, less the umask, as any new file's: a temporary file is the owner's alone by default.
const MODE: u32 = 0o666;

/// What a draft is called while it has a name.
const PREFIX: &str = ".draft-";

/// A file that is being written, and appears under its name only when it is committed. Dropped, it is gone; so it is
/// when the program is killed, where the file system knows files without a name.
#[derive(Debug)]
pub struct Draft {
    body: Body,
    path: PathBuf,
}

/// The bytes of a [`Draft`].
#[derive(Debug)]
enum Body {
    /// O_TMPFILE (open(2)).
    Nameless(File),
    /// For file systems without it, such as overlayfs before Linux 6.1.
    Named(NamedTempFile),
}

impl Body {
    fn begin(folder: &Path) -> Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(folder, flags, Mode::from_raw_mode(MODE)) {
            // Without procfs there is no way from a descriptor to a name.
            Ok(file) if Path::new("/proc/self/fd").exists() => Ok(Self::Nameless(file.into())),
            _ => Self::named(folder),
        }
    }

    fn named(folder: &Path) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        let file = builder.prefix(PREFIX).permissions(Permissions::from_mode(MODE)).tempfile_in(folder);
        file.map(Self::Named).doing(|| format!("make a file in `{}`", folder.display()))
    }
}

impl Draft {
    /// Begins a file in a folder that exists.
    pub fn begin(path: &Path) -> Result<Self> {
        Ok(Self { body: Body::begin(folder_of(path))?, path: path.to_owned() })
    }

    /// The file itself, for system calls that copy between files.
    pub fn file(&mut self) -> &mut File {
        match &mut self.body {
            Body::Nameless(file) => file,
            Body::Named(file) => file.as_file_mut(),
        }
    }

    /// Puts the file under its name, its bytes on the disk first: a name must not outlive a power failure that
    /// its bytes did not.
    pub fn commit(mut self) -> Result<()> {
        let written = self.file().sync_all();
        written.doing(|| format!("write `{}`", self.path.display()))?;
        self.publish()
    }

    /// The same under another path, for those who learn while writing how the file is called.
    pub fn commit_as(mut self, path: &Path) -> Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).doing(|| format!("make the folder `{}`", folder.display()))?;
        path.clone_into(&mut self.path);
        self.commit()
    }

    /// The same without waiting for the disk, for what is verified whenever it is read.
    pub(super) fn publish(self) -> Result<()> {
        let published = match self.body {
            Body::Nameless(file) => name(&file, &self.path),
            Body::Named(file) => file.persist(&self.path).map(drop).map_err(|failure| failure.error),
        };
        published.doing(|| format!("write `{}`", self.path.display()))
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Gives a nameless file a name, in place of the file that has it. linkat(2) replaces nothing and rename(2) does, so
/// that for a moment there is another name.
fn name(file: &File, path: &Path) -> io::Result<()> {
    let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = |draft: &Path| rustix::fs::linkat(CWD, &descriptor, CWD, draft, AtFlags::SYMLINK_FOLLOW);
    let named = tempfile::Builder::new().prefix(PREFIX).make_in(folder_of(path), |draft| Ok(link(draft)?))?;
    named.into_temp_path().persist(path).map_err(|failure| failure.error)
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

impl Seek for Draft {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file().seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_takes_the_place_of_a_file_whether_it_had_a_name_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for body in [Body::begin, Body::named, Body::begin] {
            let mut draft = Draft { body: body(folder.path()).unwrap(), path: path.clone() };
            let bytes = format!("{draft:?}");
            draft.write_all(bytes.as_bytes()).unwrap();
            draft.commit().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), bytes);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o700, 0o600);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
        let folderless = Draft::begin(&folder.path().join("missing/file")).unwrap_err().to_string();
        assert!(folderless.starts_with("cannot make a file in `"), "{folderless}");
    }
}
