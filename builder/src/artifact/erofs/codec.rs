//! The codecs: how much of a file fits into a cluster, and what a cluster stands for.

use std::io;

use zstd::bulk;
use zstd::zstd_safe::{CParameter, compress_bound};

use super::cluster::Compression;
use super::format::{Codec, window_log};

/// A cluster of zstd is full enough when fewer bytes than this are unused: one of sixty-four, at the usual size.
const CLOSE: usize = 512;

/// How often it is tried to fill a cluster of zstd. The second guess is nearly always close.
const TRIES: usize = 4;

/// About the memory that an [`Encoder`] takes. LZ4 keeps two tables for its window of 64 KiB, zstd up to twenty
/// bytes for each byte of its window: measured at level 9.
pub fn table_size(Compression { codec, cluster, .. }: Compression) -> usize {
    match codec {
        Codec::Lz4 => 256 << 10,
        Codec::Zstd => 20 << window_log(cluster),
    }
}

/// What compresses on one thread.
pub enum Encoder {
    /// The level.
    Lz4(i32),
    /// Far larger than the other.
    Zstd(Box<Zstd>),
}

/// A context of zstd, which can only be asked what some input becomes, not what fits.
pub struct Zstd {
    compressor: bulk::Compressor<'static>,
    /// The most input that a cluster stands for, so that Linux needs no more memory to inflate it.
    window: usize,
    /// Room for a window that does not get smaller.
    output: Vec<u8>,
    /// What a cluster is guessed to take in: the last one's length, and what it became.
    last: (usize, usize),
}

impl Encoder {
    /// Fails where memory does.
    pub fn new(compression: Compression) -> io::Result<Self> {
        Ok(match compression.codec {
            Codec::Lz4 => Self::Lz4(compression.level),
            Codec::Zstd => Self::Zstd(Box::new(Zstd::new(compression)?)),
        })
    }

    /// Forgets what was compressed before: results depend on the input alone.
    pub fn begin(&mut self) {
        if let Self::Zstd(zstd) = self {
            zstd.last = Zstd::USUAL;
        }
    }

    /// Compresses as much of `input` as fits into `room`. Returns how much that is, and how long it became; all zero
    /// if nothing fits.
    pub fn fill(&mut self, input: &[u8], room: &mut [u8]) -> (usize, usize) {
        match self {
            // The one error of this function is an input of more than 2 GiB.
            Self::Lz4(level) => lzzzz::lz4_hc::compress_fill(input, room, *level).unwrap_or((0, 0)),
            Self::Zstd(zstd) => zstd.fill(input, room),
        }
    }
}

impl Zstd {
    /// Programs and libraries become about a third.
    const USUAL: (usize, usize) = (3, 1);

    fn new(Compression { level, cluster, .. }: Compression) -> io::Result<Self> {
        let log = window_log(cluster);
        let window = 1 << log;
        let mut compressor = bulk::Compressor::new(level)?;
        compressor.set_parameter(CParameter::WindowLog(log))?;
        Ok(Self { compressor, window, output: vec![0; compress_bound(window)], last: Self::USUAL })
    }

    fn fill(&mut self, input: &[u8], room: &mut [u8]) -> (usize, usize) {
        let most = input.len().min(self.window);
        let goal = room.len() - CLOSE.min(room.len()) / 2;
        let guess = |(length, became): (usize, usize)| (goal * length / became).clamp(1, most);
        let mut best = (0, 0);
        let mut next = guess(self.last);
        for _ in 0..TRIES {
            let Ok(stored) = self.compressor.compress_to_buffer(&input[..next], &mut self.output[..]) else {
                break;
            };
            if stored <= room.len() && next > best.0 {
                best = (next, stored);
                room[..stored].copy_from_slice(&self.output[..stored]);
                if next == most || room.len() - stored < CLOSE {
                    break;
                }
            }
            self.last = (next, stored);
            next = guess(self.last);
            if next <= best.0 {
                break;
            }
        }
        best
    }
}

/// The `length` bytes that a cluster stands for, if it stands for so many.
pub fn inflate(codec: Codec, stored: &[u8], length: usize) -> Option<Vec<u8>> {
    let padding = stored.iter().position(|byte| *byte != 0)?;
    let stored = &stored[padding..];
    let mut bytes = vec![0; length];
    let inflated = match codec {
        Codec::Lz4 => lzzzz::lz4::decompress(stored, &mut bytes).ok()?,
        Codec::Zstd => bulk::decompress_to_buffer(stored, &mut bytes[..]).ok()?,
    };
    (inflated == length).then_some(bytes)
}
