//! A bundle's root before anything is mounted in it: what it lacks is made here, as the builder does with a layer.
//! The container code itself makes nothing in a tree that an image controls.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;

use crate::{Result, because};

/// The folder that becomes `/`.
pub(crate) struct Folder(OwnedFd);

/// What is to be at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A folder.
    Folder,
    /// Anything that is no folder.
    File,
}

impl Folder {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(CWD, path, flags, Mode::empty(), ResolveFlags::empty())
            .map(Self)
            .map_err(because(format!("cannot open root.path `{}`", path.display())))
    }

    /// Makes what `path` leads to, unless it is there: links are followed within the folder, also those that lead to
    /// nothing.
    pub(crate) fn make(&self, path: &str, place: Place) -> Result<()> {
        self.walk(path, place).map_err(because(format!("cannot make `{path}` in the root")))
    }

    fn walk(&self, path: &str, place: Place) -> rustix::io::Result<()> {
        const LINKS: usize = 40;
        let mut links = 0;
        let mut done: Vec<String> = Vec::new();
        let mut left: VecDeque<String> = names(path);
        while let Some(name) = left.pop_front() {
            if name == ".." {
                done.pop();
                continue;
            }
            let parent = self.place(&done, OFlags::PATH | OFlags::DIRECTORY)?;
            match readlinkat(&parent, name.as_str(), Vec::new()) {
                Ok(target) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = target.to_string_lossy().into_owned();
                    if target.starts_with('/') {
                        done.clear();
                    }
                    names(&target).into_iter().rev().for_each(|name| left.push_front(name));
                    continue;
                }
                // It is there, and no link.
                Err(Errno::INVAL) => {}
                Err(Errno::NOENT) if left.is_empty() && place == Place::File => {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                    openat(&parent, name.as_str(), flags, Mode::from_bits_truncate(0o644))?;
                }
                Err(Errno::NOENT) => mkdirat(&parent, name.as_str(), Mode::from_bits_truncate(0o755))?,
                Err(error) => return Err(error),
            }
            done.push(name);
        }
        Ok(())
    }

    fn place(&self, names: &[String], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = format!("./{}", names.join("/"));
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// The home of a user, as `etc/passwd` in the folder says; `/` without one.
    pub(crate) fn home(&self, uid: u32) -> String {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut text = String::new();
        let read = openat2(&self.0, "etc/passwd", flags, Mode::empty(), resolve)
            .map_err(std::io::Error::from)
            .and_then(|file| File::from(file).take(1 << 20).read_to_string(&mut text));
        if read.is_err() {
            return "/".to_owned();
        }
        let of = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            match *fields.as_slice() {
                [_, _, id, _, _, home, ..] if id.parse() == Ok(uid) && !home.is_empty() => {
                    Some(home.to_owned())
                }
                _ => None,
            }
        };
        text.lines().find_map(of).unwrap_or_else(|| "/".to_owned())
    }
}

fn names(path: &str) -> VecDeque<String> {
    path.split('/').filter(|name| !matches!(*name, "" | ".")).map(str::to_owned).collect()
}
