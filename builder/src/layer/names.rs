//! Paths in a layer, as bytes: relative to the root, which is empty itself, with single slashes in between.

use std::collections::VecDeque;

use crate::error::{Error, Result};

/// How many symbolic links a path may lead through, as in the kernel (`MAXSYMLINKS`).
pub const LINKS_MAX: usize = 40;

/// What the name of a whiteout begins with (OCI image specification, `layer.md`).
pub const WHITEOUT: &[u8] = b".wh.";

/// What an entry's name asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// To add a file of this path.
    Add(Vec<u8>),
    /// To hide what lower layers have at this path.
    Whiteout(Vec<u8>),
    /// To hide all that lower layers have in this folder.
    Opaque(Vec<u8>),
    /// Nothing: it is bookkeeping of the AUFS storage driver, which some old layers contain.
    Skip,
}

/// What an entry's name asks for. Absolute names are taken as relative to the root; `..` is refused.
pub fn meaning(name: &[u8]) -> Result<Meaning> {
    let names: Vec<_> = split(name).collect();
    if names.contains(&b"..".as_slice()) {
        return Err(Error::new("its name contains `..`"));
    }
    let Some((last, folders)) = names.split_last() else { return Ok(Meaning::Add(Vec::new())) };
    if folders.iter().any(|name| name.starts_with(b".wh..wh.")) {
        return Ok(Meaning::Skip);
    }
    if folders.iter().any(|name| name.starts_with(WHITEOUT)) {
        return Err(Error::new("it is below a whiteout"));
    }
    let folder = folders.join(&b'/');
    match last.strip_prefix(WHITEOUT) {
        None => Ok(Meaning::Add(joined(&folder, last))),
        Some(b".wh..opq") => Ok(Meaning::Opaque(folder)),
        Some(hidden) if hidden.starts_with(WHITEOUT) => Ok(Meaning::Skip),
        Some(b"" | b"." | b"..") => Err(Error::new("it is a whiteout of no name")),
        Some(hidden) => Ok(Meaning::Whiteout(joined(&folder, hidden))),
    }
}

/// The names of a path from the root down, `..` included.
pub fn split(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."))
}

/// The path of a name in a folder.
pub fn joined(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, name].join(&b'/') }
}

/// The folder that a path is in, and its name there; nothing for the root.
pub fn parent(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match path.iter().rposition(|byte| *byte == b'/') {
        _ if path.is_empty() => None,
        None => Some((b"", path)),
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
    }
}

/// Puts the names of a link's target before what is still to be walked.
pub fn prepend(waiting: &mut VecDeque<Vec<u8>>, target: &[u8]) {
    for name in split(target).rev() {
        waiting.push_front(name.to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_and_whiteouts_recognised() {
        for (name, expected) in [
            ("./", Meaning::Add(b"".to_vec())),
            ("/", Meaning::Add(b"".to_vec())),
            ("./a//b/./c/", Meaning::Add(b"a/b/c".to_vec())),
            ("/etc/passwd", Meaning::Add(b"etc/passwd".to_vec())),
            ("a/.wh.b", Meaning::Whiteout(b"a/b".to_vec())),
            (".wh.b", Meaning::Whiteout(b"b".to_vec())),
            (".wh....", Meaning::Whiteout(b"...".to_vec())),
            ("a/b/.wh..wh..opq", Meaning::Opaque(b"a/b".to_vec())),
            (".wh..wh..opq", Meaning::Opaque(b"".to_vec())),
            (".wh..wh.plnk/x", Meaning::Skip),
            (".wh..wh.aufs", Meaning::Skip),
            ("a.wh.b", Meaning::Add(b"a.wh.b".to_vec())),
        ] {
            assert_eq!(meaning(name.as_bytes()), Ok(expected), "{name}");
        }
        for name in ["..", "a/../b", "../etc/passwd", "/..", ".wh.", "a/.wh..", "a/.wh...", ".wh.a/b"] {
            assert!(meaning(name.as_bytes()).is_err(), "{name}");
        }
    }

    #[test]
    fn a_path_is_its_folder_and_its_name() {
        assert_eq!(parent(b""), None);
        assert_eq!(parent(b"a"), Some((b"".as_slice(), b"a".as_slice())));
        assert_eq!(parent(b"a/b/c"), Some((b"a/b".as_slice(), b"c".as_slice())));
    }
}
