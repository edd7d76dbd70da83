//! Archives in cpio's `newc` format, which the kernel unpacks as its initramfs
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! The cpio crate reads archives in the tests only. Its writer takes 32 bits for a length without a look,
//! names are text there that cannot be padded to a length, and it stands between `io::copy` and the file
//! descriptor; a header is 13 numbers.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use crate::error::{Context as _, Error, Result};

/// File data starts at multiples of this, so that it can be shared with its source instead of copied.
const PAGE: u64 = 4096;
/// The length of a header without the name.
const HEADER_LEN: u64 = 110;
/// What the kernel takes as a name, its NUL bytes included (`PATH_MAX`). Entries with longer ones are
/// skipped.
const NAME_MAX: u64 = 4096;
/// The name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";
/// The mode of folders that are made because something is in them.
const FOLDER_MODE: u32 = 0o755;

/// The part of a mode that tells the file type.
const TYPE_MASK: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// Whose an entry is, and who may do what with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The lowest 12 bits of the mode.
    pub permissions: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Access {
    /// Owned by root.
    pub const fn root(permissions: u32) -> Self {
        Self { permissions, uid: 0, gid: 0 }
    }
}

/// Writes one archive. Paths are relative to the archive's root; everything is from 1970; folders that were not
/// added are, as root's with mode 0755, before the first thing in them.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    position: u64,
    /// What was added, as what.
    added: BTreeMap<String, Header>,
    /// The number of files so far, which is the last one's number.
    inodes: u32,
}

/// What differs between headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Header {
    inode: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    length: u32,
    major: u32,
    minor: u32,
}

impl Header {
    fn of(kind: u32, access: Access) -> Self {
        let Access { permissions, uid, gid } = access;
        Self { mode: kind | permissions, uid, gid, links: 1, ..Self::default() }
    }
}

impl<W: Write> Writer<W> {
    /// Begins an archive at the start of `out`.
    pub fn new(out: W) -> Self {
        Self { out, position: 0, added: BTreeMap::new(), inodes: 0 }
    }

    /// Adds a folder. It may be there already, with the same access.
    pub fn directory(&mut self, path: &str, access: Access) -> Result<()> {
        let header = Header { links: 2, ..Header::of(DIRECTORY, access) };
        let path = normal(path)?;
        if self.added.get(&path) == Some(&header) {
            return Ok(());
        }
        self.enter(&path, header)?;
        self.empty(&path, header)
    }

    /// Adds a regular file with all of `data`, which has to be `length` bytes.
    pub fn file(&mut self, path: &str, access: Access, length: u64, data: impl Read) -> Result<()> {
        self.linked_file(&[path], access, length, data)
    }

    /// Adds a regular file that has several names.
    pub fn linked_file(
        &mut self,
        paths: &[&str],
        access: Access,
        length: u64,
        mut data: impl Read,
    ) -> Result<()> {
        let paths = paths.iter().map(|path| normal(path)).collect::<Result<Vec<_>>>()?;
        let Some((path, others)) = paths.split_last() else { return Ok(()) };
        let header = Header::of(REGULAR, access);
        for path in &paths {
            self.enter(path, header)?;
        }
        let adding = || format!("add `{path}` to the archive");
        let too_long = |_| {
            Error::new(format!(
                "cannot {}: it has {length} bytes, and cpio can hold less than 4 GiB",
                adding()
            ))
        };
        let length = u32::try_from(length).map_err(too_long)?;
        let links = u32::try_from(paths.len()).doing(adding)?;
        let header = Header { inode: self.number()?, links, ..header };
        // The last name carries the data: GNU cpio waits for it, and the kernel takes either.
        for other in others {
            self.header(other, self.name_length(other), header)?;
        }
        let name_length = if u64::from(length) < PAGE { self.name_length(path) } else { self.aligning(path) };
        self.header(path, name_length, Header { length, ..header })?;
        let copied = io::copy(&mut (&mut data).take(length.into()), &mut self.out).doing(adding)?;
        let more = data.read(&mut [0]).doing(adding)?;
        if copied != u64::from(length) || more != 0 {
            let found = if more == 0 { format!("only {copied}") } else { "more".to_owned() };
            return Err(Error::new(format!(
                "cannot {}: it should have {length} bytes, but there are {found}",
                adding()
            )));
        }
        self.position += copied;
        self.pad()
    }

    /// Adds a character device: the number of its driver, and its own among the driver's.
    pub fn character_device(&mut self, path: &str, access: Access, (major, minor): (u32, u32)) -> Result<()> {
        let path = normal(path)?;
        let header = Header { major, minor, ..Header::of(CHARACTER_DEVICE, access) };
        self.enter(&path, header)?;
        self.empty(&path, header)
    }

