//! A container's root: its layers, a place to write, the standard mounts, and what the config adds.
//!
//! Runs in the child, in its own mount namespace. Once the root is open, everything inside is reached from
//! its descriptor by `openat2`, and mounted there by descriptor: no path is resolved twice, and none leads
//! out.

use std::ffi::{CStr, CString};
use std::fmt::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use manifest::{Container, Mount};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, makedev, mkdirat, mknodat, stat};
use nix::unistd::{Gid, Uid, chdir, fchownat, mkdir, symlinkat};
use rustix::fs::{CWD, OFlags, ResolveFlags, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::failure::{Failure, Step};
use super::{text, volume};
use crate::error::{Result, errno};
use crate::net::RESOLV_CONF;
use crate::{layers, ports, sys};

/// [`mounts::STAGE`](crate::mounts::STAGE), and what a writable root needs there.
const STAGE: &CStr = c"/run/coracle/stage";
const UPPER: &CStr = c"/run/coracle/stage/upper";
const WORK: &CStr = c"/run/coracle/stage/work";
const MERGED: &CStr = c"/run/coracle/stage/root";

const STRICT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

struct Standard {
    target: &'static str,
    inside: &'static CStr,
    kind: &'static CStr,
    options: &'static [(&'static CStr, &'static CStr)],
    attributes: MountAttrFlags,
}

/// What every container has, in this order. `/dev` itself is made before.
const STANDARD: [Standard; 5] = [
    Standard { target: "/proc", inside: c"proc", kind: c"proc", options: &[], attributes: STRICT },
    Standard {
        target: "/sys",
        inside: c"sys",
        kind: c"sysfs",
        options: &[],
        attributes: STRICT.union(MountAttrFlags::MOUNT_ATTR_RDONLY),
    },
    Standard {
        target: "/dev/pts",
        inside: c"dev/pts",
        kind: c"devpts",
        // 5 is the group `tty` of every common distribution.
        options: &[(c"ptmxmode", c"0666"), (c"mode", c"0620"), (c"gid", c"5")],
        attributes: MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NOEXEC),
    },
    Standard {
        target: "/dev/shm",
        inside: c"dev/shm",
        kind: c"tmpfs",
        options: &[(c"mode", c"1777"), (c"size", c"64m")],
        attributes: STRICT,
    },
    Standard {
        target: "/dev/mqueue",
        inside: c"dev/mqueue",
        kind: c"mqueue",
        options: &[],
        attributes: STRICT,
    },
];

/// Folders of `/dev` that the table mounts on.
const DEV_FOLDERS: [&CStr; 3] = [c"pts", c"shm", c"mqueue"];

/// Name, major, minor: devices that give away nothing of the machine.
const DEV_NODES: [(&CStr, u64, u64); 6] = [
    (c"null", 1, 3),
    (c"zero", 1, 5),
    (c"full", 1, 7),
    (c"random", 1, 8),
    (c"urandom", 1, 9),
    (c"tty", 5, 0),
];

const DEV_LINKS: [(&CStr, &CStr); 5] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"ptmx", c"pts/ptmx"),
];

/// A root that can be built over and over.
pub(super) struct Plan {
    base: Base,
    mounts: Vec<Addition>,
    devices: Vec<Node>,
}

/// What `/` is.
enum Base {
    /// Layers below a writable upper.
    Writable { options: CString },
    /// Several layers and nothing to write on.
    Merged { options: CString },
    /// One layer as it is.
    Single { layer: CString },
}

enum Addition {
    Tmpfs { target: CString, size: Option<CString>, mode: CString },
    Bind { source: CString, target: CString, attributes: u64 },
}

struct Node {
    source: String,
    /// Relative to `/dev`.
    target: CString,
}

/// A built root: not yet this process's.
pub(super) struct Root(OwnedFd);

impl Plan {
    pub(super) fn prepare(container: &Container) -> Result<Self> {
        let mounts = container.mounts.iter().map(addition).collect::<Result<_>>()?;
        let devices = container.devices.iter().map(|device| {
            let target = device.target.trim_start_matches("/dev/").trim_start_matches('/');
            Ok(Node { source: device.source.clone(), target: text(target)? })
        });
        Ok(Self { base: base(container)?, mounts, devices: devices.collect::<Result<_>>()? })
    }

