//! A tar archive as a stream of entries: ustar, GNU and PAX headers, and ours as they are written.
//!
//! The tar crate gives names to the fields of a header and no more. Its own iteration holds extended headers
//! of any length in memory, takes no time from them, and reads sizes otherwise than the Go programs that
//! write layers.

pub mod header;
mod pax;

use std::io::{self, ErrorKind, Read};
use std::ops::Range;

use pax::Extensions;

use crate::artifact::erofs::{Kind, Metadata};
use crate::error::{Error, Result, shown};

const BLOCK: usize = 512;
const BLOCK_BYTES: u64 = 512;

/// Where POSIX has the start of a long name.
const PREFIX: Range<usize> = 345..500;
/// Where star says that a header is its own, in which that start is shorter.
const STAR_MAGIC: Range<usize> = 508..512;
const STAR_PREFIX: usize = 131;

/// The longest extended header that is taken: an attribute has up to 64 KiB, and few files have more than
/// two.
const EXTENSION_MAX: u64 = 1 << 20;
/// The longest name in a GNU header of its own: the longest path and a NUL byte.
const LONG_NAME_MAX: u64 = 4097;

/// An entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name as it was written.
    pub name: Vec<u8>,
    /// Its owner, mode and so on.
    pub metadata: Metadata,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A file of its own.
    Node(Kind),
    /// One more name for the file of this name.
    HardLink(Vec<u8>),
}

/// An archive that is being read.
#[derive(Debug)]
pub struct Archive<R> {
    /// What it is called in messages.
    what: &'static str,
    input: R,
    /// What is left of the entry's contents.
    contents: u64,
    /// What fills the last block of the contents.
    padding: u64,
    /// The last entry's name, to tell where something went wrong.
    last: Vec<u8>,
}

impl<R: Read> Archive<R> {
    /// Begins to read an archive, which messages call `what`.
    pub fn new(what: &'static str, input: R) -> Self {
        Self { what, input, contents: 0, padding: 0, last: Vec::new() }
    }

    /// The next entry. After the last one the input is read to its end, because only there it can say whether
    /// it was what had been promised.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        match self.advance() {
            Ok(Some(entry)) => {
                self.last.clone_from(&entry.name);
                Ok(Some(entry))
            }
            Ok(None) => Ok(None),
            Err(error) if self.last.is_empty() => Err(error.within(format!("{}'s first entry", self.what))),
            Err(error) => Err(error.within(format!("{}'s entry after `{}`", self.what, shown(&self.last)))),
        }
    }

    /// The contents of the entry that came last. What is not read is skipped.
    pub fn contents(&mut self) -> Contents<'_, R> {
        Contents { archive: self }
    }

    fn advance(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        // The types of the extended headers before the entry.
        let mut extended = Vec::new();
        let mut is_announced = false;
        loop {
            self.skip()?;
            let mut header = tar::Header::new_old();
            if !self.read_block(header.as_mut_bytes())? {
                return if is_announced { Err(truncated()) } else { Ok(None) };
            }
            if header.as_bytes().iter().all(|byte| *byte == 0) {
                if is_announced {
                    return Err(Error::new("an extended header is followed by no entry"));
                }
                self.read_end()?;
                return Ok(None);
            }
            check_sum(&header)?;
            let size = size(&header)?;
            let kind = header.as_old().linkflag[0];
            match kind {
                b'x' => extensions.parse(&self.payload(size, EXTENSION_MAX)?)?,
                b'g' => pax::check_global(&self.payload(size, EXTENSION_MAX)?)?,
                b'L' => extensions.path = Some(long_name(self.payload(size, LONG_NAME_MAX)?)?),
                b'K' => extensions.link = Some(long_name(self.payload(size, LONG_NAME_MAX)?)?),
                _ => return self.entry(&header, extensions, size).map(Some),
            }
            // The last one counts for Go and GNU tar, the first one for Python; nobody writes two.
            if extended.contains(&kind) || (kind == b'x' && !extended.is_empty()) || extended.contains(&b'x')
            {
                return Err(Error::new("an entry has two extended headers"));
            }
            is_announced = true;
            if kind != b'g' {
                extended.push(kind);
            }
        }
    }

    fn entry(&mut self, header: &tar::Header, extensions: Extensions, size: u64) -> Result<Entry> {
        let name = match &extensions.path {
            Some(path) => path.clone(),
            None => name_of(header)?,
        };
        if name.is_empty() {
            return Err(Error::new("an entry has no name"));
        }
        let described = describe(header, &name, &extensions, size);
        let (kind, size) = described.map_err(|error| error.within(format!("`{}`", shown(&name))))?;
        self.expect(size);
        let metadata =
            metadata(header, extensions).map_err(|error| error.within(format!("`{}`", shown(&name))))?;
        Ok(Entry { name, metadata, kind })
    }

    fn expect(&mut self, size: u64) {
        self.contents = size;
        self.padding = (BLOCK_BYTES - size % BLOCK_BYTES) % BLOCK_BYTES;
    }

    fn payload(&mut self, size: u64, limit: u64) -> Result<Vec<u8>> {
        if size > limit {
            return Err(Error::new(format!("an extended header has {size} bytes, more than {limit}")));
        }
        self.expect(size);
        let mut payload = Vec::new();
        self.contents().read_to_end(&mut payload).map_err(reading)?;
        Ok(payload)
    }

    /// Passes over what is left of the last entry.
    fn skip(&mut self) -> Result<()> {
        self.contents += std::mem::take(&mut self.padding);
        io::copy(&mut self.contents(), &mut io::sink()).map(|_| ()).map_err(reading)
    }

    /// Fills a block; false if the input ended before it.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(truncated()),
                Ok(length) => filled += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(reading(error)),
            }
        }
        Ok(true)
    }

    /// Reads what follows the first of the two blocks of zeros that end an archive. What stands behind them
    /// is no part of it, but the input has to be read: it verifies its digest over all bytes.
    fn read_end(&mut self) -> Result<()> {
        let mut block = [0; BLOCK];
        if self.read_block(&mut block)? && block != [0; BLOCK] {
            return Err(Error::new("a single block of zeros stands between entries"));
        }
        io::copy(&mut self.input, &mut io::sink()).map(|_| ()).map_err(reading)
    }
}

