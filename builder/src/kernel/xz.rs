//! xz streams of kernel packages and modules.

use std::io::{BufRead, BufReader, Read};

use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;

use crate::error::{Context, Result};

/// The most memory that decoding takes. A header can ask for 4 GiB; what `xz -9` writes, the most that Debian's
/// packages use, takes 65 MiB.
const MEMORY: u64 = 128 << 20;

/// What is read of a stream at once.
const BUFFER: usize = 128 << 10;

/// Decompresses one stream.
pub fn decoder<R: Read>(input: R) -> Result<XzDecoder<impl BufRead>> {
    let stream = Stream::new_stream_decoder(MEMORY, 0).doing(|| "decode xz")?;
    Ok(XzDecoder::new_stream(BufReader::with_capacity(BUFFER, input), stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_asks_for_gibibytes_of_memory_is_refused() {
        let mut xz = liblzma::encode_all(&b"bytes"[..], 6).unwrap();
        let read = |xz: &[u8]| {
            let mut bytes = Vec::new();
            decoder(xz).unwrap().read_to_end(&mut bytes).map(|_| bytes)
        };
        assert_eq!(read(&xz).unwrap(), b"bytes");
        // The xz file format, 3.1 "Block Header": behind the stream's 12 bytes its size, flags, the filter 0x21 with one
        // byte of properties, which is the size of the dictionary, padding and a checksum.
        let end = 12 + 4 * usize::from(xz[12]);
        assert_eq!(xz[14..16], [0x21, 1]);
        xz[16] = 40;
        let mut sum = flate2::Crc::new();
        sum.update(&xz[12..end]);
        xz[end..end + 4].copy_from_slice(&sum.sum().to_le_bytes());
        let error = read(&xz).unwrap_err().to_string();
        assert!(error.contains("memory"), "{error}");
    }
}