    /// Builds it all. `owner` gets the devices that the config adds.
    pub(super) fn build(&self, owner: (Uid, Gid)) -> std::result::Result<Root, Failure> {
        let root = self.base.build()?;
        let dev = make_dev().map_err(|errno| Failure::new(Step::Dev, 0, errno))?;
        for (index, node) in self.devices.iter().enumerate() {
            node.make(dev.as_fd(), owner).map_err(|errno| Failure::new(Step::Device, index, errno))?;
        }
        root.attach(dev.as_fd(), c"dev").map_err(|errno| Failure::new(Step::Dev, 0, errno))?;
        for (index, standard) in STANDARD.iter().enumerate() {
            let made = new_mount(standard.kind, standard.options, standard.attributes);
            made.and_then(|mount| root.attach(mount.as_fd(), standard.inside))
                .map_err(|errno| Failure::new(Step::StandardMount, index, errno))?;
        }
        for (index, addition) in self.mounts.iter().enumerate() {
            addition.build(&root).map_err(|errno| Failure::new(Step::Mount, index, errno))?;
        }
        resolv_conf(&root).map_err(|errno| Failure::new(Step::ResolvConf, 0, errno))?;
        Ok(root)
    }

    /// Whether the container sees anything of the machine that outlives it.
    pub(super) fn has_volumes(&self) -> bool {
        self.mounts.iter().any(|addition| matches!(addition, Addition::Bind { .. }))
    }

    pub(super) fn mount_target(&self, index: usize) -> String {
        match self.mounts.get(index) {
            Some(Addition::Tmpfs { target, .. } | Addition::Bind { target, .. }) => {
                target.to_string_lossy().into_owned()
            }
            None => String::new(),
        }
    }

    pub(super) fn device_source(&self, index: usize) -> String {
        self.devices.get(index).map(|node| node.source.clone()).unwrap_or_default()
    }
}

pub(super) fn standard_target(index: usize) -> &'static str {
    STANDARD.get(index).map_or("", |standard| standard.target)
}

fn base(container: &Container) -> Result<Base> {
    if let (true, [layer]) = (container.read_only, container.layers.as_slice()) {
        return Ok(Base::Single { layer: text(&format!("{}/{layer}", layers::MOUNTED))? });
    }
    let mut options = "lowerdir=".to_owned();
    for (position, layer) in container.layers.iter().enumerate() {
        let separator = if position == 0 { "" } else { ":" };
        // Writing to a String cannot fail.
        let (Ok(()) | Err(std::fmt::Error)) = write!(options, "{separator}{layer}");
    }
    if container.read_only {
        return Ok(Base::Merged { options: text(&options)? });
    }
    for (key, folder) in [("upperdir", UPPER), ("workdir", WORK)] {
        options.push_str(&format!(",{key}={}", folder.to_string_lossy()));
    }
    Ok(Base::Writable { options: text(&options)? })
}

fn addition(mount: &Mount) -> Result<Addition> {
    const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
    const CONFINED: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    Ok(match mount {
        Mount::Tmpfs { target, size, mode } => Addition::Tmpfs {
            target: text(target)?,
            size: if *size == 0 { None } else { Some(text(&size.to_string())?) },
            mode: text(&format!("{mode:o}"))?,
        },
        Mount::Bind { source, target, read_only } => Addition::Bind {
            source: text(source)?,
            target: text(target)?,
            attributes: if *read_only || volume::is_guarded(source) { CONFINED | RDONLY } else { CONFINED },
        },
    })
}

