//! The demo images' OCI layout, as far as the benchmark looks into it: which blob is a layer.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::process::{Result, because};
use crate::workspace::read_file;

/// The blob of the uppermost layer of an image.
pub fn top_layer(layout: &Path, tag: &str) -> Result<PathBuf> {
    let missing = || format!("`{}` has no image `{tag}` with a layer", layout.display());
    let index = document(&layout.join("index.json"))?;
    let manifests = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
    let image = manifests
        .iter()
        .find(|image| image["annotations"]["org.opencontainers.image.ref.name"] == tag)
        .ok_or_else(missing)?;
    let manifest = document(&blob(layout, &image["digest"]).ok_or_else(missing)?)?;
    let layer = manifest["layers"].as_array().and_then(|layers| layers.last()).ok_or_else(missing)?;
    blob(layout, &layer["digest"]).ok_or_else(missing)
}

fn document(path: &Path) -> Result<Value> {
    serde_json::from_str(&read_file(path)?).map_err(because(format!("cannot read `{}`", path.display())))
}

fn blob(layout: &Path, digest: &Value) -> Option<PathBuf> {
    let hex = digest.as_str()?.strip_prefix("sha256:")?;
    Some(layout.join("blobs/sha256").join(hex))
}
