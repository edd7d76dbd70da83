//! Tar archives that hold an image: read by offset, never unpacked.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use tar::{EntryType, Header, PaxExtensions};

use super::compression::{Compression, Decoder};
use super::source::Bounds;
use crate::error::{Context, Error, Result};

/// The most entries that an archive may have: `docker save` of 127 layers, the most an image can have, writes
/// about 500 an image.
const ENTRIES: usize = 1 << 16;

/// The largest PAX record or long name that is read.
const RECORD: u64 = 64 << 10;

/// The longest names that are kept. What an image needs has names of at most 100 bytes.
const NAME: usize = 256;

/// The most symbolic links that are followed to a file.
const LINKS: usize = 8;

/// A tar block.
const BLOCK: u64 = 512;

/// A run of bytes in a file: a blob in an archive, or a whole file.
#[derive(Debug, Clone)]
pub struct Extent {
    file: Arc<File>,
    start: u64,
    size: u64,
}

impl Extent {
    /// The whole of a regular file; nothing if there is no file.
    pub fn of_file(path: &Path) -> Result<Option<Self>> {
        // Asked first, because opening a named pipe waits for its writer.
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => {
                return Err(Error::new(format!("`{}` is no file", path.display())));
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).doing(|| format!("read `{}`", path.display())),
        }
        let file = File::open(path).doing(|| format!("open `{}`", path.display()))?;
        let size = file.metadata().doing(|| format!("read `{}`", path.display()))?.len();
        Ok(Some(Self { file: Arc::new(file), start: 0, size }))
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How its first bytes say that it is compressed.
    pub fn compression(&self) -> Result<Compression> {
        let mut start = Vec::new();
        self.reader().take(4).read_to_end(&mut start).doing(|| "read its first bytes")?;
        Ok(Compression::of_magic(&start))
    }

    /// A reader of its bytes. It fails when the file has become shorter.
    pub fn reader(&self) -> ExtentReader {
        ExtentReader { extent: self.clone(), at: 0 }
    }

    /// All of its bytes, if they are at most `limit`; `what` names them.
    pub fn read(&self, limit: u64, what: &str) -> Result<Vec<u8>> {
        if self.size > limit {
            return Err(Error::new(format!("{what} has {} bytes, more than the {limit} allowed", self.size)));
        }
        let mut bytes = Vec::new();
        self.reader().read_to_end(&mut bytes).doing(|| format!("read {what}"))?;
        Ok(bytes)
    }
}

/// Reads an [`Extent`], at a position of its own: several can read one file.
#[derive(Debug)]
pub struct ExtentReader {
    extent: Extent,
    at: u64,
}

impl Read for ExtentReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.extent.size - self.at).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let count = self.extent.file.read_at(&mut buffer[..wanted], self.extent.start + self.at)?;
        if count == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter meanwhile"));
        }
        self.at += count as u64;
        Ok(count)
    }
}

/// What an archive has under a name.
#[derive(Debug)]
enum Entry {
    File {
        start: u64,
        size: u64,
    },
    /// The name of another entry: a hard link, or a symbolic link that was resolved against its folder.
    Link(String),
    /// A link to somewhere outside the archive, or to nowhere.
    Outside,
}

/// A tar archive: where each of its files lies.
#[derive(Debug)]
pub struct Archive {
    file: Arc<File>,
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// Opens an archive and notes where its files lie. A compressed one is inflated into a file of the store
    /// that has no name.
    pub fn open(path: &Path, bounds: Bounds<'_>) -> Result<Self> {
        let within = |error: Error| error.within(format_args!("archive `{}`", path.display()));
        let whole = Extent::of_file(path)?
            .ok_or_else(|| Error::new(format!("cannot open `{}`: there is no such file", path.display())))?;
        let extent = match whole.compression().map_err(within)? {
            Compression::None => whole,
            compression => inflate(&whole, compression, bounds).map_err(within)?,
        };
        scan(extent).map_err(within)
    }