/// The contents of an entry.
#[derive(Debug)]
pub struct Contents<'a, R> {
    archive: &'a mut Archive<R>,
}

impl<R: Read> Read for Contents<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.archive.contents;
        let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if length == 0 {
            return Ok(0);
        }
        let read = self.archive.input.read(&mut buffer[..length])?;
        if read == 0 {
            return Err(truncated().into());
        }
        self.archive.contents -= read as u64;
        Ok(read)
    }
}

/// The name in a header without an extended one before it.
fn name_of(header: &tar::Header) -> Result<Vec<u8>> {
    let bytes = header.as_bytes();
    let prefix = until_nul(bytes[PREFIX].to_vec());
    let is_star = bytes[STAR_MAGIC] == *b"tar\0";
    // Python takes these bytes for the start of the name in every format, star has two times behind them.
    if header.as_ustar().is_none() && !prefix.is_empty() || is_star && prefix.len() >= STAR_PREFIX {
        return Err(Error::new("its header has a prefix that only some readers take for a part of its name"));
    }
    let name = until_nul(header.as_old().name.to_vec());
    Ok(if prefix.is_empty() { name } else { [prefix, name].join(&b'/') })
}

/// What an entry is, and the length of the contents that follow its header.
fn describe(
    header: &tar::Header,
    name: &[u8],
    extensions: &Extensions,
    size: u64,
) -> Result<(EntryKind, u64)> {
    let size = extensions.size.map_or(Ok(size), bounded)?;
    let link = || {
        let link = extensions.link.clone();
        let link = link.unwrap_or_else(|| until_nul(header.as_old().linkname.to_vec()));
        if link.is_empty() { Err(Error::new("it is a link without a target")) } else { Ok(link) }
    };
    let flag = header.as_old().linkflag[0];
    // Before POSIX, a folder was told by the slash at the end of its name. Some readers look for it in the
    // header, some in the extended one, and some in names of files by their type.
    let is_slashed = |name: &[u8]| name.ends_with(b"/");
    let in_header = is_slashed(&until_nul(header.as_old().name.to_vec()));
    let kind = match flag {
        b'\0' if is_slashed(name) && in_header => Kind::Directory,
        b'\0' if in_header => return Err(ambiguous()),
        b'\0' | b'0' | b'7' if is_slashed(name) => return Err(ambiguous()),
        b'\0' | b'0' | b'7' => return Ok((EntryKind::Node(Kind::File { size }), size)),
        // Old archives say the size of the file that it is a name of, and no reader looks for contents there. What an
        // extended header says is another matter.
        b'1' => {
            without_contents(extensions.size.unwrap_or(0))?;
            return Ok((EntryKind::HardLink(link()?), 0));
        }
        b'2' => Kind::Symlink(link()?),
        b'3' => device(header).map(|(major, minor)| Kind::CharDevice { major, minor })?,
        b'4' => device(header).map(|(major, minor)| Kind::BlockDevice { major, minor })?,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        b'S' => return Err(Error::new("it is a sparse file, which layers cannot contain")),
        other => {
            let shown = other.escape_ascii();
            return Err(Error::new(format!("its type `{shown}` is none that layers can contain")));
        }
    };
    Ok((EntryKind::Node(kind), without_contents(size)?))
}

fn ambiguous() -> Error {
    Error::new("it is a file whose name ends like a folder's")
}

