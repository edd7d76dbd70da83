//! What the writer writes is what the reader, `fsck.erofs` and the kernel read.

mod packed;
mod shared;

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::{Found, Image, Kind, Metadata, Writer};

/// Every kind of file, sizes around the edges of blocks, names in an unsorted order.
fn example() -> Vec<u8> {
    image(|writer| {
        let plain = Metadata::new(0o644);
        let mut odd =
            Metadata { uid: 70_000, gid: 12, mtime: 1_700_000_000, mtime_nsec: 5, ..Metadata::new(0o4751) };
        odd.xattrs.insert(b"user.note".to_vec(), b"kept".to_vec());
        odd.xattrs.insert(b"trusted.other".to_vec(), vec![7; 3000]);
        for size in [0u64, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8192, 300_000] {
            writer.file(format!("/sizes/{size}").as_bytes(), &plain, size, content(size).as_slice())?;
        }
        let inode = writer.file(b"odd", &odd, 5000, content(5000).as_slice())?;
        writer.link(b"sizes/again", inode)?;
        writer.link(b"zzz", inode)?;
        writer.node(b"link", &Metadata::new(0o777), &Kind::Symlink(b"sizes/../odd".to_vec()))?;
        writer.node(b"long-link", &Metadata::new(0o777), &Kind::Symlink(vec![b'x'; 4095]))?;
        writer.node(b"dev/null", &Metadata::new(0o666), &Kind::CharDevice { major: 1, minor: 3 })?;
        writer.node(b"dev/disk", &Metadata::new(0o660), &Kind::BlockDevice { major: 259, minor: 300 })?;
        writer.node(b"dev/fifo", &plain, &Kind::Fifo)?;
        writer.node(b"dev/socket", &plain, &Kind::Socket)?;
        writer.node(b"dev/gone", &Metadata::new(0), &Kind::WHITEOUT)?;
        for number in 0..2000 {
            writer.file(
                format!("many/{number}-{}", "n".repeat(number % 90)).as_bytes(),
                &plain,
                0,
                &[][..],
            )?;
        }
        // Attributes that take several blocks, and a root that does not fit into the first one.
        odd.xattrs.insert(b"user.large".to_vec(), (0..10_000u32).map(|at| at.to_le_bytes()[0]).collect());
        writer.file(b"large", &odd, 5, &b"large"[..])?;
        for number in 0..100 {
            writer.link(format!("root-{number}-{}", "r".repeat(100)).as_bytes(), inode)?;
        }
        writer.directory(b"./many/", odd.clone())?;
        writer.file(&[b"many/".to_vec(), vec![b'\xfe'; 255]].concat(), &plain, 3, &b"abc"[..])?;
        writer.directory(b"", Metadata { mtime: 99, ..Metadata::new(0o711) })
    })
}

fn image(fill: impl FnOnce(&mut Writer<&mut Cursor<Vec<u8>>>) -> crate::error::Result<()>) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let mut writer = Writer::new(&mut out).unwrap();
    fill(&mut writer).unwrap();
    writer.finish().unwrap();
    out.into_inner()
}

fn content(size: u64) -> Vec<u8> {
    (0..size).map(|at| (at * 7 + at / 4096).to_le_bytes()[0]).collect()
}

