//! A folder as the one layer of an image: a tar stream that depends on the folder's content and nothing else.
//!
//! Entries are sorted by name, belong to user and group 0 and have one time, `SOURCE_DATE_EPOCH` or 1970. Modes,
//! symbolic links, hard links, device nodes and named pipes are kept; sockets, which only their listener can make,
//! and extended attributes are not. The folder itself has no entry: how it is made is no part of the image.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Cursor, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::descriptor::Digest;
use crate::error::{Context, Error, Result};

/// The variable by which reproducible builds set the time of what they make.
const VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// A tar block.
const BLOCK: usize = 512;

/// The digest of a folder's tar stream.
pub fn diff_id(folder: &Path) -> Result<Digest> {
    let mut stream = FolderStream::open(folder)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 256 << 10];
    loop {
        match stream.read(&mut chunk).doing(|| format!("read the folder `{}`", folder.display()))? {
            0 => return Ok(Digest::from_hasher(hasher)),
            count => hasher.update(&chunk[..count]),
        }
    }
}

/// The time of every entry, in seconds since 1970.
pub fn source_date_epoch() -> Result<u64> {
    match std::env::var_os(VARIABLE) {
        None => Ok(0),
        Some(text) => text
            .to_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Error::new(format!("`{VARIABLE}` is no number of seconds: `{}`", text.display()))),
    }
}

/// The names in a folder, sorted, the last one first: in the order in which a stack wants them.
pub fn names(folder: &Path) -> Result<Vec<OsString>> {
    let doing = || format!("read the folder `{}`", folder.display());
    let entries = fs::read_dir(folder).doing(doing)?.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = entries.collect::<io::Result<Vec<_>>>().doing(doing)?;
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

/// The tar stream of a folder. Every file is opened when its turn comes.
pub struct FolderStream {
    folder: PathBuf,
    /// What is still to come, the next one last.
    todo: Vec<PathBuf>,
    mtime: u64,
    /// Where the first of several hard links stands, by device and inode.
    first_links: BTreeMap<(u64, u64), PathBuf>,
    /// Headers, padding or the end mark.
    ready: Cursor<Vec<u8>>,
    data: Option<Data>,
    is_ended: bool,
}

/// The file whose content is being read.
struct Data {
    path: PathBuf,
    file: File,
    left: u64,
    padding: usize,
}

impl FolderStream {
    /// Begins to read a folder.
    pub fn open(folder: &Path) -> Result<Self> {
        let metadata = fs::metadata(folder).doing(|| format!("open the folder `{}`", folder.display()))?;
        if !metadata.is_dir() {
            return Err(Error::new(format!("`{}` is no folder", folder.display())));
        }
        let mut stream = Self {
            folder: folder.to_owned(),
            todo: Vec::new(),
            mtime: source_date_epoch()?,
            first_links: BTreeMap::new(),
            ready: Cursor::default(),
            data: None,
            is_ended: false,
        };
        stream.enter(Path::new(""))?;
        Ok(stream)
    }

    fn enter(&mut self, path: &Path) -> Result<()> {
        let folder = self.folder.join(path);
        let doing = || format!("read the folder `{}`", folder.display());
        let entries = fs::read_dir(&folder).doing(doing)?;
        let mut names: Vec<OsString> = entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<_>>()
            .doing(doing)?;
        names.sort_unstable_by(|a, b| b.cmp(a));
        self.todo.extend(names.into_iter().map(|name| path.join(name)));
        Ok(())
    }

    /// Puts the header of an entry into `ready`, and its content, if it has one, into `data`.
    fn begin(&mut self, path: PathBuf) -> Result<()> {
        let full = self.folder.join(&path);
        let doing = || format!("read `{}`", full.display());
        let metadata = fs::symlink_metadata(&full).doing(doing)?;
        let kind = metadata.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        let mut header = header(&metadata, self.mtime);
        let mut builder = Builder::new(Vec::new());
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            builder.append_data(&mut header, path.join(""), io::empty()).doing(doing)?;
            self.enter(&path)?;
        } else if let Some(first) = self.first_links.get(&(metadata.dev(), metadata.ino())) {
            header.set_entry_type(EntryType::Link);
            builder.append_link(&mut header, &path, first).doing(doing)?;
        } else {
            if metadata.nlink() > 1 {
                self.first_links.insert((metadata.dev(), metadata.ino()), path.clone());
            }
            if kind.is_symlink() {
                header.set_entry_type(EntryType::Symlink);
                let target = fs::read_link(&full).doing(doing)?;
                builder.append_link(&mut header, &path, target).doing(doing)?;
            } else if kind.is_file() {
                let data = open(&full, &metadata)?;
                header.set_size(data.left);
                builder.append_data(&mut header, &path, io::empty()).doing(doing)?;
                self.data = Some(data);
            } else {
                header.set_entry_type(match (kind.is_fifo(), kind.is_char_device()) {
                    (true, _) => EntryType::Fifo,
                    (false, true) => EntryType::Char,
                    (false, false) => EntryType::Block,
                });
                header.set_device_major(rustix::fs::major(metadata.rdev())).doing(doing)?;
                header.set_device_minor(rustix::fs::minor(metadata.rdev())).doing(doing)?;
                builder.append_data(&mut header, &path, io::empty()).doing(doing)?;
            }
        }
        // The builder's own end mark is not wanted between entries, so it is not finished: its bytes are taken.
        self.ready = Cursor::new(std::mem::take(builder.get_mut()));
        Ok(())
    }
}