    /// Ends the archive and gives the output back.
    pub fn finish(mut self) -> Result<W> {
        self.header(TRAILER, self.name_length(TRAILER), Header { links: 1, ..Header::default() })?;
        self.out.flush().doing(|| "write the archive")?;
        Ok(self.out)
    }

    /// Notes a path, and adds the folders above it.
    fn enter(&mut self, path: &str, header: Header) -> Result<()> {
        let adding = || format!("cannot add `{path}` to the archive");
        for (slash, _) in path.match_indices('/') {
            let folder = &path[..slash];
            match self.added.get(folder) {
                None => self.directory(folder, Access::root(FOLDER_MODE))?,
                Some(header) if header.mode & TYPE_MASK == DIRECTORY => {}
                Some(_) => return Err(Error::new(format!("{}: `{folder}` is not a folder", adding()))),
            }
        }
        match self.added.insert(path.to_owned(), header) {
            None => Ok(()),
            Some(_) => Err(Error::new(format!("{}: it was added before", adding()))),
        }
    }

    /// Adds a file of its own whose data, if any, is written next.
    fn empty(&mut self, path: &str, header: Header) -> Result<()> {
        let inode = self.number()?;
        self.header(path, self.name_length(path), Header { inode, ..header })
    }

    fn number(&mut self) -> Result<u32> {
        let next = self.inodes.checked_add(1);
        self.inodes = next.ok_or_else(|| Error::new("cannot number more than 4 billion files"))?;
        Ok(self.inodes)
    }

    /// The length of a name with one NUL byte.
    fn name_length(&self, name: &str) -> u64 {
        name.len() as u64 + 1
    }

    /// The length of a name with so many NUL bytes that data starts at a page. Where that is longer than the
    /// kernel takes, one in some dozens of files, the data stays where it falls: that costs a copy and
    /// nothing else.
    fn aligning(&self, name: &str) -> u64 {
        let shortest = self.name_length(name);
        let start = self.position + HEADER_LEN;
        let padded = (start + shortest).next_multiple_of(PAGE) - start;
        if padded <= NAME_MAX { padded } else { shortest }
    }

    fn header(&mut self, name: &str, name_length: u64, header: Header) -> Result<()> {
        let Header { inode, mode, uid, gid, links, length, major, minor } = header;
        // Everything is from 1970, on device 0:0; the last field is a checksum in other formats.
        write!(
            self.out,
            "070701{inode:08X}{mode:08X}{uid:08X}{gid:08X}{links:08X}{:08X}{length:08X}{:08X}{:08X}\
             {major:08X}{minor:08X}{name_length:08X}{:08X}",
            0, 0, 0, 0
        )
        .doing(|| "write the archive")?;
        self.position += HEADER_LEN;
        self.write(name.as_bytes())?;
        self.write_zeros(name_length - name.len() as u64)?;
        self.pad()
    }

    fn pad(&mut self) -> Result<()> {
        self.write_zeros(self.position.next_multiple_of(4) - self.position)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).doing(|| "write the archive")?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn write_zeros(&mut self, mut count: u64) -> Result<()> {
        const ZEROS: [u8; 512] = [0; 512];
        while count > 0 {
            let part = usize::try_from(count).map_or(ZEROS.len(), |count| count.min(ZEROS.len()));
            self.write(&ZEROS[..part])?;
            count -= part as u64;
        }
        Ok(())
    }
}

