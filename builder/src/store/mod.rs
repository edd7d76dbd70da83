//! The store: blobs by digest, converted layers and kernels, shared by all builds of a user.
//!
//! ```text
//! blobs/sha256/HEX          verified while written, and again when a document is read
//! layers/FORMAT/HEX.erofs   sealed when complete: whatever was written to one since is noticed
//! layers/FORMAT/HEX.json    its digest, and what is known of it beside its bytes
//! layers/FORMAT/.HEX.lock   held by whoever makes one
//! kernels/NAME              likewise
//! resolved/HEX              a digest that took long to find; verified like any other when it is used
//! machines/NAME/            what `coracle run CONFIG` built
//! accelerator               which of QEMU's accelerators works on this host
//! ```
//!
//! Nothing here is precious: every file can be made again. Files appear under their names complete and all at
//! once, so that builds which run at the same time, or are killed, leave nothing for the next one to trip over.

mod draft;
mod layer;
mod lock;
mod pieces;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

pub use draft::Draft;
pub use layer::{is_whole as is_whole_layer, record_path};
pub use lock::Lock;
pub use pieces::Hashed;

use crate::error::{Context, Error, Result};
use crate::oci::descriptor::Digest;

/// The variable that names another folder for the store.
const VARIABLE: &str = "CORACLE_CACHE";

