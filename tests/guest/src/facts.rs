//! Facts about the probe's own process and the files that it sees.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use probe::{Answer, Identity, Metadata, Output};
use rustix::fs::{lgetxattr, major, minor};

/// The most that one answer carries of a file.
const READ_LIMIT: u64 = 1 << 20;

/// The descriptors that are open now, sorted; the one that lists them is not among them.
pub fn descriptors() -> Vec<u32> {
    // Every folder entry is a name of digits; the listing's own descriptor is closed when the names are checked.
    let names = names("/proc/self/fd").unwrap_or_default();
    let mut open: Vec<u32> = names
        .iter()
        .filter(|name| fs::read_link(format!("/proc/self/fd/{name}")).is_ok())
        .filter_map(|name| name.parse().ok())
        .collect();
    open.sort_unstable();
    open
}

/// Who the probe is.
pub fn identity(first_ns: u64, descriptors: Vec<u32>) -> io::Result<Identity> {
    let mut groups: Vec<u32> =
        rustix::process::getgroups()?.into_iter().map(|group| group.as_raw()).collect();
    groups.sort_unstable();
    let mut env: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
    env.sort();
    Ok(Identity {
        pid: rustix::process::getpid().as_raw_nonzero().get(),
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        groups,
        argv: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
        env,
        cwd: std::env::current_dir()?.to_string_lossy().into_owned(),
        hostname: fs::read_to_string("/proc/sys/kernel/hostname")?.trim_end().to_owned(),
        descriptors,
        first_ns,
        now_ns: crate::monotonic_ns(),
    })
}

/// A file's contents. Files in `/proc` have no size: what counts is what comes.
pub fn contents(path: &str) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(READ_LIMIT).read_to_end(&mut bytes)?;
    Ok(Answer::Text(String::from_utf8_lossy(&bytes).into_owned()))
}

/// A folder's names, sorted.
pub fn names(path: &str) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(path)?;
    let mut names = entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<String>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// Metadata, links not followed.
pub fn metadata(path: &str) -> io::Result<Metadata> {
    let metadata = fs::symlink_metadata(path)?;
    Ok(Metadata {
        mode: metadata.mode(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        size: metadata.size(),
        links: metadata.nlink(),
        inode: metadata.ino(),
        device: (major(metadata.rdev()), minor(metadata.rdev())),
        mtime: metadata.mtime(),
    })
}

/// An extended attribute's value, in hexadecimal.
pub fn attribute(path: &str, name: &str) -> io::Result<Answer> {
    let mut value = vec![0; 4096];
    let length = lgetxattr(path, name, &mut value[..])?;
    Ok(Answer::Text(value.iter().take(length).map(|byte| format!("{byte:02x}")).collect()))
}

/// Runs a program to its end.
pub fn output(argv: &[String]) -> io::Result<Output> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty command line"));
    };
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    Ok(Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
