//! Trees of files, compared in everything that a layer keeps.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The type of a file in its mode, and a folder's.
const TYPE: u32 = 0o170_000;
const FOLDER: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// What is read at once of files that are compared.
const CHUNK: usize = 1 << 20;

/// What is known of a file beside its contents, as names and values for messages.
type Facts = BTreeMap<String, String>;

/// A file without its contents.
#[derive(Debug)]
struct Found {
    /// Its type, from its mode.
    kind: u32,
    facts: Facts,
    /// Device and number; of a file with several names, the same.
    number: (u64, u64),
}

/// A tree on a disk, whose root's own facts do not count.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    files: BTreeMap<PathBuf, Found>,
}

impl Tree {
    /// Looks at all files of a folder.
    pub fn of(root: &Path) -> Self {
        let mut tree = Self { root: root.to_owned(), files: BTreeMap::new() };
        let mut waiting = vec![PathBuf::new()];
        while let Some(folder) = waiting.pop() {
            for entry in fs::read_dir(root.join(&folder)).unwrap() {
                let path = folder.join(entry.unwrap().file_name());
                let found = Found::at(&root.join(&path));
                if found.kind == FOLDER {
                    waiting.push(path.clone());
                }
                tree.files.insert(path, found);
            }
        }
        tree.join_names();
        tree
    }

    /// What is different in another tree, a line for each file. Of a folder that `is_implied` only the name counts.
    pub fn differences(&self, other: &Self, is_implied: impl Fn(&Path) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, expected) in &self.files {
            let Some(found) = other.files.get(path) else {
                lines.push(format!("{path:?} is missing"));
                continue;
            };
            if found.kind == FOLDER && expected.kind == FOLDER && is_implied(path) {
                continue;
            }
            if found.facts != expected.facts {
                lines.push(format!("{path:?}: {}", difference(&expected.facts, &found.facts)));
            } else if found.kind == REGULAR && !same_contents(&self.root.join(path), &other.root.join(path)) {
                lines.push(format!("{path:?} has other contents"));
            }
        }
        let added = other.files.keys().filter(|path| !self.files.contains_key(*path));
        lines.extend(added.map(|path| format!("{path:?} is new")));
        lines
    }

    /// Fails with the first of the differences.
    ///
    /// # Panics
    ///
    /// When there are any.
    pub fn assert_same(&self, other: &Self, what: &str, is_implied: impl Fn(&Path) -> bool) {
        let lines = self.differences(other, is_implied);
        let first = lines[..lines.len().min(8)].join("\n");
        assert!(lines.is_empty(), "{what}: {} of {} files differ:\n{first}", lines.len(), self.files.len());
    }

    /// Tells of each file which path is the first of its names. How many the file system counts does not matter: it may
    /// show one layer's file under some of them only.
    fn join_names(&mut self) {
        let mut firsts: HashMap<(u64, u64), PathBuf> = HashMap::new();
        for (path, found) in &mut self.files {
            let first = firsts.entry(found.number).or_insert_with(|| path.clone());
            found.facts.insert("first name".to_owned(), format!("{first:?}"));
        }
    }
}

impl Found {
    fn at(path: &Path) -> Self {
        let found = fs::symlink_metadata(path).unwrap();
        let kind = found.mode() & TYPE;
        let mut facts = attributes(path);
        let mut add = |name: &str, fact: String| facts.insert(name.to_owned(), fact);
        add("mode", format!("{:o}", found.mode()));
        add("owner", format!("{}:{}", found.uid(), found.gid()));
        add("time", format!("{}.{:09}", found.mtime(), found.mtime_nsec()));
        add("device", found.rdev().to_string());
        if kind == REGULAR {
            add("size", found.size().to_string());
        }
        if found.is_symlink() {
            add("target", format!("{:?}", fs::read_link(path).unwrap()));
        }
        Self { kind, facts, number: (found.dev(), found.ino()) }
    }
}

/// The extended attributes of a file.
fn attributes(path: &Path) -> Facts {
    let mut buffer = vec![0; 65_536];
    let length = rustix::fs::llistxattr(path, &mut buffer).unwrap();
    let names = buffer[..length].to_vec();
    let mut value = |name: &[u8]| {
        let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut buffer).unwrap();
        (name.escape_ascii().to_string(), buffer[..length].escape_ascii().to_string())
    };
    names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(&mut value).collect()
}

/// The facts that differ.
fn difference(expected: &Facts, found: &Facts) -> String {
    let none = String::new();
    let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let values =
        names.iter().map(|name| (name, [expected, found].map(|facts| facts.get(*name).unwrap_or(&none))));
    let different = values.filter(|(_, [one, other])| one != other);
    let shown = different.map(|(name, [one, other])| format!("{name} `{one}` became `{other}`"));
    shown.collect::<Vec<_>>().join(", ")
}

/// Files of equal length.
fn same_contents(one: &Path, other: &Path) -> bool {
    let mut files = [one, other].map(|path| File::open(path).unwrap());
    let mut buffers = [vec![0; CHUNK], vec![0; CHUNK]];
    loop {
        let lengths: [usize; 2] = std::array::from_fn(|at| fill(&mut files[at], &mut buffers[at]));
        if buffers[0][..lengths[0]] != buffers[1][..lengths[1]] {
            return false;
        }
        if lengths[0] < CHUNK {
            return true;
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]).unwrap() {
            0 => break,
            length => filled += length,
        }
    }
    filled
}
