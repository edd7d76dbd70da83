//! Layers as this host's kernel shows them.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Mounted layers, one upon the other. They have no mount point for long: what keeps them is a descriptor, so that the
/// kernel takes them away however the test ends.
pub struct Mount {
    path: PathBuf,
    _folder: File,
}

impl Mount {
    /// Mounts layers, the lowest first. Nothing where this host cannot: it says why.
    pub fn all(layers: &[PathBuf], form: &str) -> Option<Self> {
        if let Some(reason) = why_not(form) {
            eprintln!("skipped: {reason}");
            return None;
        }
        let place = TempDir::new().unwrap();
        let mut points: Vec<PathBuf> = Vec::new();
        for layer in layers {
            points.push(mount(
                &["-t", "erofs", "-o", "ro,loop"],
                layer,
                place.path().join(points.len().to_string()),
            ));
        }
        if layers.len() > 1 {
            let lower: Vec<_> = points.iter().rev().map(|point| point.to_str().unwrap()).collect();
            let options = format!("ro,lowerdir={}", lower.join(":"));
            points.push(mount(
                &["-t", "overlay", "-o", &options],
                Path::new("overlay"),
                place.path().join("all"),
            ));
        }
        let folder = File::open(points.last().unwrap()).unwrap();
        for point in points.iter().rev() {
            assert!(Command::new("umount").arg("--lazy").arg(point).status().unwrap().success());
        }
        Some(Self { path: format!("/proc/self/fd/{}", folder.as_raw_fd()).into(), _folder: folder })
    }

    /// Where the files are.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Mounts something on a folder that is made for it.
fn mount(options: &[&str], source: &Path, point: PathBuf) -> PathBuf {
    fs::create_dir(&point).unwrap();
    let output = Command::new("mount").args(options).arg(source).arg(&point).output().unwrap();
    assert!(output.status.success(), "{source:?}: {}", String::from_utf8_lossy(&output.stderr));
    point
}

/// What this host lacks.
fn why_not(form: &str) -> Option<&'static str> {
    let file_systems = fs::read_to_string("/proc/filesystems").unwrap();
    let symbols = || fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    if !rustix::process::geteuid().is_root() {
        Some("only root can mount")
    } else if !Path::new("/dev/loop-control").exists() || !file_systems.contains("\terofs\n") {
        Some("this host has no loop devices or no EROFS")
    } else if form.contains("zstd") && !symbols().contains("z_erofs_zstd_decompress") {
        Some("this host's kernel does not read zstd in EROFS")
    } else {
        None
    }
}
