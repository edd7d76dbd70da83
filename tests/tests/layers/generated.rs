//! Images of two layers that a random generator made: always the same ones.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::json;
use tar::EntryType;
use tests::{Entry, Image, Layer};

/// What the images are called.
pub const TAGS: [&str; 8] = ["g0", "g1", "g2", "g3", "g4", "g5", "g6", "g7"];

/// What files are called: few names, so that the layers of an image meet.
const NAMES: [&[u8]; 7] =
    [b"a", b"b", b"c d", b"new\nline", "\u{fc}n\u{ef}".as_bytes(), b"\xff\xfe", &[b'n'; 90]];

/// A version 2 capability: CAP_NET_BIND_SERVICE, permitted and effective.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Files by their paths, every folder among them.
type Files = BTreeMap<Vec<u8>, Entry>;

/// The images: each has a layer with everything, and one that changes, hides and adds.
pub fn images() -> Vec<Image> {
    let mut runner = TestRunner::deterministic();
    let mut next = || files().new_tree(&mut runner).unwrap().current();
    TAGS.iter()
        .map(|tag| {
            let (lower, upper) = (next(), next());
            let program = Layer::new().directory("bin", 0o755, (0, 0)).file("bin/true", 0o755, b"");
            let base = lower.values().fold(program, Layer::any);
            let changes = upper.iter().fold(hide(&lower, &upper), change);
            Image { tag, layers: vec![base, changes], config: json!({}) }
        })
        .collect()
}

/// Adds a file of an upper layer, and if it is an opaque folder, what says so.
fn change(layer: Layer, (path, entry): (&Vec<u8>, &Entry)) -> Layer {
    let layer = layer.any(entry);
    if is_opaque(entry) { layer.any(&marker(path, b"/.wh..wh..opq")) } else { layer }
}

/// About every third folder of an upper layer.
fn is_opaque(entry: &Entry) -> bool {
    entry.kind == EntryType::Directory && entry.mode.is_multiple_of(3)
}

/// The beginning of an upper layer: every third name is hidden that it could hide.
fn hide(lower: &Files, upper: &Files) -> Layer {
    let mut layer = Layer::new();
    let mut hidden: Vec<&[u8]> = Vec::new();
    for (number, path) in lower.keys().enumerate() {
        let is_below = |path: &[u8], folder: &[u8]| {
            path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        };
        let is_hidden = hidden.iter().any(|folder| is_below(path, folder));
        let is_replaced = upper.iter().any(|(other, entry)| {
            // What an opaque folder hides needs no marker of its own.
            let hides = entry.kind != EntryType::Directory || is_opaque(entry);
            is_below(other, path) || (is_below(path, other) && hides)
        });
        if number % 3 == 0 && !is_hidden && !is_replaced {
            hidden.push(path);
            layer = layer.any(&marker(&[folder(path), b".wh."].concat(), &path[folder(path).len()..]));
        }
    }
    layer
}

/// The start of a path that ends with its last slash.
fn folder(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    &path[..slash.map_or(0, |slash| slash + 1)]
}

fn marker(start: &[u8], end: &[u8]) -> Entry {
    let name = [start, end].concat();
    named(Entry { kind: EntryType::Regular, ..plain() }, name)
}

fn plain() -> Entry {
    Entry {
        kind: EntryType::Directory,
        name: Vec::new(),
        link: Vec::new(),
        mode: 0o755,
        records: Vec::new(),
        device: (0, 0),
        contents: Vec::new(),
    }
}

/// The entry under a name, which may be too long for its header.
fn named(mut entry: Entry, name: Vec<u8>) -> Entry {
    if name.len() > 100 {
        entry.records.push(("path".to_owned(), name));
        entry.name = b"long".to_vec();
    } else {
        entry.name = name;
    }
    entry
}

