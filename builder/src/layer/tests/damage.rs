//! No damage to an archive, or to an image made of one, makes a reader panic or run on.

use std::fs;
use std::path::Path;

use super::*;
use crate::artifact::erofs::{Codec, Compression};
use crate::mutation::feed;

/// Go's own corpus, and archives with what ours takes.
fn archives() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tar");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path| fs::read(path).unwrap();
    let corpus = paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "tar")).map(read);
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

/// Gives every block that could be a header the checksum that it needs.
fn mend(input: &mut [u8]) {
    for block in input.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            let mut header = tar::Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
}

/// Looks at everything that an image has.
fn walk(tree: &Tree) -> Result<()> {
    let mut waiting: Vec<_> = tree.find(b"")?.into_iter().collect();
    // A damaged folder can contain itself, and each path is walked from the root.
    for _ in 0..100 {
        let Some(folder) = waiting.pop() else { break };
        for name in tree.list(&folder)? {
            let path = crate::layer::names::joined(&folder.path, &name);
            let Some(found) = tree.find_exactly(&path)? else { continue };
            if let Some(contents) = tree.contents(&found) {
                // An error is as good as the end.
                drop(std::io::copy(&mut contents.take(1 << 20), &mut std::io::sink()));
            }
            drop(tree.find(&path)?);
            waiting.push(found);
        }
    }
    Ok(())
}

#[test]
fn no_archive_makes_the_reader_panic() {
    let base = base();
    feed(
        "tar",
        &archives(),
        |input| mend(input),
        |input| {
            if let Ok((_, image)) = converted(input, &base) {
                let tree = Tree::new(vec![Image::from_bytes(image).unwrap()]);
                walk(&tree).unwrap();
            }
        },
    );
}

#[test]
fn no_image_makes_its_reader_panic() {
    let plain = converted(&ordinary(), &Tree::default()).unwrap().1;
    let mut packed = Cursor::new(Vec::new());
    let compression = Compression { codec: Codec::Lz4, level: 1, cluster: 16 << 10 };
    let writer = Writer::compressed(&mut packed, compression, None).unwrap();
    let bytes = ordinary();
    let lower = Tree::default();
    let input = Input { tar: &bytes[..], lower: &|| Ok(&lower), limits: Limits::default() };
    convert(input, writer).unwrap();
    let images = [plain, packed.into_inner()];
    let mend = |image: &mut Vec<u8>| image.resize(image.len().next_multiple_of(4096), 0);
    feed("erofs", &images, mend, |image| {
        // Damage is found when it is met.
        drop(Image::from_bytes(image.to_vec()).and_then(|image| walk(&Tree::new(vec![image]))));
    });
}