impl Base {
    fn build(&self) -> std::result::Result<Root, Failure> {
        let overlay = |errno| Failure::new(Step::Overlay, 0, errno);
        let path = match self {
            Self::Writable { options } => {
                make_upper().map_err(|errno| Failure::new(Step::Upper, 0, errno))?;
                // nodev does not hide whiteouts: overlayfs looks at them below its own mounts.
                mount_overlay(options, MERGED, MsFlags::empty()).map_err(overlay)?;
                MERGED
            }
            Self::Merged { options } => {
                mount_overlay(options, STAGE, MsFlags::MS_RDONLY).map_err(overlay)?;
                STAGE
            }
            Self::Single { layer } => {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                let tree = open_tree(CWD, layer.as_c_str(), flags).map_err(|error| overlay(errno(error)))?;
                move_mount(tree, c"", CWD, STAGE, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                    .map_err(|error| overlay(errno(error)))?;
                STAGE
            }
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, rustix::fs::Mode::empty())
            .map(Root)
            .map_err(|error| overlay(errno(error)))
    }
}

fn make_upper() -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(c"tmpfs"), STAGE, Some(c"tmpfs"), flags, Some(c"mode=700"))?;
    // The upper's own mode is that of the container's `/`.
    mkdir(UPPER, Mode::from_bits_truncate(0o755))?;
    mkdir(WORK, Mode::from_bits_truncate(0o700))?;
    mkdir(MERGED, Mode::from_bits_truncate(0o700))
}

/// By mount(2), because fsconfig takes at most 255 bytes a value and legacy overlayfs one value for all the
/// layers; and from the layers' folder, because relative names leave room for several hundred of them in its
/// one page.
fn mount_overlay(options: &CStr, target: &CStr, flags: MsFlags) -> nix::Result<()> {
    chdir(layers::MOUNTED)?;
    let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(c"overlay"), target, Some(c"overlay"), flags, Some(options))
}

impl Root {
    /// Opens a place inside, wherever its links lead, without ever leaving the root.
    pub(super) fn open(&self, path: &CStr) -> nix::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        openat2(&self.0, path, flags, rustix::fs::Mode::empty(), resolve).map_err(errno)
    }

    fn attach(&self, mount: BorrowedFd<'_>, inside: &CStr) -> nix::Result<()> {
        let target = self.open(inside)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(mount, c"", target, c"", flags).map_err(errno)
    }

    /// Shows `source`, a place of the machine, inside; what is mounted below it stays out.
    fn bind(&self, source: &OwnedFd, inside: &CStr, attributes: u64) -> nix::Result<()> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(source, c"", flags | OpenTreeFlags::AT_EMPTY_PATH).map_err(errno)?;
        sys::add_mount_attributes(tree.as_fd(), attributes)?;
        self.attach(tree.as_fd(), inside)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A new file system, mounted nowhere yet.
fn new_mount(kind: &CStr, options: &[(&CStr, &CStr)], attributes: MountAttrFlags) -> nix::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(errno)?;
    // The source, which every mount has and none of these needs: else the mount table says `none`.
    for &(key, value) in [(c"source", kind)].iter().chain(options) {
        fsconfig_set_string(&context, key, value).map_err(errno)?;
    }
    fsconfig_create(&context).map_err(errno)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(errno)
}

fn make_dev() -> nix::Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let dev = new_mount(c"tmpfs", &[(c"mode", c"0755"), (c"size", c"64k")], attributes)?;
    for (name, major, minor) in DEV_NODES {
        mknodat(&dev, name, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))?;
    }
    for (name, target) in DEV_LINKS {
        symlinkat(target, &dev, name)?;
    }
    for name in DEV_FOLDERS {
        mkdirat(&dev, name, Mode::from_bits_truncate(0o755))?;
    }
    Ok(dev)
}

impl Node {
    /// Makes the node in `dev`, which is still nobody's but ours, with what its source is at this moment.
    fn make(&self, dev: BorrowedFd<'_>, owner: (Uid, Gid)) -> nix::Result<()> {
        let source = stat(&ports::resolve(&self.source).ok_or(Errno::ENOENT)?)?;
        let kind = SFlag::from_bits_truncate(source.st_mode & libc::S_IFMT);
        if kind != SFlag::S_IFCHR && kind != SFlag::S_IFBLK {
            return Err(Errno::ENODEV);
        }
        make_parents(self.target.as_bytes(), |parent| mkdirat(dev, parent, Mode::from_bits_truncate(0o755)))?;
        let target = self.target.as_c_str();
        let mode = Mode::from_bits_truncate(source.st_mode & 0o777);
        mknodat(dev, target, kind, mode, source.st_rdev)?;
        // Whoever is given a device may use it.
        fchownat(dev, target, Some(owner.0), Some(owner.1), nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)?;
        fchmodat(dev, target, mode, FchmodatFlags::FollowSymlink)
    }
}

