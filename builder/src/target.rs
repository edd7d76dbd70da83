//! Places that a container's root must have, whatever its image has: mount points, and what programs expect.

use crate::config::{Config, Service};
use crate::error::{Error, Result};
use crate::oci::image::Process;
use crate::process::{declared_volumes, working_dir};

/// Something that a container's root must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Absolute and normalised; the image's links on the way are not resolved yet.
    pub path: String,
    /// What is expected there, and made when there is nothing.
    pub kind: TargetKind,
}

/// What a [`Target`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// A folder.
    Folder,
    /// A file; with these contents when it is made.
    File(&'static str),
    /// A folder or a file, as the image has it; a folder when it is made.
    Either,
}

/// `localhost` for programs that look it up in the file instead of asking libc.
const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// What init mounts in every container, and what programs expect.
const STANDARD: &[(&str, TargetKind)] = &[
    ("/dev", TargetKind::Folder),
    ("/etc/hosts", TargetKind::File(HOSTS)),
    (manifest::path::RESOLV_CONF, TargetKind::File("")),
    ("/proc", TargetKind::Folder),
    ("/sys", TargetKind::Folder),
];

/// Folders in which nothing of an image is visible at run time.
const HIDDEN: &[&str] = &["/dev", "/proc", "/sys"];

/// The one of these folders that a path is in, or is.
pub fn hidden(path: &str) -> Option<&'static str> {
    HIDDEN.iter().copied().find(|top| is_within(path, top))
}

/// Whether an absolute path is `folder` or something below it.
pub fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// All that the root of a service's container must have, the standard places first.
pub fn targets(config: &Config, service: &Service, defaults: &Process) -> Result<Vec<Target>> {
    let mut targets: Vec<Target> =
        STANDARD.iter().map(|(path, kind)| Target { path: (*path).to_owned(), kind: *kind }).collect();
    let cwd = working_dir(service, defaults)?;
    // A process that begins below `/proc/self/fd` begins outside its root (CVE-2024-21626).
    if let Some(top) = hidden(&cwd) {
        return Err(Error::new(format!(
            "the working directory `{cwd}` is below {top}, which the kernel fills"
        ))
        .hint("set `working-dir` to a folder of the image"));
    }
    targets.push(Target { path: cwd, kind: TargetKind::Folder });
    let tmpfs =
        service.tmpfs.iter().map(|tmpfs| tmpfs.target.clone()).chain(declared_volumes(service, defaults)?);
    targets.extend(tmpfs.map(|path| Target { path, kind: TargetKind::Folder }));
    for volume in &service.volumes {
        let is_file = config.files.iter().any(|file| file.path == volume.source);
        let kind = if is_file { TargetKind::File("") } else { TargetKind::Either };
        targets.push(Target { path: volume.target.clone(), kind });
    }
    Ok(targets)
}