fn read(image: &Image, path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let inode = image.find(path.as_bytes()).unwrap().unwrap_or_else(|| panic!("`{path}` is missing"));
    image.contents(&inode).read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn everything_is_read_back_as_it_was_written() {
    let image = Image::from_bytes(example()).unwrap();
    for size in [0u64, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8192, 300_000] {
        assert_eq!(read(&image, &format!("sizes/{size}")), content(size), "{size}");
    }
    let odd = image.find(b"odd").unwrap().unwrap();
    assert_eq!((odd.metadata.mode, odd.metadata.uid, odd.metadata.gid), (0o4751, 70_000, 12));
    assert_eq!((odd.metadata.mtime, odd.metadata.mtime_nsec), (1_700_000_000, 5));
    assert_eq!(odd.metadata.xattrs[b"user.note".as_slice()], b"kept");
    assert_eq!(odd.links, 103);
    assert_eq!(image.find(b"zzz").unwrap().unwrap().nid, odd.nid);
    let kind = |path: &str| image.find(path.as_bytes()).unwrap().unwrap().kind;
    assert_eq!(kind("long-link"), Kind::Symlink(vec![b'x'; 4095]));
    assert_eq!(kind("dev/null"), Kind::CharDevice { major: 1, minor: 3 });
    assert_eq!(kind("dev/disk"), Kind::BlockDevice { major: 259, minor: 300 });
    assert_eq!(kind("dev/gone"), Kind::WHITEOUT);
    assert_eq!(kind("dev/socket"), Kind::Socket);
    assert_eq!(image.find(b"link/x").unwrap(), None);
    assert_eq!(image.find(b"many/absent").unwrap(), None);
    let many = image.find(b"many").unwrap().unwrap();
    assert_eq!(image.list(&many).unwrap().len(), 2001);
    for number in 0..2000 {
        let name = format!("{number}-{}", "n".repeat(number % 90));
        assert!(image.lookup(&many, name.as_bytes()).unwrap().is_some(), "{name}");
    }
    assert_eq!(image.root().unwrap().metadata.mtime, 99);
}

#[test]
fn equal_trees_make_equal_images() {
    assert!(example() == example());
}

#[test]
fn an_empty_image_is_two_blocks_at_most() {
    let bytes = image(|_| Ok(()));
    assert!(bytes.len() <= 2 * 4096);
    let image = Image::from_bytes(bytes).unwrap();
    assert_eq!(image.list(&image.root().unwrap()).unwrap(), []);
}

#[test]
fn the_last_of_two_entries_at_one_path_wins() {
    let plain = Metadata::new(0o600);
    let bytes = image(|writer| {
        writer.file(b"a/file", &plain, 3, &b"old"[..])?;
        writer.file(b"a/file", &plain, 3, &b"new"[..])?;
        writer.file(b"becomes-folder", &plain, 3, &b"old"[..])?;
        writer.directory(b"becomes-folder", plain.clone())?;
        writer.file(b"becomes-file/below", &plain, 3, &b"old"[..])?;
        writer.file(b"becomes-file", &plain, 3, &b"new"[..])?;
        writer.file(b"removed/below", &plain, 3, &b"old"[..])?;
        assert!(matches!(writer.find(b"removed/below")?, Some(Found::Other(_))));
        writer.remove(b"removed")?;
        writer.remove(b"never/there")
    });
    let image = Image::from_bytes(bytes).unwrap();
    assert_eq!(read(&image, "a/file"), b"new");
    assert_eq!(read(&image, "becomes-file"), b"new");
    assert_eq!(image.find(b"becomes-folder").unwrap().unwrap().kind, Kind::Directory);
    assert_eq!(image.find(b"becomes-file/below").unwrap(), None);
    assert_eq!(image.find(b"removed").unwrap(), None);
    assert_eq!(image.find(b"a").unwrap().unwrap().metadata, Metadata::new(0o755));
}

#[test]
fn what_cannot_be_stored_is_refused_with_the_reason() {
    let mut out = Cursor::new(Vec::new());
    let mut writer = Writer::new(&mut out).unwrap();
    let plain = Metadata::new(0o644);
    let refused = |result: crate::error::Result<_>| result.map(|_| ()).unwrap_err().to_string();
    writer.file(b"file", &plain, 0, &[][..]).unwrap();
    let long = vec![b'n'; 256];
    let deep = b"d/".repeat(2049);
    for (path, reason) in [
        (b"a/../b".as_slice(), "the path contains `..`"),
        (b"a\0b", "the path contains a NUL byte"),
        (&long, "the path has a name of more than 255 bytes"),
        (&deep, "the path is longer than 4096 bytes"),
        (b"file/below", "`file` is not a folder"),
        (b"", "the root of a file system has to be a folder"),
    ] {
        assert_eq!(refused(writer.file(path, &plain, 0, &[][..])), reason);
    }
    let short = writer.file(b"short", &plain, 10, &b"nine left"[..]);
    assert_eq!(refused(short), "the contents end before the size that was announced");
    let huge = Kind::CharDevice { major: 5000, minor: 0 };
    assert!(refused(writer.node(b"dev", &plain, &huge)).contains("5000:0"));
}

#[test]
fn fsck_finds_nothing_wrong_and_extracts_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("image.erofs");
    std::fs::write(&file, example()).unwrap();
    let out = folder.path().join("out");
    let run = Command::new("fsck.erofs").arg(format!("--extract={}", out.display())).arg(&file).output();
    let Ok(output) = run else {
        return eprintln!("skipped: `fsck.erofs` of erofs-utils is not installed");
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read(out.join("odd")).unwrap(), content(5000));
    assert_eq!(std::fs::read(out.join("sizes/300000")).unwrap(), content(300_000));
    assert_eq!(std::fs::read_dir(out.join("many")).unwrap().count(), 2001);
}

