//! A container's root: its layers, a place to write, the standard mounts, and what the config adds.
//!
//! Runs in the child, in its own mount namespace, but not yet in the container's user namespace: whatever is made
//! here is made for ids of the container, and what was there before is mapped to them. Once the root is open,
//! everything inside is reached from its descriptor, by `openat2` or as a single name (see [`tree::attach`]), and mounted
//! there by descriptor: no path is resolved twice, and none leads out.

use std::ffi::{CStr, CString};
use std::fmt::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use manifest::mask::Mask;
use manifest::{Container, Mount};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, chdir, chown, mkdir};
use rustix::fs::{CWD, OFlags, ResolveFlags, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::bundle::{self, Bundle};
use super::dev::{self, Node};
use super::device_program::Rule;
use super::failure::{Failure, Step};
use super::ids::Ids;
use super::mask::{self, Masks, Nothing};
use super::socket::Socket;
use super::{text, tree, volume};
use crate::error::{Result, errno};
use crate::net::RESOLV_CONF;
use crate::{layers, sys};

/// [`mounts::STAGE`](crate::mounts::STAGE), and what a writable root needs there.
const STAGE: &CStr = c"/run/coracle/stage";
const UPPER: &CStr = c"/run/coracle/stage/upper";
const WORK: &CStr = c"/run/coracle/stage/work";
const DEV: &CStr = c"/run/coracle/stage/dev";
const MERGED: &CStr = c"/run/coracle/stage/root";

const STRICT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A file system's root belongs to the container's.
const OF_ROOT: &[(&CStr, u32)] = &[(c"uid", 0), (c"gid", 0)];

struct Standard {
    target: &'static str,
    folder: Folder,
    /// What it is called in that folder.
    name: &'static CStr,
    kind: &'static CStr,
    options: &'static [(&'static CStr, &'static CStr)],
    /// As large as the container's plan says.
    sized: bool,
    /// Options whose values are ids of the container.
    ids: &'static [(&'static CStr, u32)],
    attributes: MountAttrFlags,
}

/// What a standard mount is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Folder {
    Root,
    Dev,
}

/// What every container has, in this order. `/dev` itself is made before.
const STANDARD: [Standard; 5] = [
    Standard {
        target: "/proc",
        folder: Folder::Root,
        name: c"proc",
        kind: c"proc",
        options: &[],
        sized: false,
        ids: &[],
        attributes: STRICT,
    },
    Standard {
        target: "/sys",
        folder: Folder::Root,
        name: c"sys",
        kind: c"sysfs",
        options: &[],
        sized: false,
        ids: &[],
        // Read-only as well, by its mask.
        attributes: STRICT,
    },
    Standard {
        target: "/dev/pts",
        folder: Folder::Dev,
        name: c"pts",
        kind: c"devpts",
        options: &[(c"ptmxmode", c"0666"), (c"mode", c"0620")],
        sized: false,
        // 5 is the group `tty` of every common distribution.
        ids: &[(c"gid", 5)],
        attributes: MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NOEXEC),
    },
    Standard {
        target: "/dev/shm",
        folder: Folder::Dev,
        name: c"shm",
        kind: c"tmpfs",
        options: &[(c"mode", c"1777")],
        sized: true,
        ids: OF_ROOT,
        attributes: STRICT,
    },
    Standard {
        target: "/dev/mqueue",
        folder: Folder::Dev,
        name: c"mqueue",
        kind: c"mqueue",
        options: &[],
        sized: false,
        ids: &[],
        attributes: STRICT,
    },
];

/// A root that can be built over and over.
#[derive(PartialEq)]
pub(super) struct Plan {
    base: Base,
    masks: Masks,
    mounts: Box<[Addition]>,
    /// Masks of places other than the usual ones.
    further_masks: Box<[(CString, Mask)]>,
    devices: Box<[Node]>,
    sockets: Box<[Socket]>,
    /// Whether `/dev` has all that the machine has.
    all_devices: bool,
    /// Bytes, in decimal.
    shm_size: CString,
}

/// The layers that `/` is made of, each by its name below [`layers::MOUNTED`], and how.
#[derive(PartialEq)]
struct Base {
    layers: Box<[CString]>,
    /// Set-id programs give what they say.
    set_id: bool,
    shape: Shape,
}