/// The size of what is no file: Go reads no contents whatever it says, GNU tar passes over so many bytes.
fn without_contents(size: u64) -> Result<u64> {
    match size {
        0 => Ok(0),
        _ => Err(Error::new(format!("it is no file, and yet its header says that it has {size} bytes"))),
    }
}

fn metadata(header: &tar::Header, extensions: Extensions) -> Result<Metadata> {
    let old = header.as_old();
    // What an extended header replaces has to be a number all the same: most readers look at it first.
    let numbers = [&old.mode[..], &old.uid, &old.gid, &old.mtime].map(number);
    let [Some(mode), uid, gid, mtime] = numbers else {
        return Err(Error::new("its mode is not a number"));
    };
    let id = |field: Option<i64>, extension: Option<u64>, what: &str| {
        let value = field.and_then(|value| extension.or(u64::try_from(value).ok()));
        let fits = value.and_then(|value| u32::try_from(value).ok());
        // The last one means nobody: chown(2) leaves the owner as it is.
        let fits = fits.filter(|id| *id != u32::MAX);
        fits.ok_or_else(|| Error::new(format!("its {what} id is not a number from 0 to 4294967294")))
    };
    let mtime = mtime.ok_or_else(|| Error::new("its time is not a number of 64 bits"))?;
    let (mtime, mtime_nsec) = extensions.mtime.unwrap_or((mtime, 0));
    Ok(Metadata {
        // The mask leaves 12 bits.
        mode: u16::try_from(mode & 0o7777).unwrap_or(0),
        uid: id(uid, extensions.uid, "user")?,
        gid: id(gid, extensions.gid, "group")?,
        mtime,
        mtime_nsec,
        xattrs: extensions.xattrs,
    })
}

fn device(header: &tar::Header) -> Result<(u32, u32)> {
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (ustar.dev_major, ustar.dev_minor),
        (_, Some(gnu)) => (gnu.dev_major, gnu.dev_minor),
        _ => return Err(Error::new("it is a device, but its header has no place for a device number")),
    };
    let part = |field: [u8; 8]| number(&field).and_then(|value| u32::try_from(value).ok());
    part(major).zip(part(minor)).ok_or_else(|| Error::new("its device number is not a number"))
}

fn size(header: &tar::Header) -> Result<u64> {
    let size = number(&header.as_old().size).and_then(|size| u64::try_from(size).ok());
    bounded(size.unwrap_or(u64::MAX))
}

/// A size whose sum with its padding fits 64 bits. No disk has room for more.
fn bounded(size: u64) -> Result<u64> {
    if size < 1 << 62 {
        return Ok(size);
    }
    Err(Error::new("its size is not a number, negative or absurdly large"))
}

/// A number as octal digits between spaces and NUL bytes, or, if its highest bit is set, in two's complement.
fn number(field: &[u8]) -> Option<i64> {
    if let Some((first, rest)) = field.split_first().filter(|(first, _)| **first & 0x80 != 0) {
        let sign = if first & 0x40 == 0 { 0 } else { -1 << 7 };
        let start = i128::from(first & 0x7f) | sign;
        // Twelve bytes at most: it fits 128 bits.
        let value = rest.iter().fold(start, |value, byte| value << 8 | i128::from(*byte));
        return i64::try_from(value).ok();
    }
    let text = str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    if text.is_empty() {
        return Some(0);
    }
    let octal = text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    octal.then(|| i64::from_str_radix(text, 8).ok()).flatten()
}

/// The sum of all bytes, with the sum's own field taken as spaces. Some old programs added them up as signed.
fn check_sum(header: &tar::Header) -> Result<()> {
    let bytes = header.as_bytes().iter().enumerate();
    let bytes = bytes.map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
    let (unsigned, signed) = bytes.fold((0, 0), |(unsigned, signed), byte| {
        (unsigned + i64::from(byte), signed + i64::from(byte.cast_signed()))
    });
    match number(&header.as_old().cksum) {
        Some(sum) if sum == unsigned || sum == signed => Ok(()),
        _ => Err(Error::new("the checksum of its header is wrong: this is no tar archive, or it is damaged")),
    }
}

fn long_name(payload: Vec<u8>) -> Result<Vec<u8>> {
    let name = until_nul(payload);
    if name.is_empty() { Err(Error::new("an extended header says an empty name")) } else { Ok(name) }
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|byte| *byte == 0) {
        name.truncate(end);
    }
    name
}

fn truncated() -> Error {
    Error::new("the archive is truncated")
}

fn reading(error: io::Error) -> Error {
    Error::new(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_twos_complement() {
        for (field, expected) in [
            (b"0000644\0".as_slice(), Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"0000648\0", None),
            (b"-1\0\0\0\0\0\0", None),
            (b"12\0 34\0\0", None),
            (b"\x80\0\0\0\0\0\0\0\0\x01\0\0", Some(65_536)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field), expected, "{field:?}");
        }
    }
}
