//! The documents of an image: how they are had, index and manifest, and which media types are understood.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::archive::Extent;
use super::compression::Compression;
use super::descriptor::{Descriptor, Digest, Platform, null_is_default};
use super::image::ImageConfig;
use crate::error::{Context, Error, Result};
use crate::store::Store;

/// The largest document that is read, which is also the largest that registries take.
pub const LIMIT: u64 = 4 << 20;

/// How deep a document may be nested. Those that tools write are nested six deep.
const DEPTH: usize = 64;

/// The most layers that an image may have. overlayfs takes 500, and Docker makes no more than 127.
pub const LAYERS_MAX: usize = 512;

const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

const LAYERS: [(&str, Compression); 6] = [
    ("application/vnd.oci.image.layer.v1.tar", Compression::None),
    ("application/vnd.oci.image.layer.v1.tar+gzip", Compression::Gzip),
    ("application/vnd.oci.image.layer.v1.tar+zstd", Compression::Zstd),
    ("application/vnd.docker.image.rootfs.diff.tar", Compression::None),
    ("application/vnd.docker.image.rootfs.diff.tar.gzip", Compression::Gzip),
    ("application/vnd.docker.image.rootfs.diff.tar.zstd", Compression::Zstd),
];

/// What a descriptor in an index leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Another index.
    Index,
    /// An image.
    Manifest,
}

/// A list of images: those of a layout, or one image for several platforms.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    schema_version: u32,
    media_type: Option<String>,
    /// What is in it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Index => "the index",
            Self::Manifest => "the manifest",
        })
    }
}

/// What a document says of its own type.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: Option<String>,
}

/// An image: its configuration and its layers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u32,
    media_type: Option<String>,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, the lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
    manifests: Option<IgnoredAny>,
}

impl Index {
    /// Reads an index; `what` names it.
    pub fn parse(bytes: &[u8], what: &str) -> Result<Self> {
        let index: Self = parse(bytes, what)?;
        check(what, index.schema_version, index.media_type.as_deref(), &INDEXES)?;
        // One document that two readers take for two things could hide an image from the one that checks it.
        if index.layers.is_some() || index.config.is_some() {
            return Err(Error::new(format!("{what} is both an index and a manifest")));
        }
        Ok(index)
    }
}

impl Manifest {
    /// Reads a manifest; `what` names it. Its configuration and its layers are of types that are understood.
    pub fn parse(bytes: &[u8], what: &str) -> Result<Self> {
        let manifest: Self = parse(bytes, what)?;
        check(what, manifest.schema_version, manifest.media_type.as_deref(), &MANIFESTS)?;
        if manifest.manifests.is_some() {
            return Err(Error::new(format!("{what} is both a manifest and an index")));
        }
        let config = &manifest.config.media_type;
        if !CONFIGS.contains(&config.as_str()) {
            return Err(Error::new(format!(
                "{what} is of no container image: its configuration is of the type `{}`",
                config.escape_debug()
            )));
        }
        Ok(manifest)
    }
}

/// Reads an image configuration; `what` names it. It is one for this platform.
pub fn parse_config(bytes: &[u8], what: &str) -> Result<ImageConfig> {
    let config: ImageConfig = parse(bytes, what)?;
    // Images that were made by hand may say nothing.
    let said = |said: &str, default: &str| if said.is_empty() { default } else { said }.to_owned();
    let platform = Platform {
        os: said(&config.os, Platform::OS),
        architecture: said(&config.architecture, Platform::ARCHITECTURE),
    };
    if !platform.is_ours() {
        let (os, architecture) = (Platform::OS, Platform::ARCHITECTURE);
        return Err(Error::new(format!("it is an image for {platform}, not for {os}/{architecture}")));
    }
    Ok(config)
}

/// Checks that a document is of the type that its descriptor says: one that was pinned as a manifest could else be
/// read as something else by another program.
pub fn check_type(bytes: &[u8], descriptors: &str, what: &str) -> Result<()> {
    let Typed { media_type } = parse(bytes, what)?;
    match media_type.filter(|own| !own.is_empty() && own != descriptors) {
        None => Ok(()),
        Some(own) => {
            let (own, descriptors) = (own.escape_debug(), descriptors.escape_debug());
            Err(Error::new(format!(
                "{what} says that it is of the type `{own}`, its descriptor `{descriptors}`"
            )))
        }
    }
}