#[derive(PartialEq)]
enum Shape {
    /// Below a writable upper.
    Writable { options: CString },
    /// Several, and nothing to write on.
    Merged { options: CString },
    /// One, as it is.
    Single,
    /// No layers but a folder of the machine.
    Folder { path: CString, read_only: bool },
}

#[derive(PartialEq)]
enum Addition {
    Tmpfs { target: CString, size: Option<CString>, mode: CString, attributes: u64 },
    Bind { source: CString, target: CString, attributes: u64 },
    OfBundle(bundle::Addition),
}

/// A built root: not yet this process's.
pub(super) struct Root(OwnedFd);

impl Plan {
    /// Layers of the boot manifest, unless there is a bundle.
    pub(super) fn prepare(container: &Container, bundle: Option<&Bundle>) -> Result<Self> {
        let of_bundle = bundle.map_or(&[][..], |bundle| &bundle.mounts);
        let of_bundle =
            of_bundle.iter().map(|mount| bundle::Addition::prepare(mount).map(Addition::OfBundle));
        let mounts = container.mounts.iter().map(addition).chain(of_bundle).collect::<Result<_>>()?;
        let devices = container.devices.iter().map(Node::prepare).collect::<Result<_>>()?;
        let masks = bundle.map_or(&[][..], |bundle| &bundle.masks);
        let further_masks = masks.iter().map(|(path, mask)| Ok((text(path)?, *mask)));
        Ok(Self {
            base: match bundle {
                Some(bundle) => folder(container, bundle)?,
                None => base(container)?,
            },
            masks: Masks::prepare(&container.profile.unmasked),
            mounts,
            further_masks: further_masks.collect::<Result<_>>()?,
            devices,
            sockets: container.sockets.iter().map(Socket::prepare).collect::<Result<_>>()?,
            all_devices: container.profile.all_devices,
            shm_size: text(&container.limits.shm_size.to_string())?,
        })
    }

    /// Builds it all for `ids`. `user` is the one of them who gets the devices that the config adds.
    pub(super) fn build(&self, ids: &Ids, user: (Uid, Gid)) -> std::result::Result<Root, Failure> {
        let root = self.base.build(ids)?;
        let place = matches!(self.base.shape, Shape::Writable { .. }).then_some(DEV);
        let dev = dev::make(ids, place).map_err(|errno| Failure::new(Step::Dev, 0, errno))?;
        let owner = ids.outside(user.0, user.1);
        for (index, node) in self.devices.iter().enumerate() {
            node.make(dev.as_fd(), owner).map_err(|errno| Failure::new(Step::Device, index, errno))?;
        }
        if self.all_devices {
            dev::add_all(dev.as_fd()).map_err(|errno| Failure::new(Step::Dev, 0, errno))?;
        }
        tree::attach(&dev, &root, c"dev").map_err(|errno| Failure::new(Step::Dev, 0, errno))?;
        // Mounted on what is attached: a mount that is not attached takes no others.
        for socket in &self.sockets {
            socket.attach(dev.as_fd()).map_err(|errno| Failure::new(Step::Dev, 0, errno))?;
        }
        let mut nothing = Nothing::default();
        for (index, standard) in STANDARD.iter().enumerate() {
            let failed = |step| move |errno| Failure::new(step, index, errno);
            let mount = self.standard_mount(standard, ids).map_err(failed(Step::StandardMount))?;
            let folder = match standard.folder {
                Folder::Root => root.as_fd(),
                Folder::Dev => dev.as_fd(),
            };
            tree::attach(&mount, folder, standard.name).map_err(failed(Step::StandardMount))?;
            let masked = self.masks.apply(standard.target, mount.as_fd(), &mut nothing);
            masked.map_err(failed(Step::Mask))?;
        }
        for (index, addition) in self.mounts.iter().enumerate() {
            addition.build(&root, ids).map_err(|errno| Failure::new(Step::Mount, index, errno))?;
        }
        if !matches!(self.base.shape, Shape::Folder { .. }) {
            resolv_conf(&root).map_err(|errno| Failure::new(Step::ResolvConf, 0, errno))?;
        }
        for (index, (path, how)) in self.further_masks.iter().enumerate() {
            let masked = match root.open(path) {
                // Nothing is there that could be seen.
                Err(Errno::ENOENT) => Ok(()),
                Err(errno) => Err(errno),
                Ok(place) => mask::cover_place(&place, *how, &mut nothing),
            };
            masked.map_err(|errno| Failure::new(Step::Mask, STANDARD.len() + index, errno))?;
        }
        Ok(root)
    }