impl Addition {
    fn build(&self, root: &Root) -> nix::Result<()> {
        match self {
            Self::Tmpfs { target, size, mode } => {
                let mut options = vec![(c"mode", mode.as_c_str())];
                options.extend(size.as_ref().map(|size| (c"size", size.as_c_str())));
                let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
                root.attach(new_mount(c"tmpfs", &options, attributes)?.as_fd(), target)
            }
            Self::Bind { source, target, attributes } => {
                let source = volume::open_or_make(source, &root.open(target)?)?;
                root.bind(&source, target, *attributes)
            }
        }
    }
}

/// The same file for all containers, written in place by the network: a new lease shows in all of them.
fn resolv_conf(root: &Root) -> nix::Result<()> {
    const ATTRIBUTES: u64 =
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let source = rustix::fs::open(RESOLV_CONF, flags, rustix::fs::Mode::empty()).map_err(errno)?;
    let target = CString::new(manifest::path::RESOLV_CONF).map_err(|_| Errno::EINVAL)?;
    root.bind(&source, &target, ATTRIBUTES)
}

/// Calls `make` with each folder above `path`, the uppermost first.
fn make_parents(path: &[u8], make: impl Fn(&CStr) -> nix::Result<()>) -> nix::Result<()> {
    for (end, _) in path.iter().enumerate().filter(|&(at, &byte)| byte == b'/' && at > 0) {
        let parent = CString::new(path.get(..end).unwrap_or_default()).map_err(|_| Errno::EINVAL)?;
        ignore_existing(make(&parent))?;
    }
    Ok(())
}

fn ignore_existing(made: nix::Result<()>) -> nix::Result<()> {
    match made {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::container;
    use super::*;

    #[test]
    fn no_standard_mount_honours_setuid_or_runs_programs() {
        for standard in &STANDARD {
            let least = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            assert!(standard.attributes.contains(least), "{}", standard.target);
            assert_eq!(standard.target.as_bytes(), [b"/", standard.inside.to_bytes()].concat());
        }
    }

    #[test]
    fn the_stage_is_the_folder_that_the_boot_makes() {
        assert_eq!(STAGE.to_str(), Ok(crate::mounts::STAGE));
        assert!([UPPER, WORK, MERGED].iter().all(|path| path.to_bytes().starts_with(STAGE.to_bytes())));
    }

    #[test]
    fn the_uppermost_layer_comes_first_and_a_writable_root_has_an_upper() {
        let Base::Writable { options } = base(&container()).unwrap() else { panic!("not writable") };
        let expected =
            c"lowerdir=1:0,upperdir=/run/coracle/stage/upper,workdir=/run/coracle/stage/work".to_owned();
        assert_eq!(options, expected);
    }

    #[test]
    fn a_read_only_root_of_one_layer_is_that_layer() {
        let single = Container { layers: vec![7], read_only: true, ..container() };
        let Base::Single { layer } = base(&single).unwrap() else { panic!("not single") };
        assert_eq!(layer, c"/run/coracle/layers/7".to_owned());
        let merged = Container { layers: vec![7, 8], read_only: true, ..container() };
        let Base::Merged { options } = base(&merged).unwrap() else { panic!("not merged") };
        assert_eq!(options, c"lowerdir=7:8".to_owned());
    }

    #[test]
    fn five_hundred_layers_fit_into_one_page_of_options() {
        let many = Container { layers: (500..1000).collect(), ..container() };
        let Base::Writable { options } = base(&many).unwrap() else { panic!("not writable") };
        assert!(options.as_bytes().len() < 4096, "{}", options.as_bytes().len());
    }

    #[test]
    fn parents_are_made_from_the_top() {
        let made = std::cell::RefCell::new(vec![]);
        make_parents(b"/var/lib/data", |parent| {
            made.borrow_mut().push(parent.to_owned());
            Err(Errno::EEXIST)
        })
        .unwrap();
        assert_eq!(made.into_inner(), [c"/var".to_owned(), c"/var/lib".to_owned()]);
    }
}
