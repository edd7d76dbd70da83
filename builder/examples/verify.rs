//! The floor of the benchmark of cold builds: gzip files inflated and hashed, as they are and inflated, by
//! the builder's own codec and hash, on all processors, and nothing else.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use sha2::{Digest, Sha256};

/// What the builder reads and hands on at once.
const BUFFER: usize = 256 << 10;

/// Prints both digests of each file named on the command line.
fn main() -> io::Result<()> {
    let mut files = Vec::new();
    for path in std::env::args_os().skip(1).map(PathBuf::from) {
        files.push((fs::metadata(&path)?.len(), path));
    }
    // The largest first, so that no thread begins it last.
    files.sort_by(|a, b| b.cmp(a));
    let waiting: Mutex<VecDeque<_>> = Mutex::new(files.into());
    let work = || {
        loop {
            // Taken in a statement of its own: the others are not to wait until it is done.
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((_, path)) = next else { return Ok(()) };
            verify(&path)?;
        }
    };
    let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        let died = |_| Err(io::Error::other("a thread died"));
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(died))
    })
}

fn verify(path: &Path) -> io::Result<()> {
    let blob = Hashed { file: File::open(path)?, hasher: Sha256::new() };
    let mut stream = flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(BUFFER, blob));
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    let blob = stream.into_inner().into_inner().hasher.finalize();
    println!("{} {}", hex(&blob), hex(&hasher.finalize()));
    Ok(())
}

/// Hashes what passes.
struct Hashed {
    file: File,
    hasher: Sha256,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
