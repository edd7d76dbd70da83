//! What becomes of archives, ordinary, odd and hostile.

mod breakouts;
mod damage;
mod merged;
mod readers;
mod tarball;

use std::io::{Cursor, Read};

use proptest::prelude::*;
use tar::EntryType;

use super::convert::Converted;
use super::tree::Located;
use super::{Input, Tree, convert};
use crate::artifact::erofs::{Image, Kind, Metadata, Writer};
use crate::error::Result;
use crate::oci::limits::Limits;

/// An archive that is being made.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn add(mut self, entry_type: EntryType, name: &str, link: &str, data: &[u8]) -> Self {
        let mut header = header(entry_type, name, link);
        header.set_size(data.len() as u64);
        self.header(header);
        self.data(data);
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.add(EntryType::Regular, name, "", data.as_bytes())
    }

    fn folder(self, name: &str) -> Self {
        self.add(EntryType::Directory, name, "", b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, name, target, b"")
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.add(EntryType::Link, name, target, b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.records(EntryType::XHeader, records)
    }

    fn records(self, entry_type: EntryType, records: &[(&str, &[u8])]) -> Self {
        let mut payload = Vec::new();
        for (key, value) in records {
            let length = (1..)
                .find(|length: &usize| key.len() + value.len() + 3 + length.to_string().len() == *length)
                .unwrap();
            payload.extend(format!("{length} {key}=").bytes());
            payload.extend(*value);
            payload.push(b'\n');
        }
        self.add(entry_type, "pax", "", &payload)
    }

    /// An entry whose header differs in one thing.
    fn with(mut self, entry_type: EntryType, name: &str, change: impl FnOnce(&mut tar::Header)) -> Self {
        let mut header = header(entry_type, name, "");
        change(&mut header);
        self.header(header);
        self
    }

    fn header(&mut self, mut header: tar::Header) {
        header.set_cksum();
        self.0.extend(header.as_bytes());
    }

    fn data(&mut self, data: &[u8]) {
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }

    fn convert(self, lower: &Tree) -> Result<(Converted, Vec<u8>)> {
        converted(&self.end(), lower)
    }

    /// The layer, which is known to be right, on top of others.
    fn layer(self, lower: &Tree) -> Image {
        Image::from_bytes(self.convert(lower).unwrap().1).unwrap()
    }

    fn refusal(self, lower: &Tree) -> String {
        self.convert(lower).unwrap_err().to_string()
    }
}

fn header(entry_type: EntryType, name: &str, link: &str) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    let raw = header.as_old_mut();
    raw.name[..name.len()].copy_from_slice(name.as_bytes());
    raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(entry_type);
    header.set_mode(0o640);
    header.set_uid(1);
    header.set_gid(2);
    header.set_mtime(3);
    header.set_size(0);
    header
}

fn converted(tar: &[u8], lower: &Tree) -> Result<(Converted, Vec<u8>)> {
    let mut out = Cursor::new(Vec::new());
    let converted =
        convert(Input { tar, lower: &|| Ok(lower), limits: Limits::default() }, Writer::new(&mut out)?)?;
    Ok((converted, out.into_inner()))
}

/// A root file system as distributions have it: `/bin` is a link.
fn base() -> Tree {
    let image = Archive::default()
        .with(EntryType::Directory, "srv/", |header| {
            header.set_mode(0o2750);
            header.set_uid(33);
        })
        .pax(&[("SCHILY.xattr.user.kept", b"yes")])
        .folder("srv/www/")
        .file("srv/www/index.html", "lower")
        .file("srv/www/other.html", "other")
        .folder("usr/bin/")
        .file("usr/bin/sh", "shell")
        .link("bin", "usr/bin")
        .link("loop", "loop")
        .link("out", "../../../../srv")
        .link("abs", "/srv/www")
        .file("etc/passwd", "root:x:0:0")
        .layer(&Tree::default());
    Tree::new(vec![image])
}

fn find(tree: &Tree, path: &str) -> Option<Located> {
    tree.find_link(path.as_bytes()).unwrap()
}

fn text(tree: &Tree, path: &str) -> String {
    String::from_utf8(tree.read(path.as_bytes(), 1000).unwrap().unwrap()).unwrap()
}