    fn standard_mount(&self, standard: &Standard, ids: &Ids) -> nix::Result<OwnedFd> {
        let mut options = standard.options.to_vec();
        if standard.target == "/proc" && self.masks.own_processes {
            options.push((c"hidepid", c"invisible"));
        }
        if standard.sized {
            options.push((c"size", self.shm_size.as_c_str()));
        }
        let own: Vec<(&CStr, u32)> = standard.ids.iter().map(|&(key, id)| (key, ids.number(id))).collect();
        new_mount(standard.kind, &options, &own, standard.attributes)
    }

    /// Whether the container sees anything of the machine that outlives it.
    pub(super) fn has_volumes(&self) -> bool {
        self.mounts.iter().any(|addition| !matches!(addition, Addition::Tmpfs { .. }))
    }

    pub(super) fn mount_target(&self, index: usize) -> String {
        match self.mounts.get(index) {
            Some(
                Addition::Tmpfs { target, .. }
                | Addition::Bind { target, .. }
                | Addition::OfBundle(bundle::Addition { target, .. }),
            ) => target.to_string_lossy().into_owned(),
            None => String::new(),
        }
    }

    /// A standard mount, or a place that is masked beside them.
    pub(super) fn standard_target(&self, index: usize) -> String {
        match (STANDARD.get(index), self.further_masks.get(index.saturating_sub(STANDARD.len()))) {
            (Some(standard), _) => standard.target.to_owned(),
            (None, Some((path, _))) => path.to_string_lossy().into_owned(),
            (None, None) => String::new(),
        }
    }

    /// The devices that the config adds, as far as the machine has them now.
    pub(super) fn device_rules(&self) -> Vec<Rule> {
        if self.all_devices {
            return Rule::ALL.to_vec();
        }
        self.devices.iter().filter_map(Node::rule).collect()
    }

    pub(super) fn device_source(&self, index: usize) -> String {
        self.devices.get(index).map(|node| node.source().to_owned()).unwrap_or_default()
    }
}

fn base(container: &Container) -> Result<Base> {
    let layers = container.layers.iter().map(|layer| text(&layer.to_string())).collect::<Result<_>>()?;
    let set_id = container.profile.set_id;
    if container.read_only && container.layers.len() == 1 {
        return Ok(Base { layers, set_id, shape: Shape::Single });
    }
    let mut options = "lowerdir=".to_owned();
    for (position, layer) in container.layers.iter().enumerate() {
        let separator = if position == 0 { "" } else { ":" };
        // Writing to a String cannot fail.
        let (Ok(()) | Err(std::fmt::Error)) = write!(options, "{separator}{layer}");
    }
    if container.read_only {
        return Ok(Base { layers, set_id, shape: Shape::Merged { options: text(&options)? } });
    }
    for (key, folder) in [("upperdir", UPPER), ("workdir", WORK)] {
        options.push_str(&format!(",{key}={}", folder.to_string_lossy()));
    }
    Ok(Base { layers, set_id, shape: Shape::Writable { options: text(&options)? } })
}

fn folder(container: &Container, bundle: &Bundle) -> Result<Base> {
    let shape = Shape::Folder { path: text(&bundle.folder)?, read_only: container.read_only };
    Ok(Base { layers: Box::default(), set_id: container.profile.set_id, shape })
}

fn addition(mount: &Mount) -> Result<Addition> {
    const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
    const CONFINED: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let attributes = |read_only: bool, no_exec: bool| {
        let of = |is_so: bool, attribute| if is_so { attribute } else { 0 };
        CONFINED | of(read_only, RDONLY) | of(no_exec, libc::MOUNT_ATTR_NOEXEC)
    };
    Ok(match mount {
        Mount::Tmpfs { target, size, mode, read_only, no_exec } => Addition::Tmpfs {
            target: text(target)?,
            size: if *size == 0 { None } else { Some(text(&size.to_string())?) },
            mode: text(&format!("{mode:o}"))?,
            attributes: attributes(*read_only, *no_exec),
        },
        Mount::Bind { source, target, read_only, no_exec } => Addition::Bind {
            source: text(source)?,
            target: text(target)?,
            attributes: attributes(*read_only || volume::is_guarded(source), *no_exec),
        },
    })
}

