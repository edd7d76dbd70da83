//! OCI layouts, as far as the benchmark looks into the demo images' and makes its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::process::{Result, because, run_quietly};
use crate::workspace::read_file;

/// The blob of the uppermost layer of an image.
pub fn top_layer(layout: &Path, tag: &str) -> Result<PathBuf> {
    layers(layout, tag)?.pop().ok_or_else(|| format!("`{}`: image `{tag}` has no layer", layout.display()))
}

/// The blobs of an image's layers, the lowest first.
pub fn layers(layout: &Path, tag: &str) -> Result<Vec<PathBuf>> {
    let missing = || format!("`{}` has no image `{tag}` with layers", layout.display());
    let index = document(&layout.join("index.json"))?;
    let manifests = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
    let image = manifests
        .iter()
        .find(|image| image["annotations"]["org.opencontainers.image.ref.name"] == tag)
        .ok_or_else(missing)?;
    let manifest = document(&blob(layout, &image["digest"]).ok_or_else(missing)?)?;
    let layers = manifest["layers"].as_array().ok_or_else(missing)?;
    layers.iter().map(|layer| blob(layout, &layer["digest"]).ok_or_else(missing)).collect()
}

/// Makes a layout with the image `tag`, which has no layer yet.
pub fn make(layout: &Path, tag: &str) -> Result<()> {
    run_quietly(Command::new("umoci").args(["init", "--layout"]).arg(layout))?;
    run_quietly(Command::new("umoci").args(["new", "--image", &name(layout, tag)])).map(drop)
}

/// Puts a tar archive on top of an image, compressed by gzip.
pub fn add_layer(layout: &Path, tag: &str, tar: &Path) -> Result<()> {
    let mut command = Command::new("umoci");
    run_quietly(command.args(["raw", "add-layer", "--image", &name(layout, tag)]).arg(tar)).map(drop)
}

/// Makes a layout with an image of layers that others have, and returns the bytes of their tar archives.
pub fn stack(layout: &Path, tag: &str, blobs: &[PathBuf]) -> Result<f64> {
    make(layout, tag)?;
    let tar = layout.with_extension("tar");
    let mut total = 0;
    for blob in blobs {
        let inflate = format!("gzip -dc '{}' >'{}'", blob.display(), tar.display());
        run_quietly(Command::new("sh").args(["-euc", &inflate]))?;
        let cannot = || format!("cannot find `{}`", tar.display());
        total += fs::metadata(&tar).map_err(because(cannot()))?.len();
        add_layer(layout, tag, &tar)?;
    }
    fs::remove_file(&tar).map_err(because(format!("cannot remove `{}`", tar.display())))?;
    Ok(total as f64)
}

/// What umoci calls an image.
pub fn name(layout: &Path, tag: &str) -> String {
    format!("{}:{tag}", layout.display())
}

fn document(path: &Path) -> Result<Value> {
    serde_json::from_str(&read_file(path)?).map_err(because(format!("cannot read `{}`", path.display())))
}

fn blob(layout: &Path, digest: &Value) -> Option<PathBuf> {
    let hex = digest.as_str()?.strip_prefix("sha256:")?;
    Some(layout.join("blobs/sha256").join(hex))
}
