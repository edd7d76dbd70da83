//! No damage to an archive, or to an image made of one, makes a reader panic or run on.

use std::fs;

use super::*;
use crate::artifact::erofs::{Codec, Compression};
use crate::layer::damage::COMPRESSION;
use crate::mutation::feed;

/// Those of other readers' tests, and some with what ours takes.
fn archives() -> Vec<Vec<u8>> {
    let corpus = readers::archives().into_iter().map(|path| fs::read(path).unwrap());
    corpus.chain((0..20).map(|_| ordinary())).collect()
}

fn ordinary() -> Vec<u8> {
    Archive::default()
        .folder("a/")
        .pax(&[("path", b"a/b"), ("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b"), ("size", b"4")])
        .file("x", "data")
        .add(EntryType::GNULongName, "l", "", b"long/name\0")
        .link("l", "a")
        .file("l/below", "x")
        .hard_link("h", "a/b")
        .file("a/.wh.c", "")
        .file("etc/.wh..wh..opq", "")
        .file("large", &"abcdefgh".repeat(3000))
        .end()
}

#[test]
fn no_archive_makes_the_reader_panic() {
    feed("tar", &archives());
}

#[test]
fn no_image_makes_its_reader_panic() {
    let packed = |codec| {
        let mut image = Cursor::new(Vec::new());
        let writer = Writer::compressed(&mut image, Compression { codec, ..COMPRESSION }, None).unwrap();
        let (bytes, lower) = (ordinary(), Tree::default());
        let input = Input { tar: &bytes[..], lower: &|| Ok(&lower), limits: Limits::default() };
        convert(input, writer).unwrap();
        image.into_inner()
    };
    let plain = converted(&ordinary(), &Tree::default()).unwrap().1;
    feed("erofs", &[plain, packed(Codec::Lz4), packed(Codec::Zstd)]);
}
