//! How a container's processes stand when memory is short (`oom_score_adj`): inherited from whoever starts them.
//!
//! A child would have to look itself up in `/proc`, which makes an inode of its own that is taken apart when it ends: ten
//! times the work of the two words here. What is written with CAP_SYS_RESOURCE is also the lowest value that the child
//! can go back to, as it would be if it were written by itself.

use std::cell::OnceCell;
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::{Error, Result};

const PATH: &str = "/proc/self/oom_score_adj";

/// This process's own standing.
struct Own {
    file: File,
    value: String,
}

thread_local! {
    /// Opened once. A child's copy still is its parent's, and children start no containers.
    static OWN: OnceCell<Own> = const { OnceCell::new() };
}

/// Runs `start`, whose children stand as `value` says. This process does so as well meanwhile; if it is PID 1 that does not
/// matter, since the kernel never chooses that one.
pub(super) fn of_children<T>(value: i16, start: impl FnOnce() -> Result<T>) -> Result<T> {
    OWN.with(|own| {
        let own = match own.get() {
            Some(own) => own,
            None => {
                let opened = Own::open()?;
                own.get_or_init(|| opened)
            }
        };
        own.write(&value.to_string())?;
        let started = start();
        // Not what a start can fail for: the child is there.
        match own.write(&own.value) {
            Ok(()) | Err(_) => started,
        }
    })
}

impl Own {
    fn open() -> Result<Self> {
        let failed = |error: &std::io::Error| Error::io("open", PATH, error);
        let file = File::options().read(true).write(true).open(PATH).map_err(|error| failed(&error))?;
        let mut text = [0; 16];
        let length = file.read_at(&mut text, 0).map_err(|error| failed(&error))?;
        let value = String::from_utf8_lossy(text.get(..length).unwrap_or_default()).trim().to_owned();
        Ok(Self { file, value })
    }

    fn write(&self, value: &str) -> Result<()> {
        self.file.write_all_at(value.as_bytes(), 0).map_err(|error| Error::io("write", PATH, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::read_to_string;

    #[test]
    fn what_children_inherit_is_taken_back_afterwards() {
        let own = || read_to_string(PATH).unwrap().trim().to_owned();
        let before = own();
        // Anybody may raise it; only who has CAP_SYS_RESOURCE may lower it again.
        let meanwhile = of_children(before.parse().unwrap(), || Ok(own())).unwrap();
        assert_eq!((meanwhile, own()), (before.clone(), before));
    }
}