#[test]
fn the_kernel_mounts_it_and_sees_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("image.erofs");
    std::fs::write(&file, example()).unwrap();
    let image = Image::open(&file).unwrap();
    let Some(mount) = Mount::new(&file, folder.path().join("mount")) else { return };
    let at = |path: &str| mount.0.join(path);
    for size in [0u64, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8192, 300_000] {
        assert_eq!(std::fs::read(at(&format!("sizes/{size}"))).unwrap(), content(size), "{size}");
    }
    let odd = std::fs::metadata(at("odd")).unwrap();
    assert_eq!((odd.mode(), odd.uid(), odd.gid(), odd.nlink()), (0o104_751, 70_000, 12, 103));
    assert_eq!((odd.mtime(), odd.mtime_nsec()), (1_700_000_000, 5));
    let mut value = [0; 4000];
    let length = rustix::fs::getxattr(at("odd"), "trusted.other", &mut value).unwrap();
    assert_eq!(value[..length], [7; 3000]);
    assert_eq!(rustix::fs::getxattr(at("many"), "user.note", &mut value).unwrap(), 4);
    let mut large = vec![0; 20_000];
    for path in ["large", "many"] {
        let length = rustix::fs::getxattr(at(path), "user.large", &mut large).unwrap();
        assert_eq!(
            large[..length],
            image.find(path.as_bytes()).unwrap().unwrap().metadata.xattrs[b"user.large".as_slice()]
        );
    }
    assert_eq!(std::fs::read(at("large")).unwrap(), b"large");
    let in_root = image.list(&image.root().unwrap()).unwrap().len();
    assert_eq!(std::fs::read_dir(&mount.0).unwrap().count(), in_root);
    assert_eq!(std::fs::read(at(&format!("root-99-{}", "r".repeat(100)))).unwrap(), content(5000));
    assert_eq!(std::fs::read_link(at("long-link")).unwrap().as_os_str().len(), 4095);
    assert_eq!(std::fs::metadata(at("dev/disk")).unwrap().rdev(), rustix::fs::makedev(259, 300));
    assert!(std::fs::metadata(at("dev/fifo")).unwrap().file_type().is_fifo());
    assert!(std::fs::metadata(at("dev/socket")).unwrap().file_type().is_socket());
    assert_eq!(std::fs::read_dir(at("many")).unwrap().count(), 2001);
    for number in 0..2000 {
        let name = format!("many/{number}-{}", "n".repeat(number % 90));
        assert!(std::fs::metadata(at(&name)).is_ok(), "{name}");
    }
    assert_eq!(std::fs::metadata(&mount.0).unwrap().nlink(), 5);
}

/// A mounted image, unmounted when dropped.
struct Mount(std::path::PathBuf);

impl Mount {
    fn new(image: &Path, at: std::path::PathBuf) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can mount");
            return None;
        }
        std::fs::create_dir(&at).unwrap();
        let output = Command::new("mount").args(["-t", "erofs", "-o", "loop"]).arg(image).arg(&at).output();
        let output = output.unwrap();
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            // A sandbox may have neither loop devices nor EROFS; a broken image has both, and fails here.
            let capable = Path::new("/dev/loop-control").exists()
                && std::fs::read_to_string("/proc/filesystems").unwrap().contains("\terofs\n");
            assert!(!capable, "{reason}");
            eprintln!("skipped: this machine cannot mount: {reason}");
            return None;
        }
        Some(Self(at))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a process that another test is about to start has our files open until it runs.
        assert!(Command::new("umount").arg("--lazy").arg(&self.0).status().unwrap().success());
    }
}

