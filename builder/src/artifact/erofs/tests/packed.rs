//! Compressed images: what comes out is what went in, by our own reader, `fsck.erofs` and the kernel.

use std::fmt::Debug;

use proptest::prelude::*;

use Stuff::{Noise, Text, Zeros};

use super::*;
use crate::artifact::erofs::{Codec, Compression};

const LZ4: Compression = Compression::usual(Codec::Lz4);
const ZSTD: Compression = Compression::usual(Codec::Zstd);

/// What a piece of a file is made of.
#[derive(Debug, Clone, Copy)]
pub enum Stuff {
    Zeros,
    Text,
    Noise,
}

fn stuff(stuff: Stuff, length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut noise = || {
        // xorshift64: nothing that a codec could find a pattern in.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    match stuff {
        Zeros => vec![0; length],
        Noise => (0..length).map(|_| noise().to_le_bytes()[3]).collect(),
        Text => {
            let mut text = Vec::new();
            while text.len() < length {
                text.extend(format!("line {} of the file\n", noise() % 5000).bytes());
            }
            text.truncate(length);
            text
        }
    }
}

/// A file of these pieces.
pub fn pieces(pieces: &[(Stuff, usize)]) -> Vec<u8> {
    pieces.iter().zip(1..).flat_map(|((kind, length), seed)| stuff(*kind, *length, seed * 7919)).collect()
}

/// Files whose sizes lie around every edge that there is: of blocks, inodes, clusters and segments.
fn files() -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let sizes = [
        0, 1, 96, 97, 500, 4008, 4031, 4032, 4033, 4095, 4096, 4097, 5000, 8191, 8192, 8193, 12_288, 65_535,
        65_536, 65_537, 200_000, 1_048_575, 1_048_576, 1_048_577, 3_000_001,
    ];
    for size in sizes {
        for kind in [Zeros, Text, Noise] {
            files.insert(format!("{kind:?}-{size}").to_lowercase(), pieces(&[(kind, size)]));
        }
    }
    let mixed: [&[(Stuff, usize)]; 6] = [
        &[(Noise, 100_000), (Text, 100_000), (Noise, 99)],
        &[(Text, 70_001), (Noise, 70_001), (Zeros, 70_001)],
        &[(Zeros, 2_000_000), (Noise, 4000)],
        &[(Noise, 4096), (Zeros, 4096), (Noise, 4096), (Zeros, 10)],
        &[(Text, 1_048_000), (Noise, 1000), (Text, 5)],
        &[(Noise, 40_960), (Text, 3000)],
    ];
    for (number, parts) in mixed.iter().enumerate() {
        files.insert(format!("mixed-{number}"), pieces(parts));
    }
    files
}

fn packed(compression: Compression, threads: usize, files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let mut writer = Writer::compressed(&mut out, compression, Some(threads)).unwrap();
    let mut attributed = Metadata { uid: 70_000, ..Metadata::new(0o4751) };
    attributed.xattrs.insert(b"user.note".to_vec(), vec![b'n'; 1501]);
    for (number, (name, bytes)) in files.iter().enumerate() {
        let metadata = if number % 5 == 0 { attributed.clone() } else { Metadata::new(0o644) };
        let inode = writer.file(name.as_bytes(), &metadata, bytes.len() as u64, bytes.as_slice()).unwrap();
        writer.link(format!("again/{name}").as_bytes(), inode).unwrap();
        writer.node(format!("link/{name}").as_bytes(), &metadata, &Kind::Symlink(b"x".to_vec())).unwrap();
    }
    writer.node(b"gone", &Metadata::new(0), &Kind::WHITEOUT).unwrap();
    writer.directory(b"", Metadata { mtime: 99, ..Metadata::new(0o711) }).unwrap();
    writer.finish().unwrap();
    out.into_inner()
}

/// Every way to compress that differs in what is written.
pub fn ways() -> Vec<Compression> {
    let sizes = [4 << 10, 16 << 10, 64 << 10, 256 << 10];
    let mut ways: Vec<_> = sizes.into_iter().map(|cluster| Compression { cluster, ..LZ4 }).collect();
    ways.push(Compression { level: 1, ..LZ4 });
    ways.push(Compression { level: 12, ..LZ4 });
    ways.extend(sizes.into_iter().map(|cluster| Compression { cluster, level: 3, ..ZSTD }));
    ways.push(Compression { level: 19, ..ZSTD });
    ways
}

/// Compares without printing megabytes.
pub fn assert_same(found: &[u8], expected: &[u8], what: impl Debug) {
    assert!(found == expected, "{what:?}: {} bytes for {}", found.len(), expected.len());
}

#[test]
fn compressed_files_are_read_back() {
    let files = files();
    for way in ways() {
        let image = Image::from_bytes(packed(way, 4, &files)).unwrap();
        for (name, bytes) in &files {
            assert_same(&read(&image, &format!("again/{name}")), bytes, (name, way));
        }
        let inode = image.find(b"again/text-200000").unwrap().unwrap();
        assert_eq!((inode.links, inode.kind), (2, Kind::File { size: 200_000 }));
        assert_eq!(image.find(b"gone").unwrap().unwrap().kind, Kind::WHITEOUT);
    }
}