/// A folder of verified files.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The user's store: `$CORACLE_CACHE`, else `coracle` in the XDG cache folder.
    pub fn open() -> Result<Self> {
        if let Some(root) = std::env::var_os(VARIABLE).filter(|root| !root.is_empty()) {
            return Self::at(root);
        }
        let folders = etcetera::choose_base_strategy().map_err(|_| {
            Error::new("cannot find the cache folder: neither `XDG_CACHE_HOME` nor `HOME` is set")
                .hint(format!("set `{VARIABLE}` to a folder"))
        })?;
        Self::at(folders.cache_dir().join("coracle"))
    }

    /// The store in a folder, which is made when it is missing.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root).doing(|| format!("make the store `{}`", root.display()))?;
        Ok(Self { root })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the blob with this digest stands, if the store has it.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Where a kernel, or what was made of one, stands under a name of the caller's choice.
    pub fn kernel_path(&self, name: &str) -> PathBuf {
        self.root.join("kernels").join(name)
    }

    /// Where a machine stands that was built to be run, under a name of the caller's choice.
    pub fn machine_path(&self, name: &str) -> PathBuf {
        self.root.join("machines").join(name)
    }

    /// Where it is remembered which of QEMU's accelerators works on this host.
    pub fn accelerator_path(&self) -> PathBuf {
        self.root.join("accelerator")
    }

    /// The bytes of a blob of at most `limit` bytes. A blob that was damaged since it was written is as good as
    /// missing: the caller gets it from where it came from, and inserting it again mends the store.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>> {
        let path = self.blob_path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).doing(|| format!("open `{}`", path.display())),
        };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).doing(|| format!("read `{}`", path.display()))?;
        if bytes.len() as u64 > limit {
            return Err(Error::new(format!("blob `{digest}` has more than {limit} bytes")));
        }
        Ok((Digest::of(&bytes) == *digest).then_some(bytes))
    }

    /// Whether a file has the bytes that its name is the digest of.
    pub fn is_whole_blob(&self, path: &Path) -> Result<bool> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { return Ok(false) };
        Ok(self.read_blob(&digest, u64::MAX - 1)?.is_some())
    }

    /// Keeps some bytes under their digest.
    pub fn insert_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.read_blob(&digest, bytes.len() as u64)?.is_none() {
            let mut draft = self.begin(&self.blob_path(&digest))?;
            draft.write_all(bytes).doing(|| format!("write blob `{digest}` into the store"))?;
            // Not flushed to the disk first: documents are verified whenever they are read.
            draft.publish()?;
        }
        Ok(digest)
    }

    /// The digest that was remembered under a key.
    pub fn recall(&self, key: &Digest) -> Result<Option<Digest>> {
        let path = self.resolved_path(key);
        match fs::read(&path) {
            // What is no digest was cut off by a power failure: as good as missing.
            Ok(bytes) => Ok(String::from_utf8(bytes).ok().and_then(|text| text.parse().ok())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing(|| format!("read `{}`", path.display())),
        }
    }

    /// Remembers a digest under a key.
    pub fn remember(&self, key: &Digest, digest: &Digest) -> Result<()> {
        let path = self.resolved_path(key);
        let mut draft = self.begin(&path)?;
        draft.write_all(digest.to_string().as_bytes()).doing(|| format!("write `{}`", path.display()))?;
        draft.publish()
    }

    fn resolved_path(&self, key: &Digest) -> PathBuf {
        self.root.join("resolved").join(key.hex())
    }

    /// Begins a file of the store, at a path that one of the methods above gave.
    pub fn begin(&self, path: &Path) -> Result<Draft> {
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).doing(|| format!("make the folder `{}`", folder.display()))?;
        Draft::begin(path)
    }

    /// A file without a name on the store's file system, gone when it is closed.
    pub fn scratch(&self) -> Result<File> {
        tempfile::tempfile_in(&self.root).doing(|| format!("make a file in `{}`", self.root.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("cache")).unwrap();
        (folder, store)
    }

    fn blobs(store: &Store) -> usize {
        fs::read_dir(store.root.join("blobs/sha256")).unwrap().count()
    }

    #[test]
    fn a_blob_is_read_back_by_its_digest_and_within_the_limit() {
        let (_folder, store) = store();
        let digest = store.insert_blob(b"hello").unwrap();
        assert_eq!(store.read_blob(&digest, 5).unwrap().unwrap(), b"hello");
        assert_eq!(store.read_blob(&Digest::of(b"other"), 5).unwrap(), None);
        let error = store.read_blob(&digest, 4).unwrap_err().to_string();
        assert_eq!(error, format!("blob `{digest}` has more than 4 bytes"));
    }

    #[test]
    fn a_damaged_blob_is_as_good_as_missing_and_is_mended() {
        let (_folder, store) = store();
        let digest = store.insert_blob(b"hello").unwrap();
        fs::write(store.blob_path(&digest), b"jello").unwrap();
        assert_eq!(store.read_blob(&digest, 5).unwrap(), None);
        store.insert_blob(b"hello").unwrap();
        assert_eq!(store.read_blob(&digest, 5).unwrap().unwrap(), b"hello");
    }

    #[test]
    fn a_digest_is_remembered_under_its_key() {
        let (_folder, store) = store();
        let (key, digest) = (Digest::of(b"key"), Digest::of(b"digest"));
        assert_eq!(store.recall(&key).unwrap(), None);
        store.remember(&key, &digest).unwrap();
        assert_eq!(store.recall(&key).unwrap(), Some(digest));
        fs::write(store.resolved_path(&key), "sha256:").unwrap();
        assert_eq!(store.recall(&key).unwrap(), None);
    }

    #[test]
    fn a_dropped_draft_leaves_nothing_behind() {
        let (_folder, store) = store();
        let path = store.layer_path("plain-1", &Digest::of(b"x"));
        let mut draft = store.begin(&path).unwrap();
        draft.write_all(b"half of a lay").unwrap();
        drop(draft);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_appears_complete_even_when_many_write_it_at_once() {
        let (_folder, store) = store();
        let bytes = vec![7; 300_000];
        let digest = Digest::of(&bytes);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        store.insert_blob(&bytes).unwrap();
                        assert_eq!(store.read_blob(&digest, 1 << 20).unwrap().unwrap(), bytes);
                    }
                });
            }
        });
        assert_eq!(blobs(&store), 1);
    }
}
