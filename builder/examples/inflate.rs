//! The floor of the benchmark of conversion: a gzip file inflated by the builder's own codec, and nothing
//! else.

use std::fs::File;
use std::io::{self, BufReader, Read};

/// What the builder reads and hands on at once.
const BUFFER: usize = 256 << 10;

/// Prints how many bytes the file named on the command line has when it is inflated.
fn main() -> io::Result<()> {
    let path = std::env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: inflate FILE"))?;
    let file = BufReader::with_capacity(BUFFER, File::open(path)?);
    let mut stream = flate2::bufread::MultiGzDecoder::new(file);
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            count => total += count,
        }
    }
    println!("{total}");
    Ok(())
}