#[test]
fn a_layer_of_plain_entries_asks_nothing_of_lower_layers() {
    let archive = Archive::default()
        .folder("./")
        .folder("./a/")
        .file("./a/file", "text")
        .hard_link("a/again", "/a/file")
        .link("a/link", "../anything")
        .with(EntryType::Char, "a/null", |header| {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        })
        .add(EntryType::Fifo, "a/fifo", "", b"")
        .records(EntryType::XGlobalHeader, &[("comment", b"0123456789abcdef")])
        .add(EntryType::Continuous, "a/contiguous", "", b"data");
    let (known, bytes) = archive.convert(&base()).unwrap();
    assert_eq!(known, Converted { depends_on_lower: false, entries: 8, special: known.special.clone() });
    assert_eq!(known.special.devices.first, ["/a/null"]);
    let tree = Tree::new(vec![Image::from_bytes(bytes).unwrap()]);
    assert_eq!(text(&tree, "/a/file"), "text");
    assert_eq!(text(&tree, "a/contiguous"), "data");
    assert_eq!(find(&tree, "a/again").unwrap().inode.links, 2);
    assert_eq!(find(&tree, "a/null").unwrap().inode.kind, Kind::CharDevice { major: 1, minor: 3 });
    let metadata = find(&tree, "a/fifo").unwrap().inode.metadata;
    assert_eq!((metadata.mode, metadata.uid, metadata.gid, metadata.mtime), (0o640, 1, 2, 3));
}

#[test]
fn extended_headers_give_long_names_times_owners_and_attributes() {
    let long = "directory/".repeat(30) + "name";
    let target = "t".repeat(300);
    let archive = Archive::default()
        .pax(&[("path", long.as_bytes()), ("mtime", b"5.25"), ("uid", b"4000000000"), ("gid", b"7")])
        .file("ignored", "long")
        .add(EntryType::GNULongName, "././@LongLink", "", format!("gnu/{long}\0").as_bytes())
        .add(EntryType::GNULongLink, "././@LongLink", "", format!("{target}\0").as_bytes())
        .link("ignored", "ignored")
        .pax(&[
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02=\n"),
            ("SCHILY.xattr.com.apple.provenance", b"x"),
        ])
        .file("capable", "")
        .with(EntryType::Regular, "base-256", |header| header.set_uid(70_000_000));
    let tree = Tree::new(vec![archive.layer(&Tree::default())]);
    let found = find(&tree, &long).unwrap().inode.metadata;
    assert_eq!((found.mtime, found.mtime_nsec, found.uid, found.gid), (5, 250_000_000, 4_000_000_000, 7));
    let gnu = find(&tree, &format!("gnu/{long}")).unwrap();
    assert_eq!(gnu.inode.kind, Kind::Symlink(target.into_bytes()));
    let capable = find(&tree, "capable").unwrap().inode.metadata.xattrs;
    assert_eq!(capable, [(b"security.capability".to_vec(), b"\x01\0\0\x02=\n".to_vec())].into());
    assert_eq!(find(&tree, "base-256").unwrap().inode.metadata.uid, 70_000_000);
}

#[test]
fn whiteouts_hide_lower_files_and_nothing_of_their_own_layer() {
    let mut tree = base();
    let layer = Archive::default()
        .file("srv/www/.wh.index.html", "")
        .file("srv/www/.wh.never-was", "")
        .file("usr/.wh.bin", "")
        .file("usr/bin/new", "new")
        .file("etc/passwd", "kept")
        .file("etc/.wh.passwd", "")
        .layer(&tree);
    assert_eq!(layer.find(b"srv/www/index.html").unwrap().unwrap().kind, Kind::WHITEOUT);
    assert_eq!(layer.find(b"srv/www/never-was").unwrap(), None);
    tree.push(layer);
    assert_eq!(find(&tree, "srv/www/index.html"), None);
    assert_eq!(text(&tree, "srv/www/other.html"), "other");
    assert_eq!(find(&tree, "usr/bin/sh"), None);
    assert_eq!(text(&tree, "usr/bin/new"), "new");
    assert_eq!(text(&tree, "etc/passwd"), "kept");
    let www = find(&tree, "srv/www").unwrap();
    assert_eq!(tree.list(&www).unwrap(), [b"other.html"]);
}