impl Base {
    fn build(&self, ids: &Ids) -> std::result::Result<Root, Failure> {
        let failed = |step| move |errno| Failure::new(step, 0, errno);
        if let Shape::Folder { path, read_only } = &self.shape {
            let of = |is_so: bool, attribute| if is_so { attribute } else { 0 };
            let attributes =
                of(*read_only, libc::MOUNT_ATTR_RDONLY) | of(!self.set_id, libc::MOUNT_ATTR_NOSUID);
            return bundle::mount_over_itself(path, attributes).map(Root).map_err(failed(Step::Folder));
        }
        // Here, because the names of layers are relative.
        chdir(layers::MOUNTED).map_err(failed(Step::Overlay))?;
        let path = match &self.shape {
            Shape::Writable { options } => {
                make_upper(ids).map_err(failed(Step::Upper))?;
                self.map_layers(ids).map_err(failed(Step::Layers))?;
                // nodev does not hide whiteouts: overlayfs looks at them below its own mounts.
                self.mount_overlay(options, MERGED, MsFlags::empty()).map_err(failed(Step::Overlay))?;
                MERGED
            }
            Shape::Merged { options } => {
                self.map_layers(ids).map_err(failed(Step::Layers))?;
                self.mount_overlay(options, STAGE, MsFlags::MS_RDONLY).map_err(failed(Step::Overlay))?;
                STAGE
            }
            Shape::Single | Shape::Folder { .. } => {
                let attached = self.layers.iter().try_for_each(|layer| self.attach_alone(layer, ids));
                attached.map_err(failed(Step::Layers))?;
                STAGE
            }
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, rustix::fs::Mode::empty())
            .map(Root)
            .map_err(|error| failed(Step::Overlay)(errno(error)))
    }

    /// Puts each layer once more over the one that all containers share, in this process's own mounts and with
    /// owners as they are inside: it has the same short name then. overlayfs takes no layer that is not attached.
    fn map_layers(&self, ids: &Ids) -> nix::Result<()> {
        if !ids.are_own() {
            return Ok(());
        }
        self.layers.iter().try_for_each(|layer| attach(&mapped_layer(layer, ids)?, layer))
    }

    /// Makes a layer the whole root.
    fn attach_alone(&self, layer: &CStr, ids: &Ids) -> nix::Result<()> {
        let tree = mapped_layer(layer, ids)?;
        if self.set_id {
            sys::allow_set_id(tree.as_fd())?;
        }
        attach(&tree, STAGE)
    }

    /// By mount(2), because fsconfig takes at most 255 bytes a value and legacy overlayfs one value for all the
    /// layers; and with names that are relative to the layers' folder, because these leave room for several hundred of
    /// them in its one page.
    fn mount_overlay(&self, options: &CStr, target: &CStr, flags: MsFlags) -> nix::Result<()> {
        let set_id = if self.set_id { MsFlags::empty() } else { MsFlags::MS_NOSUID };
        let flags = flags | set_id | MsFlags::MS_NODEV;
        mount(Some(c"overlay"), target, Some(c"overlay"), flags, Some(options))
    }
}

/// A layer with owners as they are inside, attached nowhere yet.
fn mapped_layer(layer: &CStr, ids: &Ids) -> nix::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, layer, flags).map_err(errno)?;
    ids.map_owners(tree.as_fd())?;
    Ok(tree)
}

fn attach(tree: &OwnedFd, target: &CStr) -> nix::Result<()> {
    move_mount(tree, c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(errno)
}

fn make_upper(ids: &Ids) -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(c"tmpfs"), STAGE, Some(c"tmpfs"), flags, Some(c"mode=700"))?;
    // The upper's own mode and owner are those of the container's `/`.
    mkdir(UPPER, Mode::from_bits_truncate(0o755))?;
    let (uid, gid) = ids.root();
    chown(UPPER, Some(uid), Some(gid))?;
    mkdir(WORK, Mode::from_bits_truncate(0o700))?;
    mkdir(MERGED, Mode::from_bits_truncate(0o700))
}

