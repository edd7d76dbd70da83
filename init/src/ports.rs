//! Virtio-serial ports by name. Where udev makes links in `/dev/virtio-ports`, a machine without udev asks
//! sysfs.

use std::fs;
use std::path::PathBuf;

/// Where links to named ports are on machines with udev, and so the way a config spells one.
pub const NAMED: &str = "/dev/virtio-ports/";

/// The device node of the port called `name`, once the host has announced it.
pub fn node(name: &str) -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
    ports.flatten().find_map(|port| {
        let its_name = fs::read_to_string(port.path().join("name")).ok()?;
        (its_name.trim_end() == name).then(|| PathBuf::from("/dev").join(port.file_name()))
    })
}

/// The device node that `path` stands for: `path` itself unless it names a port below [`NAMED`].
pub fn resolve(path: &str) -> Option<PathBuf> {
    match path.strip_prefix(NAMED) {
        Some(name) => node(name),
        None => Some(PathBuf::from(path)),
    }
}
