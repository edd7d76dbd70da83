//! A layer's uncompressed tar stream, verified to its last byte.

use std::io::{self, BufRead, BufReader, Read};

use sha2::{Digest as _, Sha256};

use super::compression::{Compression, Decoder};
use super::descriptor::Digest;
use crate::error::{Context, Error, Result};

/// Bytes read at once: large enough that system calls do not show beside inflating.
const BUFFER: usize = 256 << 10;

/// The most bytes that one layer may inflate to. No limit of the format, but of what a build may fill a disk
/// with: zstd makes a terabyte of a few kilobytes.
const INFLATED: u64 = 64 << 30;

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
}

/// Reads the tar stream of a layer. It ends without an error only when every byte of the blob was read, and
/// both digests are the expected ones; what was read before that is not to be trusted yet.
pub struct TarStream {
    expected: Expected,
    decoder: Decoder<BufReader<Blob>>,
    hasher: Sha256,
    total: u64,
    end: End,
}

/// Whether a stream is at its end, and at which.
enum End {
    NotYet,
    Verified,
    Failed(Error),
}

/// The compressed side: hashes what passes.
struct Blob {
    reader: Box<dyn Read + Send>,
    /// None when nothing is to be compared with the hash.
    hasher: Option<Sha256>,
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        Ok(count)
    }
}

impl TarStream {
    /// Begins to read the blob that `reader` gives.
    pub fn new(reader: Box<dyn Read + Send>, expected: Expected) -> Result<Self> {
        // The bytes of a plain layer pass once, so they are hashed once.
        let hashed_anyway = expected.compression == Compression::None;
        if let Some(blob) = expected.blob.filter(|blob| hashed_anyway && *blob != expected.diff_id) {
            let diff_id = expected.diff_id;
            return Err(Error::new(format!(
                "it is not compressed, but its blob is `{blob}` and its diff id `{diff_id}`"
            )));
        }
        let hasher = expected.blob.filter(|_| !hashed_anyway).map(|_| Sha256::new());
        let input = BufReader::with_capacity(BUFFER, Blob { reader, hasher });
        let decoder = Decoder::new(expected.compression, input)
            .doing(|| format!("decode its {} stream", expected.compression))?;
        Ok(Self { expected, decoder, hasher: Sha256::new(), total: 0, end: End::NotYet })
    }

    /// Why a decoder failed. A blob whose digest is wrong was damaged on its way: say that, and not what its
    /// decoder stumbled over first.
    fn explain(&mut self, cause: &io::Error) -> Error {
        let compression = self.expected.compression;
        let damaged = io::copy(self.decoder.input(), &mut io::sink()).is_ok().then(|| self.check_blob());
        if let Some(Err(error)) = damaged {
            return error;
        }
        Error::new(match (compression, cause.kind()) {
            (Compression::None, _) => format!("cannot read {}: {cause}", self.expected.name),
            (_, io::ErrorKind::UnexpectedEof) => {
                format!("{}: its {compression} stream is cut short", self.expected.name)
            }
            _ => format!("{}: its {compression} stream is damaged: {cause}", self.expected.name),
        })
    }

    fn check_blob(&mut self) -> Result<()> {
        let hasher = self.decoder.input().get_mut().hasher.take();
        let found = hasher.map(Digest::from_hasher);
        match (self.expected.blob, found) {
            (Some(blob), Some(found)) if blob != found => Err(Error::new(format!(
                "{}: its blob `{blob}` is damaged: its bytes have the digest `{found}`",
                self.expected.name
            ))),
            _ => Ok(()),
        }
    }

    /// Checks everything that can only be known at the end.
    fn finish(&mut self) -> Result<()> {
        let Expected { name, compression, diff_id, .. } = self.expected.clone();
        let rest = self.decoder.input().fill_buf().map(<[u8]>::len);
        match rest {
            Ok(0) => {}
            Ok(_) => {
                return Err(Error::new(format!("{name}: bytes follow the end of its {compression} stream")));
            }
            Err(error) => return Err(Error::new(format!("cannot read {name}: {error}"))),
        }
        self.check_blob()?;
        let found = Digest::from_hasher(std::mem::take(&mut self.hasher));
        if found != diff_id {
            return Err(Error::new(format!(
                "{name}: its tar archive has the digest `{found}`, not `{diff_id}`"
            )));
        }
        Ok(())
    }

    fn step(&mut self, buffer: &mut [u8]) -> io::Result<Result<usize>> {
        let count = match self.decoder.read(buffer) {
            Ok(0) => return Ok(self.finish().map(|()| 0)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Ok(Err(self.explain(&error))),
        };
        self.hasher.update(&buffer[..count]);
        self.total += count as u64;
        if self.total > INFLATED {
            let name = &self.expected.name;
            return Ok(Err(Error::new(format!("{name}: it inflates to more than {INFLATED} bytes"))));
        }
        Ok(Ok(count))
    }
}

impl Read for TarStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.end {
            _ if buffer.is_empty() => return Ok(0),
            End::NotYet => {}
            End::Verified => return Ok(0),
            End::Failed(error) => return Err(error.clone().into()),
        }
        match self.step(buffer)? {
            Ok(0) => {
                self.end = End::Verified;
                Ok(0)
            }
            Ok(count) => Ok(count),
            Err(error) => {
                self.end = End::Failed(error.clone());
                Err(error.into())
            }
        }
    }
}
