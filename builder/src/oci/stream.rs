//! A layer's uncompressed tar stream, verified to its last byte.
//!
//! ```text
//! blob ► hash ─ thread ─► decompress ─ thread ─► hash ► whoever reads the tar archive
//! ```
//!
//! Inflating takes longer than everything else that is done with a layer, so a compressed one is inflated by a
//! thread of its own, a little ahead of its reader, and another one reads and hashes the blob.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use sha2::{Digest as _, Sha256};

use super::ahead::Ahead;
use super::compression::{Compression, Decoder};
use super::descriptor::Digest;
use super::limits::Limits;
use crate::error::{Context, Error, Result};

/// Bytes read at once: large enough that system calls do not show beside inflating.
const BUFFER: usize = 256 << 10;

/// What a layer must turn out to be.
#[derive(Debug, Clone)]
pub struct Expected {
    /// How the layer is named in messages: ``layer 1 of 3 of image `oci:x:web` ``.
    pub name: String,
    /// The digest of the blob, compressed as it is. None where no document names one, as in `docker-archive`.
    pub blob: Option<Digest>,
    /// How it is compressed.
    pub compression: Compression,
    /// The digest of the tar stream.
    pub diff_id: Digest,
    /// What it may take.
    pub limits: Limits,
    /// What all layers of the image have inflated to so far.
    pub total: Arc<AtomicU64>,
}

/// Reads the tar stream of a layer. It ends without an error only when every byte of the blob was read, and
/// both digests are the expected ones; what was read before that is not to be trusted yet.
pub struct TarStream {
    name: String,
    diff_id: Digest,
    input: Box<dyn Read + Send>,
    hasher: Sha256,
    limits: Limits,
    total: Arc<AtomicU64>,
    end: End,
}

/// Whether a stream is at its end, and at which.
enum End {
    NotYet,
    Verified,
    Failed(Error),
}

impl TarStream {
    /// Begins to read the blob that `blob` gives.
    pub fn new(blob: Box<dyn Read + Send>, expected: Expected) -> Result<Self> {
        let Expected { name, blob: digest, compression, diff_id, limits, total } = expected;
        let input: Box<dyn Read + Send> = if compression == Compression::None {
            // The bytes of a plain layer are hashed once, so both digests must be the same one.
            if let Some(digest) = digest.filter(|&digest| digest != diff_id) {
                let why =
                    format!("it is not compressed, but its blob is `{digest}` and its diff id `{diff_id}`");
                return Err(Error::new(why));
            }
            blob
        } else {
            Box::new(Ahead::of(Inflated::new(blob, digest, compression, limits)?)?)
        };
        Ok(Self { name, diff_id, input, hasher: Sha256::new(), limits, total, end: End::NotYet })
    }

    /// Takes in what was read. Nothing was read at the end, where the digest is known.
    fn check(&mut self, bytes: &[u8]) -> Result<()> {
        let name = &self.name;
        self.hasher.update(bytes);
        self.limits.count(bytes.len(), &self.total).map_err(|error| error.within(name))?;
        if bytes.is_empty() {
            let (found, diff_id) = (Digest::from_hasher(std::mem::take(&mut self.hasher)), self.diff_id);
            if found != diff_id {
                return Err(Error::new(format!(
                    "{name}: its tar archive has the digest `{found}`, not `{diff_id}`"
                )));
            }
            self.end = End::Verified;
        }
        Ok(())
    }
}

impl Read for TarStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.end {
            End::Verified => return Ok(0),
            End::Failed(error) => return Err(error.clone().into()),
            End::NotYet if buffer.is_empty() => return Ok(0),
            End::NotYet => {}
        }
        let outcome = match self.input.read(buffer) {
            Ok(count) => self.check(&buffer[..count]).map(|()| count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => Err(Error::new(format!("{}: {error}", self.name))),
        };
        outcome.map_err(|error| {
            self.end = End::Failed(error.clone());
            error.into()
        })
    }
}

/// Reads a blob, and compares its digest at its end: an error there takes the place of the end.
struct Verified {
    blob: Box<dyn Read + Send>,
    expected: Digest,
    hasher: Sha256,
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.blob.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        let (expected, found) = (self.expected, Digest::from_hasher(self.hasher.clone()));
        if expected == found {
            return Ok(0);
        }
        let why = format!("its blob `{expected}` is damaged: its bytes have the digest `{found}`");
        Err(Error::new(why).into())
    }
}