#[test]
fn the_bytes_are_the_same_for_any_number_of_threads() {
    let files = files();
    for way in [LZ4, Compression { cluster: 16 << 10, level: 3, ..LZ4 }, ZSTD] {
        let one = packed(way, 1, &files);
        for threads in [2, 7] {
            assert_same(&packed(way, threads, &files), &one, (way, threads));
        }
    }
}

#[test]
fn fsck_extracts_compressed_files() {
    let files = files();
    let folder = tempfile::tempdir().unwrap();
    // erofs-utils knows zstd from 1.8 on.
    for (number, way) in ways().into_iter().filter(|way| way.codec == Codec::Lz4).enumerate() {
        let file = folder.path().join(format!("{number}.erofs"));
        std::fs::write(&file, packed(way, 4, &files)).unwrap();
        let out = folder.path().join(number.to_string());
        let run = Command::new("fsck.erofs").arg(format!("--extract={}", out.display())).arg(&file).output();
        let Ok(output) = run else {
            return eprintln!("skipped: `fsck.erofs` of erofs-utils is not installed");
        };
        assert!(output.status.success(), "{way:?}: {}", String::from_utf8_lossy(&output.stderr));
        for (name, bytes) in &files {
            assert_same(&std::fs::read(out.join(name)).unwrap(), bytes, (name, way));
        }
    }
}

#[test]
fn the_kernel_reads_compressed_files_whole_and_in_pieces() {
    use std::os::unix::fs::FileExt as _;

    let files = files();
    let folder = tempfile::tempdir().unwrap();
    // Linux reads zstd from 6.10 on, where it was asked to.
    let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let reads = |way: &Compression| way.codec == Codec::Lz4 || symbols.contains("z_erofs_zstd_decompress");
    for (number, way) in ways().into_iter().filter(reads).enumerate() {
        let file = folder.path().join(format!("{number}.erofs"));
        std::fs::write(&file, packed(way, 4, &files)).unwrap();
        let Some(mount) = Mount::new(&file, folder.path().join(number.to_string())) else { return };
        for (name, bytes) in files.iter().rev() {
            let file = std::fs::File::open(mount.0.join(name)).unwrap();
            // The end first: nothing of what is before it has been read then.
            let at = bytes.len().saturating_sub(777);
            let mut end = vec![0; bytes.len() - at];
            file.read_exact_at(&mut end, at as u64).unwrap();
            assert_same(&end, &bytes[at..], (name, way, "end"));
            assert_same(&std::fs::read(mount.0.join(name)).unwrap(), bytes, (name, way));
        }
        let mut value = [0; 2000];
        let first = mount.0.join(files.keys().next().unwrap());
        assert_eq!(rustix::fs::getxattr(first, "user.note", &mut value).unwrap(), 1501);
    }
}

#[test]
fn what_cannot_be_compressed_takes_no_more_than_it_would_uncompressed() {
    for size in [10, 3000, 4032, 4096, 70_000, 2_000_000] {
        let noise = pieces(&[(Noise, size)]);
        let write = |writer: &mut Writer<&mut Cursor<Vec<u8>>>| {
            writer.file(b"noise", &Metadata::new(0o644), size as u64, noise.as_slice()).map(|_| ())
        };
        let mut out = Cursor::new(Vec::new());
        let mut writer = Writer::compressed(&mut out, LZ4, None).unwrap();
        write(&mut writer).unwrap();
        writer.finish().unwrap();
        assert_eq!(out.into_inner().len(), image(write).len(), "{size}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_files_survive(
        parts in prop::collection::vec(
            prop::collection::vec(
                (prop_oneof![Just(Zeros), Just(Text), Just(Noise)], 0usize..90_000), 0..5),
            1..6),
        way in prop::sample::select(ways()),
    ) {
        let files = parts.iter().enumerate().map(|(n, parts)| (format!("f{n}"), pieces(parts))).collect();
        let image = Image::from_bytes(packed(way, 3, &files)).unwrap();
        for (name, bytes) in &files {
            prop_assert!(read(&image, name) == *bytes, "{}", name);
        }
    }

    #[test]
    fn a_damaged_compressed_image_is_an_error_or_other_content_but_never_a_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)
    ) {
        let small = [(Text, 9000), (Noise, 5000), (Text, 900)];
        let files = [("a".to_owned(), pieces(&small)), ("b".to_owned(), pieces(&small[..1]))].into();
        let mut bytes = packed(LZ4, 1, &files);
        for (at, value) in flips {
            let at = 4096 + at.index(bytes.len() - 4096);
            bytes[at] = value;
        }
        let Ok(image) = Image::from_bytes(bytes) else { return Ok(()) };
        for path in ["a", "b", "again/a", "link/a"] {
            let Ok(Some(inode)) = image.find(path.as_bytes()) else { continue };
            if let Err(error) = image.contents(&inode).read_to_end(&mut Vec::new()) {
                prop_assert!(error.to_string().contains("damaged"), "{}", error);
            }
        }
    }
}
