//! Locks between builds: what one of them makes, the others wait for instead of making it too.
//!
//! A lock saves work and nothing else: files of the store appear complete whoever writes them, so that a file system
//! without locks is one on which two builds may do the same.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A lock that is held until it is dropped. It is gone with the process that holds it, however that ends.
#[derive(Debug)]
pub struct Lock {
    /// Holds the lock; nothing where there are no locks.
    file: Option<File>,
    path: PathBuf,
}

impl Lock {
    /// Waits for the lock with this name in a folder that exists, and says so if it takes waiting.
    pub fn take(path: &Path, waiting: impl FnOnce()) -> Self {
        let mut waiting = Some(waiting);
        let file = loop {
            match attempt(path, &mut waiting) {
                Ok(Some(file)) => break Some(file),
                Ok(None) => {}
                // Without locks, or without the right to make a file, which whoever writes the layer says better.
                Err(_) => break None,
            }
        };
        Self { file, path: path.to_owned() }
    }
}

/// Takes the lock of the file that has this name; nothing if it lost the name meanwhile, as its holder was done.
fn attempt(path: &Path, waiting: &mut Option<impl FnOnce()>) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            if let Some(say) = waiting.take() {
                say();
            }
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let own = file.metadata()?.ino();
    let is_named = fs::metadata(path).is_ok_and(|named| named.ino() == own);
    Ok(is_named.then_some(file))
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.file.is_some() {
            // While it is held, so that nobody else's goes. A name that stays costs nothing.
            drop(fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn one_holds_it_at_a_time_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let (inside, waited) = (AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let lock = Lock::take(&path, || {
                            waited.fetch_add(1, Ordering::SeqCst);
                        });
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert!(waited.into_inner() > 0, "somebody had to wait");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn where_no_lock_can_be_made_work_goes_on() {
        let lock = Lock::take(Path::new("/nonexistent/lock"), || {});
        assert!(lock.file.is_none());
    }
}