impl Root {
    /// This process's own, which has entered a container.
    pub(super) fn own() -> nix::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(c"/", flags, rustix::fs::Mode::empty()).map(Self).map_err(errno)
    }

    /// Opens a place inside, wherever its links lead, without ever leaving the root.
    pub(super) fn open(&self, path: &CStr) -> nix::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        openat2(&self.0, path, flags, rustix::fs::Mode::empty(), resolve).map_err(errno)
    }

    fn attach(&self, mount: BorrowedFd<'_>, inside: &CStr) -> nix::Result<()> {
        tree::cover(mount, self.open(inside)?)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A new file system, mounted nowhere yet.
pub(super) fn new_mount(
    kind: &CStr,
    options: &[(&CStr, &CStr)],
    ids: &[(&CStr, u32)],
    attributes: MountAttrFlags,
) -> nix::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(errno)?;
    // The source, which every mount has and none of these needs: else the mount table says `none`.
    for &(key, value) in [(c"source", kind)].iter().chain(options) {
        fsconfig_set_string(&context, key, value).map_err(errno)?;
    }
    for &(key, id) in ids {
        fsconfig_set_string(&context, key, id.to_string().as_str()).map_err(errno)?;
    }
    fsconfig_create(&context).map_err(errno)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(errno)
}

impl Addition {
    fn build(&self, root: &Root, ids: &Ids) -> nix::Result<()> {
        match self {
            Self::Tmpfs { target, size, mode, attributes } => {
                let mut options = vec![(c"mode", mode.as_c_str())];
                options.extend(size.as_ref().map(|size| (c"size", size.as_c_str())));
                let own = [(c"uid", ids.number(0)), (c"gid", ids.number(0))];
                let tmpfs = new_mount(c"tmpfs", &options, &own, MountAttrFlags::empty())?;
                sys::add_mount_attributes(tmpfs.as_fd(), *attributes)?;
                root.attach(tmpfs.as_fd(), target)
            }
            Self::Bind { source, target, attributes } => {
                let model = root.open(target)?;
                let volume = volume::open_or_make(source, &model, ids)?;
                sys::add_mount_attributes(volume.as_fd(), *attributes)?;
                root.attach(volume.as_fd(), target)
            }
            Self::OfBundle(addition) => root.attach(addition.build(ids)?.as_fd(), &addition.target),
        }
    }
}

/// The same file for all containers, written in place by the network: a new lease shows in all of them.
fn resolv_conf(root: &Root) -> nix::Result<()> {
    const ATTRIBUTES: u64 =
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let target = CString::new(manifest::path::RESOLV_CONF).map_err(|_| Errno::EINVAL)?;
    root.attach(tree::of_own(RESOLV_CONF, ATTRIBUTES)?.as_fd(), &target)
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
            let folder = if standard.folder == Folder::Dev { "/dev/" } else { "/" };
            assert_eq!(standard.target.as_bytes(), [folder.as_bytes(), standard.name.to_bytes()].concat());
            assert!(!standard.name.to_bytes().contains(&b'/'), "{}", standard.target);
        }
    }

    #[test]
    fn the_stage_is_the_folder_that_the_boot_makes() {
        assert_eq!(STAGE.to_str(), Ok(crate::mounts::STAGE));
        assert!([UPPER, WORK, DEV, MERGED].iter().all(|path| path.to_bytes().starts_with(STAGE.to_bytes())));
    }

    #[test]
    fn the_uppermost_layer_comes_first_and_a_writable_root_has_an_upper() {
        let Shape::Writable { options } = base(&container()).unwrap().shape else { panic!("not writable") };
        let expected =
            c"lowerdir=1:0,upperdir=/run/coracle/stage/upper,workdir=/run/coracle/stage/work".to_owned();
        assert_eq!(options, expected);
    }

    #[test]
    fn a_read_only_root_of_one_layer_is_that_layer() {
        let single = Container { layers: vec![7], read_only: true, ..container() };
        let single = base(&single).unwrap();
        assert!(matches!(single.shape, Shape::Single));
        assert_eq!(*single.layers, [c"7".to_owned()]);
        let merged = Container { layers: vec![7, 8], read_only: true, ..container() };
        let Shape::Merged { options } = base(&merged).unwrap().shape else { panic!("not merged") };
        assert_eq!(options, c"lowerdir=7:8".to_owned());
    }

    #[test]
    fn five_hundred_layers_fit_into_one_page_of_options() {
        let many = Container { layers: (500..1000).collect(), ..container() };
        let Shape::Writable { options } = base(&many).unwrap().shape else { panic!("not writable") };
        assert!(options.as_bytes().len() < 4096, "{}", options.as_bytes().len());
    }
}
