//! Layers as this host's kernel shows them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Mounted layers, one upon the other; unmounted when dropped.
pub struct Mount {
    /// The mount points in the order of mounting.
    points: Vec<PathBuf>,
    place: TempDir,
}

impl Mount {
    /// Mounts layers, the lowest first. Nothing where this host cannot: it says why.
    pub fn all(layers: &[PathBuf], form: &str) -> Option<Self> {
        if let Some(reason) = why_not(form) {
            eprintln!("skipped: {reason}");
            return None;
        }
        let mut mount = Self { points: Vec::new(), place: TempDir::new().unwrap() };
        for layer in layers {
            mount.add(&["-t", "erofs", "-o", "ro,loop"], layer);
        }
        if layers.len() > 1 {
            let lower: Vec<_> = mount.points.iter().rev().map(|point| point.to_str().unwrap()).collect();
            let options = format!("ro,lowerdir={}", lower.join(":"));
            mount.add(&["-t", "overlay", "-o", &options], Path::new("overlay"));
        }
        Some(mount)
    }

    /// Where the files are.
    pub fn path(&self) -> &Path {
        self.points.last().unwrap()
    }

    fn add(&mut self, options: &[&str], source: &Path) {
        let point = self.place.path().join(self.points.len().to_string());
        fs::create_dir(&point).unwrap();
        let output = Command::new("mount").args(options).arg(source).arg(&point).output().unwrap();
        assert!(output.status.success(), "{source:?}: {}", String::from_utf8_lossy(&output.stderr));
        self.points.push(point);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        for point in self.points.iter().rev() {
            assert!(Command::new("umount").arg(point).status().unwrap().success());
        }
    }
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
