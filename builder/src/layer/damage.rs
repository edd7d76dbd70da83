//! How layers and their images are read when damaged inputs are fed to the readers.

use std::cell::OnceCell;
use std::io::{self, Cursor, Read as _};

use tar::{EntryType, Header};

use super::{Input, Tree, convert, names};
use crate::artifact::erofs::{Codec, Compression, Image, Pool, Writer};
use crate::error::{Context as _, Result};
use crate::fuzz::{self, Reader};
use crate::oci::limits::Limits;

/// The readers.
pub const READERS: &[Reader] = &[
    Reader { name: "tar", mend: |input| fuzz::mend_sums(input), read: read_archive },
    Reader { name: "erofs", mend: mend_length, read: read_image },
];

/// How images are compressed here: with clusters so small that short files have several.
pub const COMPRESSION: Compression = Compression { codec: Codec::Lz4, level: 1, cluster: 16 << 10 };

/// What lies below: a root file system as distributions have it, where `/bin` is a link.
const LOWER: &[(EntryType, &str, &str)] = &[
    (EntryType::Directory, "srv/www/", ""),
    (EntryType::Regular, "srv/www/index.html", ""),
    (EntryType::Directory, "usr/bin/", ""),
    (EntryType::Regular, "usr/bin/sh", ""),
    (EntryType::Symlink, "bin", "usr/bin"),
    (EntryType::Symlink, "loop", "loop"),
    (EntryType::Symlink, "out", "../../../../srv"),
    (EntryType::Symlink, "abs", "/srv/www"),
    (EntryType::Regular, "etc/passwd", ""),
];

/// What every archive is converted with.
struct Bench {
    lower: Tree,
    pool: Pool,
}

thread_local! {
    static BENCH: OnceCell<Bench> = const { OnceCell::new() };
}

/// Images are whole blocks.
fn mend_length(input: &mut Vec<u8>) {
    input.resize(input.len().next_multiple_of(4096), 0);
}

fn bench() -> Result<Bench> {
    let mut archive = tar::Builder::new(Vec::new());
    for (kind, name, target) in LOWER {
        let mut header = Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_size(0);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let append = match kind {
            EntryType::Symlink => archive.append_link(&mut header, name, target),
            _ => archive.append_data(&mut header, name, &b""[..]),
        };
        append.doing(|| "make an archive")?;
    }
    let archive = archive.into_inner().doing(|| "make an archive")?;
    let lower = one_layer(converted(&archive, &Tree::default(), None)?)?;
    Ok(Bench { lower, pool: Pool::new(COMPRESSION, Some(1), 1)? })
}

fn one_layer(image: Vec<u8>) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.push(Image::from_bytes(image)?);
    Ok(tree)
}

fn converted(tar: &[u8], lower: &Tree, pool: Option<&Pool>) -> Result<Vec<u8>> {
    let mut out = Cursor::new(Vec::new());
    let writer = match pool {
        Some(pool) => Writer::packed(&mut out, pool)?,
        None => Writer::new(&mut out)?,
    };
    convert(Input { tar, lower: &|| Ok(lower), limits: Limits::default() }, writer)?;
    Ok(out.into_inner())
}

/// Converts an archive, upon a lower layer. What is taken can be read back, compressed or not.
fn read_archive(input: &[u8]) {
    BENCH.with(|made| {
        let Bench { lower, pool } =
            made.get_or_init(|| bench().unwrap_or_else(|error| panic!("there is no lower layer: {error}")));
        let Ok(plain) = converted(input, lower, None) else { return };
        let packed = converted(input, lower, Some(pool));
        for image in [Ok(plain), packed] {
            let walked = image.and_then(one_layer).and_then(|tree| walk(&tree));
            walked.unwrap_or_else(|error| panic!("an archive that was taken cannot be read back: {error}"));
        }
    });
}

/// Damage is found when it is met.
fn read_image(input: &[u8]) {
    drop(one_layer(input.to_vec()).and_then(|tree| walk(&tree)));
}

/// Looks at everything that an image has. Contents that cannot be read do not end it, but are an error in the end.
fn walk(tree: &Tree) -> Result<()> {
    let mut contents_read = Ok(());
    let mut waiting: Vec<_> = tree.find(b"")?.into_iter().collect();
    // A damaged folder can contain itself, and each path is walked from the root.
    for _ in 0..100 {
        let Some(folder) = waiting.pop() else { break };
        for name in tree.list(&folder)? {
            let path = names::joined(&folder.path, &name);
            let Some(found) = tree.find_exactly(&path)? else { continue };
            if let Some(contents) = tree.contents(&found) {
                let read = io::copy(&mut contents.take(1 << 17), &mut io::sink());
                contents_read = contents_read.and(read.map(drop).doing(|| "read the contents of a file"));
            }
            // A link may lead in circles.
            drop(tree.find(&path));
            waiting.push(found);
        }
    }
    contents_read
}
