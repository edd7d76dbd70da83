//! At most so many machines at once, over all test processes.

use std::fs::{File, OpenOptions};
use std::thread;
use std::time::Duration;

/// Each emulated machine keeps two processors busy while it boots; more at once only makes all of them late.
const SLOTS: u32 = 2;

/// The right to run one machine, given back when it goes out of scope, or when the process ends.
pub struct Slot(#[expect(dead_code, reason = "held for its lock")] File);

impl Slot {
    /// Waits for one.
    pub fn take() -> Self {
        let files: Vec<File> = (0..SLOTS).map(open).collect();
        loop {
            for file in &files {
                if file.try_lock().is_ok() {
                    // A clone shares the lock, which ends with the last of them; the other files are closed here.
                    let held = file.try_clone().unwrap_or_else(|error| panic!("cannot keep a lock: {error}"));
                    return Self(held);
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn open(number: u32) -> File {
    let path = crate::folder("slots").join(number.to_string());
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .unwrap_or_else(|error| panic!("cannot open `{}`: {error}", path.display()))
}