#[test]
fn an_opaque_folder_hides_what_is_below_wherever_its_marker_stands() {
    for marker_first in [true, false] {
        let mut tree = base();
        let marker = |archive: Archive| archive.file("srv/www/.wh..wh..opq", "");
        let mut archive = Archive::default();
        if marker_first {
            archive = marker(archive);
        }
        archive = archive.folder("srv/www/").file("srv/www/own", "own").file("srv/www/.wh.index.html", "");
        if !marker_first {
            archive = marker(archive);
        }
        tree.push(archive.layer(&tree));
        let www = find(&tree, "srv/www").unwrap();
        assert_eq!(tree.list(&www).unwrap(), [b"own"], "marker first: {marker_first}");
        assert_eq!(www.inode.metadata.xattrs[b"trusted.overlay.opaque".as_slice()], b"y");
    }
}

#[test]
fn an_opaque_root_hides_everything_by_whiteouts_of_its_own() {
    let mut tree = base();
    tree.push(Archive::default().file("etc/own", "").file(".wh..wh..opq", "").layer(&tree));
    assert_eq!(tree.list(&find(&tree, "").unwrap()).unwrap(), [b"etc"]);
    assert_eq!(tree.list(&find(&tree, "etc").unwrap()).unwrap(), [b"own"]);
}

#[test]
fn a_folder_that_the_archive_lacks_looks_as_it_does_below() {
    let mut tree = base();
    let archive = Archive::default().file("srv/www/new/file", "x");
    let (known, bytes) = archive.convert(&tree).unwrap();
    assert!(known.depends_on_lower);
    let layer = Image::from_bytes(bytes).unwrap();
    let srv = layer.find(b"srv").unwrap().unwrap().metadata;
    assert_eq!((srv.mode, srv.uid, srv.mtime), (0o2750, 33, 3));
    let www = layer.find(b"srv/www").unwrap().unwrap().metadata;
    assert_eq!(www.xattrs[b"user.kept".as_slice()], b"yes");
    let new = layer.find(b"srv/www/new").unwrap().unwrap().metadata;
    assert_eq!((new.mode, new.uid, new.mtime), (0o755, 0, 0));
    tree.push(layer);
    assert_eq!(text(&tree, "srv/www/index.html"), "lower");
}

#[test]
fn entries_below_a_link_of_a_lower_layer_land_where_it_leads() {
    let mut tree = base();
    let layer = Archive::default()
        .file("bin/tool", "tool")
        .file("out/www/by-relative", "1")
        .file("abs/by-absolute", "2")
        .file("bin/.wh.sh", "")
        .layer(&tree);
    assert_eq!(layer.find(b"bin").unwrap(), None);
    tree.push(layer);
    assert_eq!(text(&tree, "usr/bin/tool"), "tool");
    assert_eq!(text(&tree, "/bin/tool"), "tool");
    assert_eq!(text(&tree, "srv/www/by-relative"), "1");
    assert_eq!(text(&tree, "srv/www/by-absolute"), "2");
    assert_eq!(find(&tree, "bin/sh"), None);
}

#[test]
fn links_of_the_layer_itself_are_followed_too_and_a_folder_replaces_one() {
    let tree = Tree::new(vec![
        Archive::default()
            .link("a", "real/deep")
            .file("a/file", "x")
            .link("b", "real")
            .folder("b/")
            .file("b/file", "y")
            .layer(&Tree::default()),
    ]);
    assert_eq!(text(&tree, "real/deep/file"), "x");
    assert_eq!(find(&tree, "b").unwrap().inode.kind, Kind::Directory);
    assert_eq!(find(&tree, "real/file"), None);
}

#[test]
fn a_hard_link_to_a_lower_file_is_a_copy_that_later_links_share() {
    let tree = base();
    let archive = Archive::default()
        .hard_link("copy", "srv/www/index.html")
        .hard_link("b", "abs/index.html")
        .hard_link("c", "copy");
    let (known, bytes) = archive.convert(&tree).unwrap();
    assert!(known.depends_on_lower);
    let top = Tree::new(vec![Image::from_bytes(bytes).unwrap()]);
    assert_eq!(text(&top, "copy"), "lower");
    assert_eq!(find(&top, "copy").unwrap().inode.links, 3);
    assert_eq!(find(&top, "copy").unwrap().inode.metadata.uid, 1);
}