/// A path as it is written: without slashes at its ends, and never one that the kernel would take for
/// another.
fn normal(path: &str) -> Result<String> {
    let names: Vec<_> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    let normal = names.join("/");
    let wrong = names.is_empty()
        || names.contains(&"..")
        || normal.contains('\0')
        || normal.len() as u64 >= NAME_MAX
        || normal == TRAILER;
    if wrong {
        let shown = path.escape_debug();
        return Err(Error::new(format!("cannot add `{shown}` to the archive: that is no path of a file")));
    }
    Ok(normal)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek as _, SeekFrom};
    use std::process::Command;

    use super::*;

    fn example() -> Vec<u8> {
        let mut archive = Writer::new(Vec::new());
        archive.directory("proc", Access::root(0o555)).unwrap();
        archive.file("/init", Access::root(0o755), 5000, vec![1; 5000].as_slice()).unwrap();
        let web = Access { permissions: 0o644, uid: 33, gid: 34 };
        archive.file("etc/deep/small", web, 3, b"abc".as_slice()).unwrap();
        archive.directory("etc/deep/", Access::root(0o755)).unwrap();
        archive
            .linked_file(&["one", "etc/two"], Access::root(0o600), 8192, vec![2; 8192].as_slice())
            .unwrap();
        archive.character_device("dev/console", Access::root(0o600), (5, 1)).unwrap();
        archive.finish().unwrap()
    }

    #[test]
    fn another_reader_finds_every_entry_once_and_data_at_pages() {
        let bytes = example();
        let mut rest = io::Cursor::new(bytes.as_slice());
        let mut found = Vec::new();
        loop {
            let mut reader = cpio::NewcReader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let (name, size) = (reader.entry().name().to_owned(), reader.entry().file_size());
            if size >= 4096 {
                assert_eq!(reader.offset().unwrap() % PAGE, 0, "{name}");
            }
            let (mode, uid, gid) = (reader.entry().mode(), reader.entry().uid(), reader.entry().gid());
            found.push(format!("{name} {mode:o} {uid}:{gid} {size}"));
            rest = reader.finish().unwrap();
        }
        let expected = [
            "proc 40555 0:0 0",
            "init 100755 0:0 5000",
            "etc 40755 0:0 0",
            "etc/deep 40755 0:0 0",
            "etc/deep/small 100644 33:34 3",
            "one 100600 0:0 0",
            "etc/two 100600 0:0 8192",
            "dev 40755 0:0 0",
            "dev/console 20600 0:0 0",
        ];
        assert_eq!(found, expected);
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn gnu_cpio_extracts_the_files_with_their_data_and_links() {
        let folder = tempfile::tempdir().unwrap();
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(&example()).unwrap();
        input.seek(SeekFrom::Start(0)).unwrap();
        let arguments = ["-idm", "--quiet", "--no-absolute-filenames", "init", "one", "etc/*", "etc"];
        let run = Command::new("cpio").args(arguments).current_dir(&folder).stdin(input).output();
        let Ok(output) = run else { return eprintln!("skipped: `cpio` is not installed") };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let read = |path: &str| std::fs::read(folder.path().join(path)).unwrap();
        assert_eq!(read("init"), [1; 5000]);
        assert_eq!(read("etc/deep/small"), b"abc");
        assert_eq!(read("one"), [2; 8192]);
        assert_eq!(read("etc/two"), [2; 8192]);
    }

    #[test]
    fn a_file_is_copied_to_a_file_by_the_kernel_and_arrives_whole() {
        let folder = tempfile::tempdir().unwrap();
        let data: Vec<u8> = (0..300_000u32).map(|at| at.to_le_bytes()[1]).collect();
        std::fs::write(folder.path().join("data"), &data).unwrap();
        let out = File::create(folder.path().join("archive")).unwrap();
        let mut archive = Writer::new(io::BufWriter::new(out));
        archive
            .file("layer", Access::root(0o444), 300_000, File::open(folder.path().join("data")).unwrap())
            .unwrap();
        archive.file("after", Access::root(0o644), 5, b"after".as_slice()).unwrap();
        archive.finish().unwrap();
        let bytes = std::fs::read(folder.path().join("archive")).unwrap();
        assert_eq!(bytes[4096..304_096], data);
        let archive = File::open(folder.path().join("archive")).unwrap();
        let run = Command::new("cpio").arg("-itv").stdin(archive).output();
        let Ok(output) = run else { return eprintln!("skipped: `cpio` is not installed") };
        assert!(String::from_utf8(output.stdout).unwrap().contains(" after\n"));
    }

    #[test]
    fn a_length_that_is_not_the_datas_is_an_error_and_so_is_one_that_newc_cannot_hold() {
        let refusal = |length, data: &[u8]| {
            let mut archive = Writer::new(io::sink());
            archive.file("f", Access::root(0o644), length, data).unwrap_err().to_string()
        };
        assert_eq!(
            refusal(4, b"abc"),
            "cannot add `f` to the archive: it should have 4 bytes, but there are only 3"
        );
        assert_eq!(
            refusal(2, b"abc"),
            "cannot add `f` to the archive: it should have 2 bytes, but there are more"
        );
        assert_eq!(
            refusal(1 << 32, b""),
            "cannot add `f` to the archive: it has 4294967296 bytes, and cpio can hold less than 4 GiB"
        );
    }

    #[test]
    fn wrong_paths_are_refused() {
        for path in ["", "/", "..", "a/../b", "a\0", "TRAILER!!!", &"x/".repeat(2100)] {
            assert!(Writer::new(io::sink()).directory(path, Access::root(0o755)).is_err(), "{path:?}");
        }
        let mut archive = Writer::new(io::sink());
        archive.file("a", Access::root(0o644), 0, io::empty()).unwrap();
        let refusal = archive.directory("a/b", Access::root(0o755)).unwrap_err().to_string();
        assert_eq!(refusal, "cannot add `a/b` to the archive: `a` is not a folder");
        assert!(
            archive
                .directory("a", Access::root(0o755))
                .unwrap_err()
                .to_string()
                .ends_with("it was added before")
        );
    }
}
