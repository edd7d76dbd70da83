//! Files with the same contents: stored once, and still each its own.

use super::packed::Stuff::{Noise, Text, Zeros};
use super::packed::{Stuff, assert_same, pieces, ways};
use super::*;
use crate::artifact::erofs::Compression;

/// Contents on both sides of every edge that sharing has: a block, what stands behind an inode, a segment.
fn contents() -> Vec<Vec<u8>> {
    let pieces_of: [&[(Stuff, usize)]; 14] = [
        &[(Text, 500)],
        &[(Text, 4096)],
        &[(Text, 4097)],
        &[(Text, 12_000)],
        &[(Text, 300_000)],
        &[(Text, 1_048_576)],
        &[(Text, 1_048_577)],
        &[(Text, 3_000_001)],
        &[(Noise, 4096)],
        &[(Noise, 4096), (Zeros, 4090)],
        &[(Noise, 50_001)],
        &[(Noise, 2_000_010)],
        &[(Text, 90_000), (Noise, 90_000), (Text, 2500)],
        &[(Zeros, 1_500_000), (Noise, 4050)],
    ];
    pieces_of.iter().map(|of| pieces(of)).collect()
}

/// An image that has all contents so many times, with metadata that leave little or much room behind an inode.
fn copies(compression: Option<Compression>, times: usize, contents: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let mut writer = match compression {
        None => Writer::new(&mut out),
        Some(compression) => Writer::compressed(&mut out, compression, Some(2)),
    }
    .unwrap();
    for time in 0..times {
        for (number, bytes) in contents.iter().enumerate() {
            let mut metadata = Metadata { uid: u32::try_from(time).unwrap(), ..Metadata::new(0o644) };
            // Uncompressed, a file whose end is behind its inode and one whose end is not have other blocks.
            let is_mixed = compression.is_some();
            if (number + if is_mixed { time } else { 1 }) % 3 == 0 {
                metadata.xattrs.insert(b"user.note".to_vec(), vec![b'n'; 3000]);
            }
            let path = format!("{time}/{number}");
            writer.file(path.as_bytes(), &metadata, bytes.len() as u64, bytes.as_slice()).unwrap();
        }
    }
    writer.finish().unwrap();
    out.into_inner()
}

/// Every way to store files that differs in what is shared: how hard it is tried to compress does not.
fn all_ways() -> impl Iterator<Item = Option<Compression>> {
    let usual = |way: &Compression| way.level == Compression::usual(way.codec).level;
    [None].into_iter().chain(ways().into_iter().filter(usual).map(Some))
}

#[test]
fn copies_are_read_back_by_everybody() {
    let contents = contents();
    let folder = tempfile::tempdir().unwrap();
    for (number, way) in all_ways().enumerate() {
        let bytes = copies(way, 3, &contents);
        let file = folder.path().join(format!("{number}.erofs"));
        std::fs::write(&file, &bytes).unwrap();
        let image = Image::from_bytes(bytes).unwrap();
        let extracted = folder.path().join(format!("{number}-fsck"));
        let is_zstd = way.is_some_and(|way| way.codec == crate::artifact::erofs::Codec::Zstd);
        let fsck =
            Command::new("fsck.erofs").arg(format!("--extract={}", extracted.display())).arg(&file).output();
        let mount =
            if is_zstd { None } else { Mount::new(&file, folder.path().join(format!("{number}-mount"))) };
        for time in 0..3 {
            for (number, expected) in contents.iter().enumerate() {
                let path = format!("{time}/{number}");
                assert_same(&read(&image, &path), expected, (&path, way));
                if let (Ok(fsck), false) = (&fsck, is_zstd) {
                    assert!(fsck.status.success(), "{way:?}: {}", String::from_utf8_lossy(&fsck.stderr));
                    assert_same(
                        &std::fs::read(extracted.join(&path)).unwrap(),
                        expected,
                        (&path, way, "fsck"),
                    );
                }
                if let Some(mount) = &mount {
                    let found = mount.0.join(&path);
                    assert_same(&std::fs::read(&found).unwrap(), expected, (&path, way, "kernel"));
                    assert_eq!(std::fs::metadata(found).unwrap().uid(), time, "{path}: its owner is its own");
                }
            }
        }
    }
}

#[test]
fn a_copy_costs_its_inode_and_what_stands_behind_it() {
    let contents = contents();
    for way in all_ways() {
        let [one, two, four] = [1, 2, 4].map(|times| copies(way, times, &contents).len());
        // An inode of a file has at most 3,000 bytes of attributes here, a block behind it or for its end, and an index of
        // eight bytes a block: 9 KiB for the longest.
        let most = contents.len() * 3 * 4096 + 4 * 9 * 1024;
        assert!(two - one < most && four - two < 2 * most, "{way:?}: {one}, {two} and {four} bytes");
    }
}

#[test]
fn an_image_ends_where_its_superblock_says_when_its_last_file_was_a_copy() {
    for way in [None, Some(Compression::usual(crate::artifact::erofs::Codec::Lz4))] {
        let bytes = copies(way, 2, &[pieces(&[(Noise, 3_000_000)])]);
        assert!(bytes.len() < 3_200_000, "{} bytes", bytes.len());
        assert_same(&read(&Image::from_bytes(bytes).unwrap(), "1/0"), &pieces(&[(Noise, 3_000_000)]), way);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_files_with_copies_in_any_order_survive(
        kinds in prop::collection::vec(
            prop::collection::vec(
                (prop_oneof![Just(Zeros), Just(Text), Just(Noise)], 0usize..60_000), 0..4),
            1..4),
        order in prop::collection::vec((any::<prop::sample::Index>(), 0usize..4090), 1..12),
        way in prop::sample::select(all_ways().collect::<Vec<_>>()),
    ) {
        let kinds: Vec<_> = kinds.iter().map(|kind| pieces(kind)).collect();
        let mut out = Cursor::new(Vec::new());
        let writer = match way {
            None => Writer::new(&mut out),
            Some(way) => Writer::compressed(&mut out, way, Some(2)),
        };
        let mut writer = writer.unwrap();
        for (at, (kind, note)) in order.iter().enumerate() {
            let bytes = kind.get(&kinds);
            let mut metadata = Metadata::new(0o644);
            metadata.xattrs.insert(b"user.note".to_vec(), vec![b'n'; *note]);
            writer.file(format!("{at}").as_bytes(), &metadata, bytes.len() as u64, bytes.as_slice()).unwrap();
        }
        writer.finish().unwrap();
        let image = Image::from_bytes(out.into_inner()).unwrap();
        for (at, (kind, _)) in order.iter().enumerate() {
            prop_assert!(read(&image, &format!("{at}")) == *kind.get(&kinds), "{}", at);
        }
    }
}