#[test]
fn hostile_and_broken_archives_are_refused_by_the_name_of_the_entry() {
    let tree = base();
    let new = Archive::default;
    let set = |field: fn(&mut tar::Header) -> &mut [u8], value: &'static [u8]| {
        new().with(EntryType::Regular, "odd", move |header| {
            field(header)[..value.len()].copy_from_slice(value)
        })
    };
    for (archive, reason) in [
        (new().file("../x", ""), "the layer's entry `../x`: its name contains `..`"),
        (new().file("a/../../x", ""), "the layer's entry `a/../../x`: its name contains `..`"),
        (
            new().pax(&[("path", b"a\0b")]).file("x", ""),
            "the layer's first entry: its extended header has a wrong value: `path=a\\x00b`",
        ),
        (new().pax(&[("path", &[b'n'; 256])]).file("x", ""), "has a name of more than 255 bytes"),
        (new().pax(&[("path", &b"/d".repeat(2100))]).file("x", ""), "the path is longer than 4096 bytes"),
        (new().file("f", "").file("f/x", ""), "the layer's entry `f/x`: `f` is not a folder"),
        (new().file("etc/passwd/x", ""), "the layer's entry `etc/passwd/x`: `etc/passwd` is not a folder"),
        (new().file("", ""), "the layer's first entry: an entry has no name"),
        (new().file(".", ""), "the layer's entry `.`: the root of a file system has to be a folder"),
        (new().file("loop/x", ""), "more than 40 symbolic links lead to it"),
        (
            new().hard_link("h", "nothing"),
            "the layer's entry `h`: cannot link it to `nothing`: there is no such file",
        ),
        (new().hard_link("h", "../etc/passwd"), "its name contains `..`"),
        (new().hard_link("h", "srv"), "that is a folder"),
        (new().file("etc/.wh.passwd", "").hard_link("h", "etc/passwd"), "there is no such file"),
        (new().link("l", ""), "`l`: it is a link without a target"),
        (new().add(EntryType::Char, "c", "", b""), "a character device 0:0"),
        (new().add(EntryType::GNUSparse, "s", "", b""), "`s`: it is a sparse file"),
        (new().add(EntryType::new(b'Q'), "q", "", b""), "`q`: its type `Q` is none that layers can contain"),
        (
            new().pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/")]).file("r", ""),
            "reserved for overlayfs",
        ),
        (new().pax(&[("GNU.sparse.major", b"1")]).file("r", ""), "sparse file"),
        (
            new().pax(&[("uid", b"4294967296")]).file("u", ""),
            "`u`: its user id is not a number from 0 to 4294967294",
        ),
        (new().file(".wh.", ""), "it is a whiteout of no name"),
        (
            new().pax(&[("size", b"18446744073709551615")]).file(".wh.a", ""),
            "`.wh.a`: its size is not a number, negative or absurdly large",
        ),
        (set(|header| &mut header.as_old_mut().size, b"-1"), "its size is not a number"),
        (set(|header| &mut header.as_old_mut().size, &[0xff; 12]), "its size is not a number, negative"),
        (set(|header| &mut header.as_old_mut().uid, &[0xff; 8]), "`odd`: its user id is not"),
        (
            new().add(EntryType::GNULongName, "l", "", &[b'n'; 5000]),
            "an extended header has 5000 bytes, more than 4097",
        ),
        (new().pax(&[("path", b"x")]), "the layer's first entry: an extended header is followed by no entry"),
    ] {
        let refusal = archive.refusal(&tree);
        assert!(refusal.contains(reason), "expected: {reason}\nfound: {refusal}");
    }
}

#[test]
fn a_truncated_or_damaged_archive_is_refused_at_every_place_but_between_entries() {
    let whole = Archive::default()
        .file("first", &"x".repeat(600))
        .pax(&[("path", b"second")])
        .file("s", "data")
        .end();
    let between = [0, 1536, whole.len() - 1024, whole.len() - 512];
    for length in 0..whole.len() {
        let found = converted(&whole[..length], &Tree::default());
        assert_eq!(found.is_ok(), between.contains(&length), "cut at {length}");
    }
    let mut damaged = whole;
    damaged[1540] ^= 1;
    let refusal = converted(&damaged, &Tree::default()).unwrap_err().to_string();
    assert!(refusal.starts_with("the layer's entry after `first`: the checksum"), "{refusal}");
}