/// A folder to add, or a file with this content.
type Added = (Vec<String>, Option<Vec<u8>>);

fn additions() -> impl Strategy<Value = Vec<Added>> {
    let path = prop::collection::vec("[a-c+.-]{1,3}|[a-z]{200}", 1..4);
    let content = prop::option::of(prop::collection::vec(any::<u8>(), 0..9000));
    prop::collection::vec((path, content), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_tree_is_read_back(additions in additions()) {
        let mut expected: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
        let bytes = image(|writer| {
            for (names, content) in &additions {
                let path = names.join("/");
                let added = match content {
                    Some(content) => {
                        let (plain, size) = (Metadata::new(0o600), content.len() as u64);
                        writer.file(path.as_bytes(), &plain, size, content.as_slice()).map(|_| ())
                    }
                    None => writer.directory(path.as_bytes(), Metadata::new(0o700)),
                };
                let names: Vec<_> = names.iter().map(String::as_str).filter(|name| *name != ".").collect();
                if added.is_err() || names.is_empty() {
                    continue;
                }
                let path = names.join("/");
                if content.is_some() || expected.get(&path).is_some_and(Option::is_some) {
                    expected.retain(|known, _| *known != path && !known.starts_with(&format!("{path}/")));
                }
                for end in 1..names.len() {
                    expected.entry(names[..end].join("/")).or_insert(None);
                }
                expected.insert(path, content.clone());
            }
            Ok(())
        });
        let image = Image::from_bytes(bytes).unwrap();
        let mut found = BTreeMap::new();
        let mut waiting = vec![String::new()];
        while let Some(path) = waiting.pop() {
            let folder = image.find(path.as_bytes()).unwrap().unwrap();
            for entry in image.list(&folder).unwrap() {
                let name = String::from_utf8(entry.name).unwrap();
                let path = if path.is_empty() { name } else { format!("{path}/{name}") };
                let inode = image.find(path.as_bytes()).unwrap().unwrap();
                if inode.kind == Kind::Directory {
                    waiting.push(path.clone());
                    found.insert(path, None);
                } else {
                    found.insert(path.clone(), Some(read(&image, &path)));
                }
            }
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_damaged_image_is_an_error_or_other_content_but_never_a_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)
    ) {
        let mut bytes = image(|writer| {
            let odd = Metadata { xattrs: [(b"user.a".to_vec(), vec![1; 50])].into(), ..Metadata::new(0o755) };
            writer.file(b"a/file", &odd, 5000, content(5000).as_slice())?;
            writer.node(b"a/link", &odd, &Kind::Symlink(b"file".to_vec()))?;
            writer.directory(b"b", odd)
        });
        for (at, value) in flips {
            // The first block is protected by its checksum: damage what is behind it.
            let at = 4096 + at.index(bytes.len() - 4096);
            bytes[at] = value;
        }
        let Ok(image) = Image::from_bytes(bytes) else { return Ok(()) };
        for path in ["a/file", "a/link", "b", "b/none"] {
            let Ok(Some(inode)) = image.find(path.as_bytes()) else { continue };
            let mut sink = Vec::new();
            if let Err(error) = image.contents(&inode).read_to_end(&mut sink) {
                prop_assert!(error.to_string().contains("damaged"));
            }
            if let Err(error) = image.list(&inode) {
                prop_assert!(error.to_string().contains("damaged"));
            }
        }
    }
}

#[test]
fn damage_in_the_first_block_is_noticed_when_the_image_is_opened() {
    let bytes = example();
    for at in [1024, 1028, 1038, 1060, 1152, 2000, 4095] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(Image::from_bytes(damaged).is_err(), "byte {at}");
    }
    assert!(Image::from_bytes(bytes[..bytes.len() - 1].to_vec()).is_err());
    assert!(Image::from_bytes(Vec::new()).is_err());
}