/// The digests of an image's layers are not too many.
pub fn check_layers(count: usize) -> Result<()> {
    if count <= LAYERS_MAX {
        return Ok(());
    }
    Err(Error::new(format!("it has {count} layers, more than the {LAYERS_MAX} allowed")))
}

/// How deep brackets stand one in another, strings passed over.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Reads a document; `what` names it.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    if depth(bytes) > DEPTH {
        return Err(Error::new(format!("{what} is nested deeper than {DEPTH}")));
    }
    serde_json::from_slice(bytes).doing(|| format!("read {what}"))
}

/// A document by its digest: from the store, else from where `find` finds it, and it is in the store afterwards.
/// Its digest is verified either way, and its size where a descriptor says one.
pub fn obtain(
    digest: &Digest,
    size: Option<u64>,
    store: &Store,
    find: impl FnOnce() -> Result<Extent>,
) -> Result<Vec<u8>> {
    let (is_kept, bytes) = match store.read_blob(digest, LIMIT)? {
        Some(bytes) => (true, bytes),
        None => (false, find()?.read(LIMIT, &format!("blob `{digest}`"))?),
    };
    let found = bytes.len();
    if let Some(size) = size.filter(|&size| size != found as u64) {
        return Err(Error::new(format!("blob `{digest}` has {found} bytes, its descriptor says {size}")));
    }
    if !is_kept {
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(Error::new(format!(
                "blob `{digest}` is damaged: its bytes have the digest `{found}`"
            )));
        }
        store.insert_blob(&bytes)?;
    }
    Ok(bytes)
}

/// What a descriptor in an index leads to.
pub fn kind(descriptor: &Descriptor) -> Result<Kind> {
    let media_type = descriptor.media_type.as_str();
    if INDEXES.contains(&media_type) {
        Ok(Kind::Index)
    } else if MANIFESTS.contains(&media_type) {
        Ok(Kind::Manifest)
    } else {
        let (digest, media_type) = (descriptor.digest, media_type.escape_debug());
        Err(Error::new(format!("`{digest}` is of the type `{media_type}`, which is no image manifest")))
    }
}

/// How a layer is compressed, by its media type.
pub fn compression(layer: &Descriptor) -> Result<Compression> {
    let media_type = layer.media_type.as_str();
    if let Some(&(_, compression)) = LAYERS.iter().find(|(known, _)| *known == media_type) {
        return Ok(compression);
    }
    let shown = media_type.escape_debug();
    Err(Error::new(if media_type.ends_with("+encrypted") {
        format!("it is encrypted (type `{shown}`), which is not supported")
    } else if media_type.contains("nondistributable") || media_type.contains(".foreign.") {
        format!("it is to be had from its vendor only (type `{shown}`), which is not supported")
    } else {
        format!("it is of the unknown type `{shown}`")
    }))
}

fn check(what: &str, schema: u32, media_type: Option<&str>, known: &[&str]) -> Result<()> {
    if schema != 2 {
        return Err(Error::new(format!("{what} has schema version {schema}, only 2 is supported")));
    }
    match media_type {
        Some(media_type) if !media_type.is_empty() && !known.contains(&media_type) => {
            Err(Error::new(format!("{what} says that it is of the type `{}`", media_type.escape_debug())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_document_makes_its_reader_panic() {
        let digest = Digest::of(b"");
        let descriptor = |kind: &str| {
            format!(
                r#"{{"mediaType":"{kind}","digest":"{digest}","size":12,"annotations":{{"a":"b\\u00e4\\""}},
                "platform":{{"architecture":"amd64","os":"linux"}}}}"#
            )
        };
        let (manifest, config, layer) =
            (descriptor(MANIFESTS[0]), descriptor(CONFIGS[0]), descriptor(LAYERS[1].0));
        let seeds = [
            format!(
                r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{manifest},{manifest}]}}"#,
                INDEXES[0]
            ),
            format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer},{layer}]}}"#),
            format!(
                r#"{{"architecture":"amd64","os":"linux","config":{{"User":"1:2","Env":["A=b"],"Cmd":null,
                "Volumes":{{"/a":{{"b":[1,[2.5e3]]}}}}}},"rootfs":{{"diff_ids":["{digest}"]}}}}"#
            ),
        ];
        crate::mutation::feed("document", &seeds.map(String::into_bytes));
    }
}