#[test]
fn the_stream_is_read_to_its_end_and_its_verdict_there_counts() {
    struct Verdict;
    impl Read for Verdict {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the diff id is wrong"))
        }
    }
    let archive = Archive::default().file("a", "b").end();
    let trailing = [archive, vec![1; 5000]].concat();
    assert!(converted(&trailing, &Tree::default()).is_ok());
    let mut out = Cursor::new(Vec::new());
    let input = Input { tar: trailing.chain(Verdict), lower: &|| unreachable!(), limits: Limits::default() };
    let refusal = convert(input, Writer::new(&mut out).unwrap()).unwrap_err();
    assert_eq!(refusal.to_string(), "the layer's entry after `a`: the diff id is wrong");
}

#[test]
fn what_is_special_is_noted_unless_a_later_entry_took_its_place() {
    let mode = |bits| move |header: &mut tar::Header| header.set_mode(bits);
    let capability: &[(&str, &[u8])] = &[("SCHILY.xattr.security.capability", b"x")];
    let archive = Archive::default()
        .with(EntryType::Regular, "su", mode(0o4755))
        .with(EntryType::Regular, "wall", mode(0o2755))
        .with(EntryType::Directory, "spool/", mode(0o2755))
        .with(EntryType::Regular, "was", mode(0o4755))
        .file("was", "")
        .with(EntryType::Regular, "gone/x", mode(0o4755))
        .link("gone", "su")
        .pax(capability)
        .file("ping", "")
        .with(EntryType::Block, "sda", |header| {
            header.set_device_major(8).unwrap();
            header.set_device_minor(0).unwrap();
        });
    let (Converted { special, .. }, _) = archive.convert(&Tree::default()).unwrap();
    assert_eq!((special.set_id.count, special.set_id.first), (2, vec!["/su".into(), "/wall".into()]));
    assert_eq!((special.capable.count, special.capable.first), (1, vec!["/ping".into()]));
    assert_eq!((special.devices.count, special.devices.first), (1, vec!["/sda".into()]));
}

#[test]
fn only_so_many_entries_are_taken_and_named() {
    let archive = || {
        (0..30).fold(Archive::default(), |archive, number| {
            archive.with(EntryType::Regular, &number.to_string(), |header| header.set_mode(0o4755))
        })
    };
    let with = |entries| {
        let bytes = archive().end();
        let limits = Limits { entries, ..Limits::default() };
        let input = Input { tar: &bytes[..], lower: &|| unreachable!(), limits };
        convert(input, Writer::new(Cursor::new(Vec::new())).unwrap())
    };
    let named = with(30).unwrap().special.set_id;
    assert_eq!((named.count, named.first.len()), (30, 20));
    let refusal = with(29).unwrap_err().to_string();
    assert_eq!(refusal, "it has more than 29 entries (`layers.max-entries`)");
}

#[test]
fn a_tree_follows_links_inside_its_root_and_reads_no_more_than_allowed() {
    let tree = base();
    assert_eq!(tree.find(b"/out/www/../www/index.html").unwrap().unwrap().path, b"srv/www/index.html");
    assert_eq!(tree.find(b"../../etc/passwd").unwrap().unwrap().path, b"etc/passwd");
    assert_eq!(tree.find(b"etc/passwd/x").unwrap(), None);
    assert!(tree.find(b"loop").unwrap_err().to_string().contains("40 symbolic links"));
    assert!(tree.find_link(b"loop").unwrap().is_some());
    assert!(tree.read(b"etc/passwd", 9).unwrap_err().to_string().contains("it has 10 bytes, at most 9"));
    assert!(tree.read(b"etc", 9).unwrap_err().to_string().contains("not a regular file"));
    assert_eq!(tree.read(b"etc/shadow", 9).unwrap(), None);
    assert_eq!(Tree::default().find(b"/").unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_damage_to_an_archive_makes_it_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        fix_checksums: bool,
    ) {
        let mut bytes = Archive::default()
            .pax(&[("path", b"a/b"), ("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b")])
            .file("x", "data")
            .add(EntryType::GNULongName, "l", "", b"long\0")
            .link("l", "a")
            .hard_link("h", "a/b")
            .file("a/.wh.c", "")
            .end();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if fix_checksums {
            for block in bytes.chunks_mut(512).filter(|block| block[257..262] == *b"ustar") {
                let mut header = tar::Header::from_byte_slice(block).clone();
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
        }
        if let Ok((_, image)) = converted(&bytes, &base()) {
            prop_assert!(Image::from_bytes(image).is_ok());
        }
    }
}