/// Counts what passes.
struct Counted {
    input: Box<dyn Read + Send>,
    passed: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.passed += count as u64;
        Ok(count)
    }
}

/// Decompresses a blob.
struct Inflated {
    compression: Compression,
    decoder: Decoder<BufReader<Counted>>,
    limits: Limits,
    inflated: u64,
}

impl Inflated {
    fn new(
        blob: Box<dyn Read + Send>,
        expected: Option<Digest>,
        compression: Compression,
        limits: Limits,
    ) -> Result<Self> {
        let input: Box<dyn Read + Send> = match expected {
            Some(expected) => Box::new(Ahead::of(Verified { blob, expected, hasher: Sha256::new() })?),
            None => blob,
        };
        let input = BufReader::with_capacity(BUFFER, Counted { input, passed: 0 });
        let decoder = Decoder::new(compression, input).doing(|| format!("decode {compression}"))?;
        Ok(Self { compression, decoder, limits, inflated: 0 })
    }

    fn finish(&mut self) -> io::Result<()> {
        if !self.decoder.input().fill_buf()?.is_empty() {
            let why = format!("bytes follow the end of its {} stream", self.compression);
            return Err(Error::new(why).into());
        }
        Ok(())
    }

    /// Why decompressing failed. A blob with a wrong digest was damaged on its way: say that, rather than what
    /// the decoder stumbled over.
    fn explain(&mut self, cause: io::Error) -> io::Error {
        let compression = self.compression;
        let is_ours = |error: &io::Error| {
            error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Error>)
        };
        if is_ours(&cause) {
            return cause;
        }
        if let Err(error) = io::copy(self.decoder.input(), &mut io::sink()) {
            return error;
        }
        Error::new(if cause.kind() == io::ErrorKind::UnexpectedEof {
            format!("its {compression} stream is cut short")
        } else {
            format!("its {compression} stream is damaged: {cause}")
        })
        .into()
    }
}

impl Read for Inflated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.decoder.read(buffer) {
            Ok(0) if !buffer.is_empty() => self.finish().map(|()| 0),
            Ok(count) => {
                self.inflated += count as u64;
                let read = self.decoder.input().get_ref().passed;
                Ok(self.limits.check_ratio(read, self.inflated).map(|()| count)?)
            }
            Err(cause) if cause.kind() != io::ErrorKind::Interrupted => Err(self.explain(cause)),
            Err(interrupted) => Err(interrupted),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn blobs(tar: &[u8]) -> [(Compression, Vec<u8>); 3] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(tar).unwrap();
        [
            (Compression::None, tar.to_vec()),
            (Compression::Gzip, gzip.finish().unwrap()),
            (Compression::Zstd, zstd::stream::encode_all(tar, 1).unwrap()),
        ]
    }

    fn read(blob: Vec<u8>, digest: Digest, compression: Compression, diff_id: Digest) -> Result<Vec<u8>> {
        let (limits, total) = (Limits::default(), Arc::default());
        let name = "layer".to_owned();
        let expected = Expected { name, blob: Some(digest), compression, diff_id, limits, total };
        let mut bytes = Vec::new();
        let mut stream = TarStream::new(Box::new(io::Cursor::new(blob)), expected)?;
        stream.read_to_end(&mut bytes).map_err(|error| Error::new(error.to_string()))?;
        Ok(bytes)
    }

    #[test]
    fn no_blob_makes_a_decoder_panic() {
        let tar: Vec<u8> = (0..2_000u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        let [_, gzip, zstd] = blobs(&tar);
        for (compression, blob) in [gzip, zstd] {
            let twice = [&blob[..], &blob].concat();
            crate::mutation::feed(&compression.to_string(), &[blob, twice]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
        #[test]
        fn no_change_of_a_blob_goes_unnoticed(
            tar in proptest::collection::vec(0u8..4, 1..3000), at in any::<prop::sample::Index>(), flip in 1u8..,
        ) {
            for (compression, blob) in blobs(&tar) {
                let (digest, diff_id) = (Digest::of(&blob), Digest::of(&tar));
                prop_assert_eq!(read(blob.clone(), digest, compression, diff_id), Ok(tar.clone()));
                let mut flipped = blob.clone();
                flipped[at.index(blob.len())] ^= flip;
                prop_assert!(read(flipped, digest, compression, diff_id).is_err());
                let cut = blob[..at.index(blob.len())].to_vec();
                prop_assert!(read(cut, digest, compression, diff_id).is_err());
            }
        }
    }
}