fn header(metadata: &Metadata, mtime: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(mtime);
    header.set_size(0);
    header
}

fn open(path: &Path, metadata: &Metadata) -> Result<Data> {
    // What was a file a moment ago is not followed if it is a link now, nor waited for if it is a pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty()).doing(|| format!("open `{}`", path.display()))?;
    let size = metadata.len();
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    Ok(Data { path: path.to_owned(), file: file.into(), left: size, padding: (BLOCK - over) % BLOCK })
}

impl Data {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read(&mut buffer[..wanted])?;
        if count == 0 && wanted > 0 {
            let path = self.path.display();
            return Err(Error::new(format!("`{path}` became shorter while it was read")).into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

impl Read for FolderStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let count = self.ready.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            if let Some(data) = &mut self.data {
                if data.left > 0 {
                    return data.read(buffer);
                }
                self.ready = Cursor::new(vec![0; data.padding]);
                self.data = None;
            } else if let Some(path) = self.todo.pop() {
                self.begin(path)?;
            } else if self.is_ended {
                return Ok(0);
            } else {
                self.ready = Cursor::new(vec![0; 2 * BLOCK]);
                self.is_ended = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    const LONG: usize = 180;

    fn sample() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("etc")).unwrap();
        for file in ["etc/b", "zero", "etc/a", &"x".repeat(LONG)] {
            fs::write(at(file), if file == "zero" { String::new() } else { file.repeat(700) }).unwrap();
            fs::set_permissions(at(file), PermissionsExt::from_mode(0o4640)).unwrap();
        }
        fs::hard_link(at("etc/a"), at("hard")).unwrap();
        symlink("/etc/a", at("soft")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), Mode::from(0o600)).unwrap();
        root
    }

    #[test]
    fn a_folder_becomes_a_sorted_archive_of_what_it_holds_but_not_of_who_made_it_when() {
        let root = sample();
        let socket = UnixListener::bind(root.path().join("socket")).unwrap();
        let mut archive = tar::Archive::new(FolderStream::open(root.path()).unwrap());
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
            let name = entry.path().unwrap().display().to_string();
            if header.entry_type().is_file() {
                assert_eq!(header.mode().unwrap(), 0o4640);
                assert_eq!(text, if name == "zero" { String::new() } else { name.repeat(700) });
            }
            let link = entry.link_name().unwrap().map(|link| link.display().to_string());
            found.push((name, header.entry_type(), link.unwrap_or_default()));
        }
        let long = "x".repeat(LONG);
        let expected = [
            ("etc/", EntryType::Directory, ""),
            ("etc/a", EntryType::Regular, ""),
            ("etc/b", EntryType::Regular, ""),
            ("hard", EntryType::Link, "etc/a"),
            ("pipe", EntryType::Fifo, ""),
            ("soft", EntryType::Symlink, "/etc/a"),
            (&long, EntryType::Regular, ""),
            ("zero", EntryType::Regular, ""),
        ];
        assert_eq!(found, expected.map(|(name, kind, link)| (name.to_owned(), kind, link.to_owned())));
        drop(socket);
    }

    #[test]
    fn equal_folders_have_equal_digests_and_other_content_another() {
        let (one, two) = (sample(), sample());
        assert_eq!(diff_id(one.path()).unwrap(), diff_id(two.path()).unwrap());
        fs::set_permissions(two.path().join("zero"), PermissionsExt::from_mode(0o600)).unwrap();
        assert_ne!(diff_id(one.path()).unwrap(), diff_id(two.path()).unwrap());
    }

    #[test]
    fn an_archive_of_a_folder_ends_as_gnu_tar_expects() {
        let mut bytes = Vec::new();
        FolderStream::open(sample().path()).unwrap().read_to_end(&mut bytes).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.tar"), &bytes).unwrap();
        let tar =
            std::process::Command::new("tar").args(["-tf", "a.tar"]).current_dir(&folder).output().unwrap();
        assert!(tar.status.success() && tar.stderr.is_empty(), "{}", String::from_utf8_lossy(&tar.stderr));
    }

    #[test]
    fn a_file_that_shrinks_while_it_is_read_is_an_error_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), [1; 5000]).unwrap();
        let mut stream = FolderStream::open(root.path()).unwrap();
        stream.read_exact(&mut [0; 600]).unwrap();
        fs::write(root.path().join("a"), [1; 80]).unwrap();
        let error = io::copy(&mut stream, &mut io::sink()).unwrap_err().to_string();
        assert!(error.ends_with("/a` became shorter while it was read"), "{error}");
    }
}