    /// Opens a plain archive that is in memory.
    #[cfg(any(test, fuzzing))]
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut file = tempfile::tempfile().doing(|| "make a temporary file")?;
        file.write_all(bytes).doing(|| "write a temporary file")?;
        scan(Extent { file: Arc::new(file), start: 0, size: bytes.len() as u64 })
    }

    /// The file with this name, whatever links lead there; nothing if there is none.
    pub fn file(&self, name: &str) -> Result<Option<Extent>> {
        let refused = |why: &str| Err(Error::new(format!("`{}` {why}", name.escape_debug())));
        let Some(mut normal) = join("", name) else { return refused("leads out of the archive") };
        for _ in 0..=LINKS {
            match self.entries.get(&normal) {
                None => return Ok(None),
                Some(Entry::File { start, size }) => {
                    return Ok(Some(Extent { file: self.file.clone(), start: *start, size: *size }));
                }
                Some(Entry::Link(target)) => normal.clone_from(target),
                Some(Entry::Outside) => return refused("is a link that leads out of the archive"),
            }
        }
        refused("is a link with too many links behind it")
    }
}

/// `path`, seen from `folder`: without `.`, `..` and empty parts; nothing if it leads out of the archive.
fn join(folder: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn inflate(
    whole: &Extent,
    compression: Compression,
    Bounds { store, limits, .. }: Bounds<'_>,
) -> Result<Extent> {
    let mut file = store.scratch()?;
    let doing = || format!("inflate its {compression} stream");
    let input = BufReader::with_capacity(256 << 10, whole.reader());
    let decoder = Decoder::new(compression, input).doing(doing)?;
    let most = limits.of_archive(whole.size());
    let size = io::copy(&mut decoder.take(most.saturating_add(1)), &mut file).doing(doing)?;
    if size > most {
        limits.check_ratio(whole.size(), size)?;
        return Err(Error::new(format!(
            "it inflates to more than {most} bytes: `layers.max-size`, and 64 MiB for all but layers"
        )));
    }
    file.flush().and_then(|()| file.rewind()).doing(doing)?;
    Ok(Extent { file: Arc::new(file), start: 0, size })
}

/// What the headers before an entry say about it.
#[derive(Default)]
struct Announced {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Announced {
    /// Takes in a PAX record (POSIX.1-2017, `pax`, "pax Extended Header").
    fn pax(&mut self, record: &[u8]) -> Result<()> {
        for extension in PaxExtensions::new(record) {
            let extension = extension.doing(|| "read a PAX record")?;
            let value = extension.value_bytes();
            match extension.key_bytes() {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    self.size = Some(size.ok_or_else(|| Error::new("a PAX record's size is no number"))?);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Reads the headers of a whole file and jumps over the data.
fn scan(whole: Extent) -> Result<Archive> {
    let mut entries = BTreeMap::new();
    let mut announced = Announced::default();
    let (mut at, mut count) = (0, 0);
    while let Some(header) = header(&whole, at)? {
        count += 1;
        if count > ENTRIES {
            return Err(Error::new(format!("it has more than {ENTRIES} entries")));
        }
        let mut size = header.entry_size().doing(|| format!("read the size in the header at byte {at}"))?;
        let start = at + BLOCK;
        let kind = header.entry_type();
        let meta = kind.is_pax_local_extensions() || kind.is_gnu_longname() || kind.is_gnu_longlink();
        if !meta && !kind.is_pax_global_extensions() {
            size = announced.size.take().unwrap_or(size);
        }
        let padded = size.checked_next_multiple_of(BLOCK).and_then(|padded| start.checked_add(padded));
        // The last entry's padding may be missing, its data may not.
        if start.checked_add(size).is_none_or(|end| end > whole.size) {
            return Err(Error::new(format!("it is cut short: the file at byte {at} has {size} bytes")));
        }
        if meta {
            let text = Extent { file: whole.file.clone(), start, size }.read(RECORD, "a long name")?;
            match kind {
                EntryType::GNULongName => announced.name = Some(until_nul(text)),
                EntryType::GNULongLink => announced.link = Some(until_nul(text)),
                _ => announced.pax(&text)?,
            }
        } else if !kind.is_pax_global_extensions() {
            let announced = std::mem::take(&mut announced);
            if let Some((name, entry)) = entry(&header, announced, start, size)? {
                entries.insert(name, entry);
            }
        }
        at = padded.unwrap_or(whole.size);
    }
    Ok(Archive { file: whole.file, entries })
}

/// The header at an offset; nothing at the end mark, or where the archive ends without one.
fn header(whole: &Extent, at: u64) -> Result<Option<Header>> {
    let mut header = Header::new_old();
    if at >= whole.size {
        return Ok(None);
    }
    let damaged = || Error::new(format!("it is no tar archive, or damaged at byte {at}"));
    if whole.size - at < BLOCK {
        return Err(damaged());
    }
    whole.file.read_exact_at(header.as_mut_bytes(), at).doing(|| format!("read the header at byte {at}"))?;
    let bytes = header.as_bytes();
    if bytes.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    // The sum of all bytes, with the eight of the sum itself taken as spaces.
    let sum = |range: &[u8]| range.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    let expected = sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..]);
    if header.cksum().ok() != Some(expected) {
        return Err(damaged());
    }
    Ok(Some(header))
}

/// What an entry means for a reader of images. Whatever no image needs is passed over.
fn entry(header: &Header, announced: Announced, start: u64, size: u64) -> Result<Option<(String, Entry)>> {
    let name = announced.name.unwrap_or_else(|| header.path_bytes().into_owned());
    let Some(name) = String::from_utf8(name).ok().and_then(|name| join("", &name)) else { return Ok(None) };
    let link = announced.link.or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
    if name.len() > NAME {
        return Ok(None);
    }
    let target = |folder: &str| {
        let link = link.filter(|link| link.len() <= NAME).and_then(|link| String::from_utf8(link).ok());
        link.and_then(|link| join(folder, &link)).map_or(Entry::Outside, Entry::Link)
    };
    let entry = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => Entry::File { start, size },
        EntryType::Link => target(""),
        EntryType::Symlink => target(name.rsplit_once('/').map_or("", |(folder, _)| folder)),
        EntryType::GNUSparse => {
            return Err(Error::new(format!("`{}` is a sparse file", name.escape_debug())));
        }
        _ => return Ok(None),
    };
    Ok(Some((name, entry)))
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(text.len()));
    text
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::oci::limits::Limits;
    use crate::store::Store;

    fn opened_within(limits: Limits, bytes: &[u8]) -> Result<Archive> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.tar"), bytes).unwrap();
        let store = Store::at(folder.path()).unwrap();
        let bounds = Bounds { base: folder.path(), store: &store, limits };
        Archive::open(&folder.path().join("a.tar"), bounds)
    }

    fn opened(bytes: &[u8]) -> Result<Archive> {
        opened_within(Limits::default(), bytes)
    }

    fn contents(archive: &Archive, name: &str) -> Result<Option<Vec<u8>>> {
        archive.file(name)?.map(|extent| extent.read(1 << 20, name)).transpose()
    }

    fn sample() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let long = format!("{}/file", "x".repeat(200));
        for (name, data) in [("a/layer.tar", "one"), (long.as_str(), "two"), ("empty", "")] {
            let mut header = Header::new_gnu();
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, name, data.as_bytes()).unwrap();
        }
        for (kind, name, target) in [
            (EntryType::Symlink, "b/layer.tar", "../a/layer.tar"),
            (EntryType::Link, "c/layer.tar", "a/layer.tar"),
            (EntryType::Symlink, "d/layer.tar", "../../etc/passwd"),
            (EntryType::Symlink, "e", "/etc/passwd"),
            (EntryType::Symlink, "f", "f"),
        ] {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            builder.append_link(&mut header, name, target).unwrap();
        }
        builder.append_pax_extensions([("size", &b"4"[..]), ("path", b"pax")]).unwrap();
        let mut header = Header::new_ustar();
        header.set_size(0);
        header.set_cksum();
        builder.get_mut().extend(header.as_bytes());
        builder.get_mut().extend(b"four");
        builder.get_mut().extend([0; 508]);
        builder.into_inner().unwrap()
    }

    #[test]
    fn a_file_is_found_by_its_name_and_through_links_inside_the_archive() {
        let archive = opened(&sample()).unwrap();
        let long = format!("{}/file", "x".repeat(200));
        for (name, data) in [
            ("a/layer.tar", "one"),
            ("./a//layer.tar", "one"),
            (long.as_str(), "two"),
            ("empty", ""),
            ("b/layer.tar", "one"),
            ("c/layer.tar", "one"),
            ("pax", "four"),
        ] {
            assert_eq!(contents(&archive, name).unwrap().unwrap(), data.as_bytes(), "{name}");
        }
        assert_eq!(contents(&archive, "g").unwrap(), None);
    }

    #[test]
    fn no_name_and_no_link_leads_out_of_the_archive() {
        let archive = opened(&sample()).unwrap();
        for name in ["../x", "/etc/passwd", "a/../../x", "d/layer.tar", "e"] {
            let error = contents(&archive, name).unwrap_err().to_string();
            assert!(error.contains("leads out of the archive"), "{name}: {error}");
        }
        assert!(contents(&archive, "f").unwrap_err().to_string().contains("too many links"));
    }

    #[test]
    fn a_compressed_archive_reads_the_same() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&sample()).unwrap();
        let zstd = zstd::stream::encode_all(Cursor::new(sample()), 1).unwrap();
        for bytes in [gzip.finish().unwrap(), zstd] {
            let archive = opened(&bytes).unwrap();
            assert_eq!(contents(&archive, "b/layer.tar").unwrap().unwrap(), b"one");
            let error = opened(&bytes[..bytes.len() - 9]).unwrap_err().to_string();
            assert!(error.contains("cannot inflate its"), "{error}");
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_fills_the_disk() {
        let zeros = zstd::stream::encode_all(io::repeat(0).take(80 << 20), 1).unwrap();
        let refusal = |limits| {
            let refusal = opened_within(limits, &zeros).unwrap_err().to_string();
            refusal.split_once("a.tar`: ").unwrap().1.to_owned()
        };
        let usual = Limits::default();
        assert_eq!(refusal(usual), "it inflates to more than 1000 times its size (`layers.max-ratio`)");
        let patient = Limits { ratio: 1_000_000, ..usual };
        assert!(opened_within(patient, &zeros).is_ok(), "it is an empty archive");
        assert_eq!(
            refusal(Limits { size: 1 << 20, ..patient }),
            "it inflates to more than 68157440 bytes: `layers.max-size`, and 64 MiB for all but layers"
        );
    }

    #[test]
    fn an_archive_that_is_cut_short_or_none_at_all_is_refused() {
        let sample = sample();
        assert!(opened(&sample[..514]).unwrap_err().to_string().contains("it is cut short"));
        assert!(opened(&sample[..1200]).is_err(), "the second header is incomplete");
        assert!(opened(b"not a tar").is_err());
        assert!(opened(&[b'x'; 1024]).unwrap_err().to_string().contains("it is no tar archive"));
        assert!(opened(b"").unwrap().entries.is_empty());
    }

    #[test]
    fn no_archive_makes_its_reader_panic() {
        let mut saved = tar::Builder::new(sample());
        let manifest = br#"[{"Config":"a.json","RepoTags":["a:b"],"Layers":["a/layer.tar","b/layer.tar"]}]"#;
        for (name, data) in [("manifest.json", &manifest[..]), ("a.json", b"{}"), ("index.json", b"{}")] {
            let mut header = Header::new_ustar();
            header.set_size(data.len() as u64);
            saved.append_data(&mut header, name, data).unwrap();
        }
        crate::mutation::feed("image-archive", &[sample(), saved.into_inner().unwrap()]);
    }
}
