//! An archive that is made of an image makes the same image again, and reads as the first one did.

use super::{Archive, *};
use crate::archive::{self, EntryKind};
use crate::artifact::erofs::{Codec, Compression};
use crate::layer::walk::{Place, Walk};
use crate::layer::{Listing, list, write_tarball};
use crate::oci::descriptor::Digest;

/// Every form that an image can have.
const FORMS: [Option<Compression>; 3] =
    [None, Some(Compression::usual(Codec::Lz4)), Some(Compression::usual(Codec::Zstd))];

/// What an entry of the same archive or of [`base`] is called, so that some replace, hide or link others.
const NAMES: [&str; 12] = [
    "file",
    "dir",
    "dir/file",
    "dir/deep/er",
    "dir/deep",
    "etc/passwd",
    "srv/www",
    "srv/www/index.html",
    "bin/sh",
    "odd\n\u{9b} name",
    ".hidden",
    "dir/.wh",
];

/// An entry, or the marker of something hidden.
#[derive(Debug, Clone)]
enum Added {
    File(usize),
    Folder,
    Link,
    HardLink(&'static str),
    Device,
    Fifo,
    Whiteout,
    Opaque,
}

fn additions() -> impl Strategy<Value = Vec<(&'static str, Added, u8)>> {
    let added = prop_oneof![
        3 => prop_oneof![0usize..20, 4000usize..4200, 60_000usize..140_000].prop_map(Added::File),
        2 => Just(Added::Folder),
        1 => Just(Added::Link),
        1 => prop::sample::select(NAMES.as_slice()).prop_map(Added::HardLink),
        1 => Just(Added::Device),
        1 => Just(Added::Fifo),
        1 => Just(Added::Whiteout),
        1 => Just(Added::Opaque),
    ];
    prop::collection::vec((prop::sample::select(NAMES.as_slice()), added, any::<u8>()), 0..20)
}

/// The archive of these entries, without those that would make all of it be refused.
fn archive_of(additions: &[(&'static str, Added, u8)]) -> Vec<u8> {
    let mut taken = Archive::default();
    for (name, added, seed) in additions {
        let (folder, last) = name.rsplit_once('/').unwrap_or(("", name));
        let before = Archive(taken.0.clone());
        let attributes: &[(&str, &[u8])] = &[
            ("mtime", b"-12345.25"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02=\n\0"),
            ("SCHILY.xattr.user.note", &[*seed; 200]),
            ("uid", b"4000000"),
        ];
        let next = if seed % 4 == 0 { before.pax(attributes) } else { before };
        let next = match added {
            // Half noise, half not.
            Added::File(size) => {
                let noise = |at: usize| u8::try_from(at * at / 7 % 256).unwrap() ^ *seed;
                let data: Vec<u8> =
                    (0..*size).map(|at| if at < size / 2 { noise(at) } else { *seed }).collect();
                next.add(EntryType::Regular, name, "", &data)
            }
            Added::Folder => next.folder(name),
            Added::Link => next.link(name, &"../target".repeat(usize::from(seed % 11 + 1))),
            Added::HardLink(target) => next.hard_link(name, target),
            Added::Device => next.with(EntryType::Block, name, |header| {
                header.set_device_major(259).unwrap();
                header.set_device_minor(u32::from(*seed) << 12).unwrap();
            }),
            Added::Fifo => next.add(EntryType::Fifo, name, "", b""),
            Added::Whiteout => next.file(&format!("{folder}/.wh.{last}"), ""),
            Added::Opaque => next.file(&format!("{name}/.wh..wh..opq"), ""),
        };
        if converted(&Archive(next.0.clone()).end(), &base()).is_ok() {
            taken = next;
        }
    }
    taken.end()
}

fn image_of(tar: &[u8], lower: &Tree, form: Option<Compression>) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let writer = match form {
        None => Writer::new(&mut out).unwrap(),
        Some(compression) => Writer::compressed(&mut out, compression, Some(2)).unwrap(),
    };
    convert(Input { tar, lower: &|| Ok(lower), limits: Limits::default() }, writer).unwrap();
    out.into_inner()
}

fn tarball(image: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_tarball(&Image::from_bytes(image.to_vec()).unwrap(), &mut out).unwrap();
    out
}

/// Everything that an image shows: lines, with contents by their digest.
fn shown(image: &[u8]) -> Vec<String> {
    let image = Image::from_bytes(image.to_vec()).unwrap();
    let mut walk = Walk::new(&image, Place::of(b""), &image.root().unwrap());
    let mut lines = Vec::new();
    let mut numbers = Vec::new();
    while let Some((place, inode)) = walk.next().unwrap() {
        let mut contents = Vec::new();
        image.contents(&inode).read_to_end(&mut contents).unwrap();
        // Two names of one file are told by the line of the first.
        let first = numbers.iter().position(|nid| *nid == inode.nid).unwrap_or(numbers.len());
        numbers.push(inode.nid);
        let path = place.path().escape_ascii().to_string();
        let digest = Digest::of(&contents);
        lines.push(format!("{path} {first} {:?} {:?} {} {digest}", inode.kind, inode.metadata, inode.links));
    }
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn an_archive_makes_the_image_again_that_it_was_made_of(additions in additions()) {
        let tar = archive_of(&additions);
        let mut archives = Vec::new();
        for form in FORMS {
            let lower = base();
            let first = image_of(&tar, &lower, form);
            let again = tarball(&first);
            let second = image_of(&again, &lower, form);
            prop_assert_eq!(shown(&first), shown(&second));
            // The first one may have bytes of entries that were replaced later in its archive.
            prop_assert!(second.len() <= first.len());
            prop_assert!(image_of(&tarball(&second), &lower, form) == second);
            archives.push(again);
        }
        prop_assert!(archives.iter().all(|archive| *archive == archives[0]), "forms differ");
    }

    #[test]
    fn a_damaged_image_is_an_error_or_another_archive_but_never_a_panic(
        form in prop::sample::select(FORMS.as_slice()),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut bytes = image_of(&rich(), &base(), form);
        for (at, value) in flips {
            let at = 4096 + at.index(bytes.len() - 4096);
            bytes[at] = value;
        }
        let Ok(image) = Image::from_bytes(bytes) else { return Ok(()) };
        let (mut archive, mut lines) = (Vec::new(), Vec::new());
        let written = write_tarball(&image, &mut archive);
        let listing = Listing { recursive: true, json: false };
        let listed = image.root().and_then(|root| list(&image, b"", &root, listing, &mut lines));
        prop_assert!(archive.len() < 1 << 24 && lines.len() < 1 << 20);
        for error in [written.err(), listed.err()].into_iter().flatten() {
            prop_assert!(!error.to_string().contains('\n'), "{}", error);
        }
    }
}

/// An archive with one of everything, in which nothing replaces anything.
fn rich() -> Vec<u8> {
    let long = format!("{}/name", "folder/".repeat(30));
    Archive::default()
        .file("z-first", "written before what sorts before it")
        .add(EntryType::Regular, "large", "", &[b"text ".repeat(30_000), vec![7; 99]].concat())
        .pax(&[("path", long.as_bytes()), ("mtime", b"1700000000.123456789"), ("linkpath", &[b't'; 300])])
        .link("x", "x")
        .hard_link("a-second", "z-first")
        .hard_link("a-third", "a-second")
        .pax(&[("SCHILY.xattr.user.large", &[0xff; 5000]), ("gid", b"4294967294")])
        .folder("srv/www/")
        .file("srv/www/.wh..wh..opq", "")
        .file("etc/.wh.passwd", "")
        .file("usr/bin/.wh.sh", "")
        .with(EntryType::Char, "null", |header| {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        })
        .add(EntryType::Fifo, "fifo", "", b"")
        .with(EntryType::Regular, "set-id", |header| header.set_mode(0o6755))
        .end()
}

#[test]
fn where_nothing_was_replaced_the_first_image_is_made_again() {
    for form in FORMS {
        let image = image_of(&rich(), &base(), form);
        assert!(image_of(&tarball(&image), &base(), form) == image, "{form:?}");
    }
}

#[test]
fn whiteouts_opaque_folders_and_links_are_spelled_as_the_specification_does() {
    let image = image_of(&rich(), &base(), None);
    let archive = tarball(&image);
    let mut reader = archive::Archive::new("the archive", archive.as_slice());
    let mut names = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        let link = match entry.kind {
            EntryKind::HardLink(target) => format!(" = {}", target.escape_ascii()),
            _ => String::new(),
        };
        names.push(format!("{}{link}", entry.name.escape_ascii()));
    }
    names.retain(|name| !name.contains("folder/"));
    let expected = [
        "./",
        "etc/",
        "srv/",
        "srv/www/",
        "srv/www/.wh..wh..opq",
        "usr/",
        "usr/bin/",
        "a-second",
        "a-third = a-second",
        "z-first = a-second",
        "large",
        "etc/.wh.passwd",
        "usr/bin/.wh.sh",
        "null",
        "fifo",
        "set-id",
    ];
    assert_eq!(names, expected);
}

#[test]
fn what_an_archive_would_read_otherwise_is_refused() {
    let refusal = |path: &str, kind: Kind| {
        let mut out = Cursor::new(Vec::new());
        let mut writer = Writer::new(&mut out).unwrap();
        writer.node(path.as_bytes(), &Metadata::new(0), &kind).unwrap();
        writer.finish().unwrap();
        let image = Image::from_bytes(out.into_inner()).unwrap();
        write_tarball(&image, &mut Vec::new()).unwrap_err().to_string()
    };
    assert_eq!(refusal("a/.wh.b", Kind::Fifo), "`/a/.wh.b`: it has the name of a whiteout");
    assert_eq!(refusal("a/b", Kind::Socket), "`/a/b`: it is a socket, which tar has no type for");
}

#[test]
fn a_folder_inside_itself_is_damage() {
    let mut bytes = image_of(&Archive::default().folder("a/below/").end(), &Tree::default(), None);
    let number = |path: &[u8]| Image::from_bytes(bytes.clone()).unwrap().find(path).unwrap().unwrap().nid;
    let (above, below) = (number(b"a"), number(b"a/below"));
    // The entry's name comes behind three entries, `.` and `..`, and it is a folder's.
    let entry = [below.to_le_bytes().as_slice(), &[3 * 12 + 3, 0, 2]].concat();
    let at = bytes.windows(entry.len()).position(|window| window == entry).unwrap();
    bytes[at..at + 8].copy_from_slice(&above.to_le_bytes());
    let error = write_tarball(&Image::from_bytes(bytes).unwrap(), &mut Vec::new()).unwrap_err().to_string();
    assert_eq!(error, "the layer's image is damaged: the folder `/a/below` is in two places");
}
