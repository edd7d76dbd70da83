//! Converted layers, and what is known of each.
//!
//! A complete layer is sealed: it has a time of modification that no clock shows. Whoever writes to it later gives it
//! another one, so that telling whether it is still what it was costs a stat(2). A layer of another time may have been
//! copied or restored with the store: it is compared with its digest, and sealed again if it has it.

use std::fs::{self, File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::pieces::digest;
use super::{Draft, Lock, Store};
use crate::error::{Context, Result};
use crate::oci::descriptor::Digest;

/// The second day of 1980, since 1970: in whole seconds and late enough for every format that archives a store.
const SEAL: Duration = Duration::from_secs(315_619_200);

const DAY: Duration = Duration::from_secs(86_400);

/// What is written beside a layer.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record<T> {
    /// The layer's digest as [`super::pieces`] makes it, in hexadecimal digits.
    digest: String,
    /// What its maker knows of it.
    about: T,
}

impl Store {
    /// Where a layer stands that was converted to `format` (which includes the version and the options of the
    /// conversion), if the store has it.
    pub fn layer_path(&self, format: &str, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(format).join(diff_id.hex()).with_extension("erofs")
    }

    /// What its maker said of a layer that is complete and as it was made. Any other is as good as missing.
    pub fn find_layer<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>> {
        let Some(record) = read_record::<T>(path)? else { return Ok(None) };
        let Some(file) = open(path)? else { return Ok(None) };
        let doing = || format!("read the layer `{}`", path.display());
        if !is_sealed(&file).doing(doing)? {
            if digest(&file).doing(doing)?.to_hex().as_str() != record.digest {
                return Ok(None);
            }
            // Whoever cannot seal it reads it again next time.
            drop(seal(&file));
        }
        // The store of somebody else is none that is pruned here.
        drop(note_use(&file));
        Ok(Some(record.about))
    }

    /// Waits until nobody else makes a layer, and says so if it takes waiting.
    pub fn lock_layer(&self, path: &Path, waiting: impl FnOnce()) -> Result<Lock> {
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).doing(|| format!("make the folder `{}`", folder.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Lock::take(&folder.join(format!(".{name}.lock")), waiting))
    }

    /// Keeps a layer with this digest, and what is known of it.
    pub fn keep_layer<T: Serialize>(
        &self,
        (mut draft, digest): (Draft, blake3::Hash),
        path: &Path,
        about: &T,
    ) -> Result<()> {
        let doing = || format!("write `{}`", path.display());
        seal(draft.file()).doing(doing)?;
        let digest = digest.to_hex().to_string();
        let record = serde_json::to_vec(&Record { digest, about }).doing(doing)?;
        // First what is known of the layer: without it the layer counts as missing.
        let record_path = record_path(path);
        let mut record_draft = self.begin(&record_path)?;
        io::Write::write_all(&mut record_draft, &record)
            .doing(|| format!("write `{}`", record_path.display()))?;
        record_draft.publish()?;
        draft.commit_as(path)
    }
}

/// Whether a layer has the digest that it had when it was made, by all its bytes.
pub fn is_whole(path: &Path) -> Result<bool> {
    let Some(record) = read_record::<serde::de::IgnoredAny>(path)? else { return Ok(false) };
    let Some(file) = open(path)? else { return Ok(false) };
    let found = digest(&file).doing(|| format!("read the layer `{}`", path.display()))?;
    Ok(found.to_hex().as_str() == record.digest)
}

/// The file beside a layer that says what is known of it.
pub fn record_path(layer: &Path) -> PathBuf {
    layer.with_extension("json")
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing(|| format!("open the layer `{}`", path.display())),
    }
}

/// What cannot be read is as good as missing.
fn read_record<T: DeserializeOwned>(layer: &Path) -> Result<Option<Record<T>>> {
    let path = record_path(layer);
    match fs::read(&path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing(|| format!("read `{}`", path.display())),
    }
}

fn is_sealed(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.modified()? == sealed())
}

fn seal(file: &File) -> io::Result<()> {
    file.set_modified(sealed())
}

fn sealed() -> SystemTime {
    UNIX_EPOCH + SEAL
}

/// Notes that a layer was used, once a day: not every file system notes when a file is read.
fn note_use(file: &File) -> io::Result<()> {
    let now = SystemTime::now();
    let age = now.duration_since(file.metadata()?.accessed()?).unwrap_or_default();
    if age < DAY {
        return Ok(());
    }
    file.set_times(FileTimes::new().set_accessed(now))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;

    use super::super::Hashed;
    use super::*;

    fn store_with_layer() -> (tempfile::TempDir, Store, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path()).unwrap();
        let path = store.layer_path("plain", &Digest::of(b"layer"));
        let mut draft = store.begin(&path).unwrap();
        let mut hashed = Hashed::new(draft.file());
        hashed.write_all(&[7; 300_000]).unwrap();
        let digest = hashed.finish().unwrap();
        store.keep_layer((draft, digest), &path, &"about").unwrap();
        (folder, store, path)
    }

    fn find(store: &Store, path: &Path) -> Option<String> {
        store.find_layer(path).unwrap()
    }

    #[test]
    fn a_layer_is_found_with_what_was_said_of_it() {
        let (_folder, store, path) = store_with_layer();
        assert_eq!(find(&store, &path).as_deref(), Some("about"));
        assert!(is_whole(&path).unwrap());
    }

    #[test]
    fn one_flipped_bit_makes_it_as_good_as_missing() {
        let (_folder, store, path) = store_with_layer();
        File::options().write(true).open(&path).unwrap().write_all_at(&[6], 200_000).unwrap();
        assert_eq!(find(&store, &path), None);
        assert!(!is_whole(&path).unwrap());
    }

    #[test]
    fn a_bit_that_flips_on_the_disk_is_found_by_who_reads_it_all() {
        let (_folder, store, path) = store_with_layer();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[6], 200_000).unwrap();
        seal(&file).unwrap();
        assert_eq!(find(&store, &path).as_deref(), Some("about"), "the seal is believed");
        assert!(!is_whole(&path).unwrap());
    }

    #[test]
    fn a_restored_layer_is_verified_and_sealed_again() {
        let (_folder, store, path) = store_with_layer();
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        assert!(!is_sealed(&File::open(&path).unwrap()).unwrap());
        assert_eq!(find(&store, &path).as_deref(), Some("about"));
        assert!(is_sealed(&File::open(&path).unwrap()).unwrap());
    }

    #[test]
    fn using_a_layer_is_noted_and_leaves_its_seal() {
        let (_folder, store, path) = store_with_layer();
        let file = File::open(&path).unwrap();
        file.set_times(FileTimes::new().set_accessed(SystemTime::now() - 3 * DAY)).unwrap();
        find(&store, &path).unwrap();
        assert!(file.metadata().unwrap().accessed().unwrap().elapsed().unwrap() < DAY);
        assert!(is_sealed(&file).unwrap());
    }

    #[test]
    fn a_layer_without_its_record_or_with_anothers_is_as_good_as_missing() {
        let (_folder, store, path) = store_with_layer();
        for record in ["", "{}", "{\"digest\": \"\", \"about\": \"x\"}", "{\"digest\": 5}"] {
            fs::write(record_path(&path), record).unwrap();
            File::open(&path).unwrap().set_modified(SystemTime::now()).unwrap();
            assert_eq!(find(&store, &path), None, "{record}");
        }
        fs::remove_file(record_path(&path)).unwrap();
        assert_eq!(find(&store, &path), None);
    }
}
