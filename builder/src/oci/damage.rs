//! How images are read when damaged inputs are fed to the readers.

use std::io::{self, Cursor};
use std::sync::Arc;

use super::archive::Archive;
use super::compression::Compression;
use super::descriptor::Digest;
use super::docker::Saved;
use super::document::{self, Index, Manifest};
use super::limits::Limits;
use super::reference::Selector;
use super::stream::{Expected, TarStream};
use crate::fuzz::{self, Reader};

/// The readers.
pub const READERS: &[Reader] = &[
    Reader { name: "document", mend: |_| {}, read: read_document },
    Reader { name: "gzip", mend: |_| {}, read: |input| read_blob(input, Compression::Gzip) },
    Reader { name: "zstd", mend: |_| {}, read: |input| read_blob(input, Compression::Zstd) },
    Reader { name: "image-archive", mend: |input| fuzz::mend_sums(input), read: read_archive },
];

/// What a blob may inflate to here: inputs are to be many rather than large.
const LIMITS: Limits = Limits { size: 4 << 20, ratio: 1000, entries: 1000 };

fn read_document(input: &[u8]) {
    drop(document::check_type(input, "application/vnd.oci.image.manifest.v1+json", "it"));
    if let Ok(index) = Index::parse(input, "it") {
        index.manifests.iter().for_each(|descriptor| drop(document::kind(descriptor)));
    }
    if let Ok(manifest) = Manifest::parse(input, "it") {
        manifest.layers.iter().for_each(|layer| drop(document::compression(layer)));
    }
    drop(document::parse_config(input, "it"));
}

fn read_blob(input: &[u8], compression: Compression) {
    let expected = Expected {
        name: "layer".to_owned(),
        // The digest is the input's own, so that all of it is decoded.
        blob: Some(Digest::of(input)),
        compression,
        diff_id: Digest::of(b""),
        limits: LIMITS,
        total: Arc::default(),
    };
    if let Ok(mut stream) = TarStream::new(Box::new(Cursor::new(input.to_vec())), expected) {
        drop(io::copy(&mut stream, &mut io::sink()));
    }
}

fn read_archive(input: &[u8]) {
    let Ok(archive) = Archive::from_bytes(input) else { return };
    for name in ["oci-layout", "index.json", "b/layer.tar", "../x"] {
        if let Ok(Some(file)) = archive.file(name) {
            drop(file.read(document::LIMIT, name));
        }
    }
    drop(Saved::open(archive, &Selector::Only));
}