fn files() -> impl Strategy<Value = Files> {
    let path = prop::collection::vec(prop::sample::select(NAMES.as_slice()), 1..4);
    prop::collection::vec((path, entry()), 20..50).prop_map(|added| {
        let mut files = Files::new();
        let mut links = Vec::new();
        for (names, entry) in added {
            let path = names.join(&b'/');
            let folders: Vec<_> = (1..names.len()).map(|end| names[..end].join(&b'/')).collect();
            let is_free =
                |folder| files.get(folder).is_none_or(|entry: &Entry| entry.kind == EntryType::Directory);
            if !folders.iter().all(is_free) || files.contains_key(&path) {
                continue;
            }
            for folder in folders {
                files.entry(folder.clone()).or_insert_with(|| named(plain(), folder));
            }
            if entry.kind == EntryType::Link {
                links.push((path.clone(), entry.clone()));
            }
            files.insert(path.clone(), named(entry, path));
        }
        with_links(files, links)
    })
}

/// Gives every link a file to be a further name of: one whose own entry comes earlier, or else none.
fn with_links(mut files: Files, links: Vec<(Vec<u8>, Entry)>) -> Files {
    for (path, mut entry) in links {
        files.remove(&path);
        let is_target = |(_, file): &(&Vec<u8>, &Entry)| file.kind == EntryType::Regular;
        let Some((target, file)) = files.range(..path.clone()).rfind(is_target) else { continue };
        entry.records.clone_from(&file.records);
        entry.records.retain(|(key, _)| key != "path");
        entry.mode = file.mode;
        if target.len() > 100 {
            entry.records.push(("linkpath".to_owned(), target.clone()));
            entry.link = b"long".to_vec();
        } else {
            entry.link.clone_from(target);
        }
        files.insert(path.clone(), named(entry, path));
    }
    files
}

fn entry() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![
        6 => Just(EntryType::Regular),
        3 => Just(EntryType::Directory),
        2 => Just(EntryType::Symlink),
        2 => Just(EntryType::Link),
        1 => Just(EntryType::Char),
        1 => Just(EntryType::Block),
        1 => Just(EntryType::Fifo),
    ];
    let size = prop::sample::select(vec![0usize, 1, 3000, 4031, 4096, 4097, 9000, 70_000, 300_000]);
    (kind, 0u32..0o10000, size, 1u8..5, records()).prop_map(|(kind, mode, size, seed, mut records)| {
        if kind != EntryType::Regular {
            records.retain(|(key, _)| key != "SCHILY.xattr.security.capability");
        }
        if !matches!(kind, EntryType::Regular | EntryType::Directory) {
            // Linux has these attributes for no other kind.
            records.retain(|(key, _)| key != "SCHILY.xattr.user.note");
        }
        let mut entry = Entry { kind, mode, records, ..plain() };
        match kind {
            EntryType::Regular => entry.contents = contents(size, seed),
            EntryType::Symlink => entry.link = b"../target".repeat(usize::from(seed)),
            EntryType::Char => entry.device = (1, u32::from(seed)),
            EntryType::Block => entry.device = (259, u32::from(seed) << 16),
            _ => {}
        }
        entry
    })
}

fn records() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let all: Vec<(&str, &[u8])> = vec![
        ("mtime", b"1700000000.123456789"),
        ("mtime", b"-5.25"),
        ("mtime", b"9000000000"),
        ("uid", b"33"),
        ("uid", b"3000000000"),
        ("gid", b"70000"),
        ("SCHILY.xattr.user.note", b"\0=\n\xff"),
        ("SCHILY.xattr.security.capability", CAPABILITY),
        ("SCHILY.xattr.trusted.large", &[b'v'; 300]),
    ];
    prop::sample::subsequence(all, 0..4).prop_map(|records| {
        let records: BTreeMap<_, _> = records.into_iter().collect();
        records.into_iter().map(|(key, value)| (key.to_owned(), value.to_vec())).collect()
    })
}

/// Half noise and half text, of few kinds: some files are equal.
fn contents(size: usize, seed: u8) -> Vec<u8> {
    let mut state = u64::from(seed);
    let mut bytes: Vec<u8> = Vec::new();
    while bytes.len() < size / 2 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    while bytes.len() < size {
        bytes.extend(format!("line {} of {seed}\n", bytes.len() / 100).bytes());
    }
    bytes.truncate(size);
    bytes
}
