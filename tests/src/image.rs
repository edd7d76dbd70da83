//! Images made by hand, in OCI layouts, for what no ordinary tool would write.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::{folder, made, replace};

/// An entry of any kind.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its type.
    pub kind: EntryType,
    /// Its name, of at most 100 bytes if no record has a longer one.
    pub name: Vec<u8>,
    /// What it is a link to.
    pub link: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
    /// What an extended header says of it.
    pub records: Vec<(String, Vec<u8>)>,
    /// The device that it is.
    pub device: (u32, u32),
    /// What is in it.
    pub contents: Vec<u8>,
}

/// One layer, written entry by entry.
pub struct Layer(Builder<Vec<u8>>);

impl Layer {
    /// A layer without entries.
    pub fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// A layer with the probe at `/probe`.
    pub fn with_probe() -> Self {
        let path = made("dist-test/probe", "dist");
        Self::new().file("probe", 0o755, &fs::read(path).unwrap())
    }

    /// A regular file of user and group 0.
    pub fn file(self, path: &str, mode: u32, contents: &[u8]) -> Self {
        self.owned_file(path, mode, (0, 0), contents)
    }

    /// A regular file of somebody.
    pub fn owned_file(self, path: &str, mode: u32, owner: (u64, u64), contents: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, mode, owner, contents)
    }

    /// A folder of somebody.
    pub fn directory(self, path: &str, mode: u32, owner: (u64, u64)) -> Self {
        self.entry(EntryType::Directory, path, mode, owner, &[])
    }

    /// A symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, path, target)
    }

    /// A further name of a file, of this layer or a lower one.
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Link, path, target)
    }

    /// Hides a name of the lower layers.
    pub fn whiteout(self, path: &str) -> Self {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.file(format!("{parent}/.wh.{name}").trim_start_matches('/'), 0o644, &[])
    }

    /// Hides everything that the lower layers have in a folder.
    pub fn opaque(self, path: &str) -> Self {
        self.file(&format!("{path}/.wh..wh..opq"), 0o644, &[])
    }

    /// An extended attribute of the entry that follows.
    pub fn attribute(mut self, name: &str, value: &[u8]) -> Self {
        let key = format!("SCHILY.xattr.{name}");
        self.0.append_pax_extensions([(key.as_str(), value)]).unwrap();
        self
    }

    /// An entry of any kind, of user and group 0.
    pub fn any(mut self, entry: &Entry) -> Self {
        let records = entry.records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.0.append_pax_extensions(records).unwrap();
        let mut header = header(entry.kind, entry.mode, (0, 0));
        header.set_size(u64::try_from(entry.contents.len()).unwrap());
        header.set_device_major(entry.device.0).unwrap();
        header.set_device_minor(entry.device.1).unwrap();
        let old = header.as_old_mut();
        old.name[..entry.name.len()].copy_from_slice(&entry.name);
        old.linkname[..entry.link.len()].copy_from_slice(&entry.link);
        header.set_cksum();
        self.0.append(&header, entry.contents.as_slice()).unwrap();
        self
    }

    /// A layer that was written before.
    pub fn from_tar(tar: Vec<u8>) -> Self {
        Self(Builder::new(tar))
    }

    /// The archive itself, for those who put one into another.
    pub fn into_tar(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    fn entry(mut self, kind: EntryType, path: &str, mode: u32, owner: (u64, u64), contents: &[u8]) -> Self {
        let mut header = header(kind, mode, owner);
        header.set_size(u64::try_from(contents.len()).unwrap());
        self.0.append_data(&mut header, path, contents).unwrap();
        self
    }

    fn link(mut self, kind: EntryType, path: &str, target: &str) -> Self {
        self.0.append_link(&mut header(kind, 0o777, (0, 0)), path, target).unwrap();
        self
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

fn header(kind: EntryType, mode: u32, (uid, gid): (u64, u64)) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_mtime(1_000_000_000);
    header.set_size(0);
    header
}

/// One image of a layout.
pub struct Image {
    /// Its tag.
    pub tag: &'static str,
    /// The lowest first.
    pub layers: Vec<Layer>,
    /// The `config` object of the image's configuration.
    pub config: Value,
}

/// Writes a layout `target/tmp/NAME` with these images; a reference to one is this function's result with `:TAG`.
pub fn layout(name: &str, images: Vec<Image>) -> String {
    let folder = folder(name);
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    replace(&folder.join("oci-layout"), 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
    let manifests: Vec<Value> = images
        .into_iter()
        .map(|image| {
            let tag = image.tag;
            let mut descriptor = write_image(&blobs, image);
            descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
            descriptor
        })
        .collect();
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    replace(&folder.join("index.json"), 0o644, index.to_string().as_bytes());
    format!("oci:{}", folder.display())
}

fn write_image(blobs: &Path, image: Image) -> Value {
    let layers: Vec<Value> = image
        .layers
        .into_iter()
        .map(|layer| write_blob(blobs, "application/vnd.oci.image.layer.v1.tar", &layer.into_tar()))
        .collect();
    // The layers are not compressed, so their digests are their diff ids.
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": image.config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = write_blob(blobs, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
    write_blob(blobs, media_type, manifest.to_string().as_bytes())
}

/// Writes a blob and returns its descriptor.
fn write_blob(blobs: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    replace(&blobs.join(&hex), 0o644, bytes);
    json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len() })
}
