//! Whether a file or a folder is still what it was when it was last read, told without reading it.
//!
//! A folder's digest, or a compressed archive's list of files, takes as long as reading all of it, and a build in
//! which nothing changed should take milliseconds. So the store remembers what such a place stood for, by the
//! inode numbers, sizes and times of everything in it. The kernel sets the time of change, `ctime`, and no
//! program can set it back: content that changed has another one, unless it changed again within the same tick
//! of the clock. Hence nothing is remembered of a place that changed a moment ago.

use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use super::descriptor::Digest;
use super::folder;
use super::reference::{Reference, Transport};
use crate::error::{Context, Result};

/// Part of every fingerprint: raised when the same place would stand for another digest, because it is read in
/// another way.
const VERSION: u8 = 1;

/// How long a place must have been unchanged, in seconds: more than the coarsest clock of a file system, FAT's.
const SETTLED: u64 = 3;

/// What a place looks like from outside.
pub struct Fingerprint {
    /// Equal only for equal references, to a place that has not changed.
    pub key: Digest,
    /// Whether every later change will give another key.
    pub is_settled: bool,
}

struct Taken {
    hasher: Sha256,
    /// The latest change, in seconds since 1970.
    changed: i64,
}

impl Fingerprint {
    /// The fingerprint of the place that `reference` names; none of one that is quick to read anyway.
    pub fn take(reference: &Reference, base: &Path) -> Result<Option<Self>> {
        let mut taken = Taken { hasher: Sha256::new(), changed: 0 };
        taken.hasher.update([VERSION]);
        taken.name(reference.to_string().as_bytes());
        let Some(path) = reference.path(base) else { return Ok(None) };
        match reference.transport() {
            Transport::Layout(..) | Transport::Registry(_) => return Ok(None),
            Transport::LayoutArchive(..) | Transport::DockerArchive(..) => {
                let metadata = fs::metadata(&path).doing(|| format!("open `{}`", path.display()))?;
                taken.metadata(&metadata);
            }
            Transport::Folder(_) => {
                taken.hasher.update(folder::source_date_epoch()?.to_le_bytes());
                taken.folder(&path)?;
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // A change in the future, or before 1970, was made with another clock: nothing follows from it.
        let is_settled =
            u64::try_from(taken.changed).is_ok_and(|changed| changed.saturating_add(SETTLED) < now);
        Ok(Some(Self { key: Digest::from_hasher(taken.hasher), is_settled }))
    }
}

impl Taken {
    fn name(&mut self, name: &[u8]) {
        self.hasher.update(name.len().to_le_bytes());
        self.hasher.update(name);
    }

    fn metadata(&mut self, metadata: &Metadata) {
        for number in [metadata.dev(), metadata.ino(), metadata.size(), metadata.mode().into()] {
            self.hasher.update(number.to_le_bytes());
        }
        for time in [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()] {
            self.hasher.update(time.to_le_bytes());
        }
        self.changed = self.changed.max(metadata.ctime());
    }

    fn folder(&mut self, root: &Path) -> Result<()> {
        let mut todo = vec![PathBuf::new()];
        while let Some(path) = todo.pop() {
            // The folder itself may be reached by a link, what is in it is taken as it is.
            let (full, metadata) = if path.as_os_str().is_empty() {
                (root.to_owned(), fs::metadata(root))
            } else {
                (root.join(&path), fs::symlink_metadata(root.join(&path)))
            };
            let metadata = metadata.doing(|| format!("open `{}`", full.display()))?;
            self.name(path.as_os_str().as_bytes());
            self.metadata(&metadata);
            if metadata.is_dir() {
                todo.extend(folder::names(&full)?.into_iter().map(|name| path.join(name)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(reference: &str, base: &Path) -> Digest {
        Fingerprint::take(&reference.parse().unwrap(), base).unwrap().unwrap().key
    }

    /// Makes one change below a folder.
    type Change = fn(&Path);

    #[test]
    fn every_change_gives_another_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        fs::create_dir_all(base.join("root/sub")).unwrap();
        fs::write(base.join("root/sub/file"), "content").unwrap();
        let changes: [Change; 6] = [
            |root| fs::write(root.join("sub/file"), "CONTENT").unwrap(),
            |root| fs::set_permissions(root.join("sub/file"), PermissionsExt::from_mode(0o600)).unwrap(),
            |root| fs::hard_link(root.join("sub/file"), root.join("link")).unwrap(),
            |root| fs::rename(root.join("sub/file"), root.join("sub/elif")).unwrap(),
            |root| fs::remove_file(root.join("link")).unwrap(),
            |root| fs::create_dir(root.join("empty")).unwrap(),
        ];
        for (position, change) in changes.into_iter().enumerate() {
            // Longer than a tick, within which two changes cannot be told apart.
            std::thread::sleep(std::time::Duration::from_millis(20));
            let before = key("dir:root", base);
            assert_eq!(before, key("dir:root", base));
            change(&base.join("root"));
            assert_ne!(before, key("dir:root", base), "change {position}");
        }
    }

    #[test]
    fn a_place_that_changed_a_moment_ago_is_not_settled() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.tar"), "").unwrap();
        let take = |reference: &str| Fingerprint::take(&reference.parse().unwrap(), folder.path()).unwrap();
        assert!(!take("oci-archive:a.tar").unwrap().is_settled);
        assert!(take("oci:images").is_none(), "a layout is quick to read");
    }

    #[test]
    fn two_images_of_one_archive_differ() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.tar"), "").unwrap();
        assert_ne!(key("oci-archive:a.tar:a", folder.path()), key("oci-archive:a.tar:b", folder.path()));
    }
}
