//! How a layer or an archive is compressed, and the decoders.

use std::fmt;
use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

/// The compressions that the OCI specification knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Plain bytes.
    None,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames.
    Zstd,
}

/// The first bytes of a compressed stream.
const MAGIC: [(&[u8], Compression); 2] =
    [(&[0x1f, 0x8b, 8], Compression::Gzip), (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd)];

impl Compression {
    /// What the first bytes of a stream say. No tar archive begins like a compressed stream: it would begin
    /// with the name of its first file.
    pub fn of_magic(start: &[u8]) -> Self {
        MAGIC.iter().find(|(magic, _)| start.starts_with(magic)).map_or(Self::None, |&(_, found)| found)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// Decompresses what `R` gives. At its end, `R` may still hold bytes that belong to no member or frame.
pub enum Decoder<R: BufRead> {
    /// Passes the bytes on.
    Plain(R),
    /// Inflates.
    Gzip(Box<MultiGzDecoder<R>>),
    /// Decodes frames whose window is at most 128 MiB, libzstd's own limit.
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
}

impl<R: BufRead> Decoder<R> {
    /// A decoder of `input`.
    pub fn new(compression: Compression, input: R) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::Plain(input),
            Compression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(input))),
            Compression::Zstd => Self::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(input)?)),
        })
    }

    /// What it decodes.
    pub fn input(&mut self) -> &mut R {
        match self {
            Self::Plain(input) => input,
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}
