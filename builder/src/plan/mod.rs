//! The plan: everything that will be written, as data.
//!
//! [`plan`] does no I/O: it takes what the stages before it found out and decides. What it returns can be printed,
//! compared and written.

mod container;
pub mod memory;
mod mount_point;
mod owner;
mod print;
mod privilege;
mod profile;
mod supervision;
mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use manifest::{Ids, Manifest, Name, Namespace, Network, Service as Supervised, Watchdog};

use crate::artifact::erofs::Compression;
use crate::config::{self, Config, FileContent, Port, Service, Userns};
use crate::convert::{Image, Layer};
use crate::error::{Error, Result};
use crate::ids::{self, Ranges};
use crate::kernel::{Module, Needs};
use crate::layer::Special;
use crate::oci::descriptor::Digest;
use crate::root::Roots;
use crate::seccomp;
use crate::source_file::SourceFile;
use crate::target::targets;
pub use print::bytes;
pub use privilege::{Privilege, deny};
pub use supervision::{depends_on, usual_health};

/// Coracle's words on the kernel's command line. The config's own follow and win, since the kernel takes the last.
///
/// The first group is what init relies on: a rootfs that EROFS can mount files of (`ramfs`, not tmpfs), and a reboot
/// instead of a halt when the kernel or PID 1 dies. The second hardens, the third saves time at each boot.
const CMDLINE: &[&str] = &[
    "console=ttyS0",
    "rootfstype=ramfs",
    "panic=5",
    "oops=panic",
    "slab_nomerge",
    "init_on_alloc=1",
    "vsyscall=none",
    "debugfs=off",
    "randomize_kstack_offset=on",
    "quiet",
    "8250.nr_uarts=1",
    "i8042.noaux",
    "i8042.nopnp",
    "cryptomgr.notests",
    "random.trust_cpu=on",
];

/// The largest file of a newc archive: its size has eight hexadecimal digits.
const MAX_INITRAMFS_FILE: u64 = u32::MAX as u64;

/// What the stages before the plan have found.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The machine that is meant.
    pub config: &'a Config,
    /// All images that its services use.
    pub images: &'a [Image],
    /// The user ids that the lock gives to services.
    pub ids: &'a Ranges,
    /// How their layers are compressed, if they are.
    pub compression: Option<Compression>,
    /// What each service's image has at the places that the service needs.
    pub roots: &'a Roots,
    /// The kernel's name for people, and its file.
    pub kernel: (&'a str, &'a SourceFile),
    /// The first two numbers of the kernel's release, where they are known.
    pub release: Option<(u32, u32)>,
    /// The seccomp profiles that services name.
    pub profiles: &'a seccomp::Profiles,
    /// The modules, in load order.
    pub modules: &'a [Module],
    /// The watchdogs that the kernel has drivers for, those of the hardware first.
    pub watchdogs: &'a [&'static str],
    /// PID 1.
    pub init: &'a SourceFile,
    /// The files that `[[file]]` tables name, in the order of the tables that do.
    pub sources: &'a [SourceFile],
}

/// Everything that will be written.
#[derive(Debug, Clone, PartialEq)]
pub struct ImagePlan {
    /// Names the artifacts.
    pub name: Name,
    /// What the kernel is called.
    pub kernel_label: String,
    /// `NAME-kernel`.
    pub kernel: SourceFile,
    /// `NAME-cmdline`.
    pub cmdline: String,
    /// What is on the machine's root, folders before what is in them: `NAME-initramfs.img`.
    pub initramfs: Vec<Entry>,
    /// Part of the initramfs, kept here to be shown.
    pub manifest: Manifest,
    /// The images that each layer belongs to, by the layer's digest.
    pub layer_users: BTreeMap<String, BTreeSet<String>>,
    /// What the images have that gives privileges elsewhere, by their references.
    pub special: BTreeMap<String, Special>,
    /// How the layers of images are compressed, if they are.
    pub compression: Option<Compression>,
    /// The watchdogs that the kernel has drivers for; init takes those that the machine has.
    pub watchdogs: Vec<&'static str>,
    /// What weakens the isolation of services.
    pub privileges: Vec<Privilege>,
    /// What `coracle run` publishes.
    pub ports: Vec<Port>,
}

/// A file of the initramfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Absolute.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What it is.
    pub content: Content,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A folder.
    Folder,
    /// A file made by the plan.
    Bytes(Vec<u8>),
    /// A file that is copied.
    File(SourceFile),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

impl Content {
    /// Bytes of the file; 0 for what has none.
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(file) => file.size,
            Self::Folder | Self::CharDevice { .. } => 0,
        }
    }
}

/// What the machine needs of its kernel, which must be known before there are modules to plan with.
pub fn needs(config: &Config) -> Needs {
    // A read-only root of one layer needs no overlay, but how many layers there are is known later: only a machine
    // that has no containers at all does without.
    let user_namespaces = config.services.iter().any(|service| service.userns == Userns::Private);
    let is_filtered = |service: &Service| service.init || service.seccomp != config::Seccomp::Unconfined;
    let limits = || config.services.iter().map(|service| &service.limits);
    Needs {
        overlay: !config.services.is_empty(),
        user_namespaces,
        network_namespaces: config.services.iter().any(|service| service.profile.network == Namespace::Own),
        seccomp: config.services.iter().any(is_filtered),
        processor_time: limits().any(|limits| limits.processor_millis > 0),
        processor_sets: limits().any(|limits| !limits.processors.is_empty()),
        disk_shares: limits().any(|limits| limits.io_weight > 0),
        vsock: config.control.vsock.is_some(),
        watchdog: config.watchdog.is_some(),
    }
}

/// Decides what is written, or says everything that stands in the way.
pub fn plan(inputs: &Inputs<'_>) -> Result<ImagePlan, Vec<Error>> {
    let config = inputs.config;
    let mut shared = Shared::default();
    let mut services = Vec::new();
    let mut errors = Vec::new();
    let ids = ids::in_use(config, inputs.ids);
    for service in &config.services {
        match supervised(inputs, service, &ids, &mut shared) {
            Ok(supervised) => services.push(supervised),
            Err(error) => {
                errors.push(error.within(format!("{} (image `{}`)", service.path(), service.image)));
            }
        }
    }
    if errors.is_empty() {
        errors = supervision::contradictions(&services);
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let Shared { layers, programs } = shared;
    let manifest = Manifest {
        version: manifest::VERSION,
        name: config.name.clone(),
        modules: inputs.modules.iter().map(|module| module.file.clone()).collect(),
        layers: layers.digests,
        seccomp: programs.into_list(),
        network: Network::Dhcp,
        watchdog: watchdog(config.watchdog),
        control: config.control,
        log: config.log.clone(),
        services,
    };
    let mut cmdline = CMDLINE.join(" ");
    if !config.kernel.cmdline.is_empty() {
        cmdline = format!("{cmdline} {}", config.kernel.cmdline);
    }
    Ok(ImagePlan {
        name: config.name.clone(),
        kernel_label: inputs.kernel.0.to_owned(),
        kernel: inputs.kernel.1.clone(),
        cmdline,
        privileges: privilege::privileges(config, &manifest.services),
        initramfs: initramfs(inputs, &manifest, layers.contents).map_err(|error| vec![error])?,
        manifest,
        layer_users: layers.users,
        compression: inputs.compression,
        watchdogs: inputs.watchdogs.to_vec(),
        special: inputs.images.iter().filter_map(special).collect(),
        ports: config.services.iter().flat_map(|service| service.ports.iter().copied()).collect(),
    })
}

fn watchdog(timeout: Option<Duration>) -> Watchdog {
    let seconds = timeout.and_then(|timeout| u16::try_from(timeout.as_secs()).ok());
    seconds.map_or(Watchdog::None, |timeout| Watchdog::Armed { timeout })
}

/// What is special about an image, if anything is.
fn special(image: &Image) -> Option<(String, Special)> {
    let special = &image.special;
    (*special != Special::default()).then(|| (image.reference.clone(), special.clone()))
}

/// What containers have in common, each thing once.
#[derive(Default)]
struct Shared {
    layers: LayerStore,
    programs: seccomp::Programs,
}

/// A service as init supervises it, its layers and its seccomp program added to what is shared.
fn supervised(
    inputs: &Inputs<'_>,
    service: &Service,
    ids: &Ranges,
    shared: &mut Shared,
) -> Result<Supervised> {
    let reference = service.image.to_string();
    let image = inputs.images.iter().find(|image| image.reference == reference);
    let image = image.ok_or_else(|| Error::new("the image was not fetched"))?;
    let root = inputs.roots.get(&service.path());
    let root =
        root.ok_or_else(|| Error::new("the image was not looked at"))?.as_ref().map_err(Clone::clone)?;
    let ids = match service.userns {
        Userns::Host => Ids::Machine,
        Userns::Private => {
            let first = ids.get(&service.name);
            Ids::Own { first: *first.ok_or_else(|| Error::new("the lock gives it no user ids"))? }
        }
    };
    let names: Vec<&Name> = inputs.config.services.iter().map(|service| &service.name).collect();
    let mut supervised = container::merge(service, &image.defaults, root, ids, &names)?;
    let capabilities = supervised.container.profile.capabilities.bounding;
    let facts = seccomp::Facts { capabilities, kernel: inputs.release };
    supervised.container.seccomp = shared.programs.add(&service.seccomp, inputs.profiles, facts)?;
    if service.init {
        supervised.container.init = Some(shared.programs.add_init()?);
    }
    let layers = &mut shared.layers;
    let targets = targets(inputs.config, service, &image.defaults)?;
    let own = mount_point::layer(&targets, root)?;
    supervised.container.layers.extend(own.map(|bytes| layers.add_own(bytes)));
    for layer in image.layers.iter().rev() {
        let index = layers.add(layer, &reference)?;
        // overlayfs takes each layer once (ELOOP). All that a layer does it does again further up.
        if !supervised.container.layers.contains(&index) {
            supervised.container.layers.push(index);
        }
    }
    Ok(supervised)
}

/// The layers of all containers, each once.
#[derive(Default)]
struct LayerStore {
    digests: Vec<String>,
    contents: Vec<Content>,
    users: BTreeMap<String, BTreeSet<String>>,
}

impl LayerStore {
    /// The index of a layer of an image.
    fn add(&mut self, layer: &Layer, user: &str) -> Result<usize> {
        if layer.file.size > MAX_INITRAMFS_FILE {
            let digest = &layer.digest;
            return Err(Error::new(format!(
                "layer {digest} is larger than the 4 GiB that a file of an initramfs can have"
            )));
        }
        Ok(self.insert(layer.digest.clone(), user, || Content::File(layer.file.clone())))
    }

    /// The index of a layer of the plan's own.
    fn add_own(&mut self, bytes: Vec<u8>) -> usize {
        let digest = Digest::of(&bytes).hex();
        self.insert(digest, "mount points", || Content::Bytes(bytes))
    }

    fn insert(&mut self, digest: String, user: &str, content: impl FnOnce() -> Content) -> usize {
        self.users.entry(digest.clone()).or_default().insert(user.to_owned());
        if let Some(index) = self.digests.iter().position(|known| *known == digest) {
            return index;
        }
        self.digests.push(digest);
        self.contents.push(content());
        self.digests.len() - 1
    }
}

/// What the kernel finds when it unpacks the initramfs.
fn initramfs(inputs: &Inputs<'_>, manifest: &Manifest, layers: Vec<Content>) -> Result<Vec<Entry>> {
    let own = |path: String, mode, content| Entry { path, mode, uid: 0, gid: 0, content };
    let boot_manifest =
        serde_json::to_vec(manifest).map_err(|cause| Error::new(format!("boot manifest: {cause}")))?;
    let mut entries = vec![
        // Without it the kernel starts PID 1 with no standard streams.
        own("/dev/console".into(), 0o600, Content::CharDevice { major: 5, minor: 1 }),
        own("/init".into(), 0o755, Content::File(inputs.init.clone())),
        own(manifest::path::MANIFEST.into(), 0o600, Content::Bytes(boot_manifest)),
    ];
    for module in inputs.modules {
        let path = format!("{}/{}", manifest::path::MODULES, module.file);
        entries.push(own(path, 0o600, Content::Bytes(module.bytes.clone())));
    }
    for (digest, content) in manifest.layers.iter().zip(layers) {
        entries.push(own(format!("{}/{digest}.erofs", manifest::path::LAYERS), 0o600, content));
    }
    let folders_of = |entries: &[Entry]| -> BTreeSet<String> {
        entries.iter().flat_map(|entry| parents(&entry.path)).map(str::to_owned).collect()
    };
    let mut folders: BTreeSet<String> = ["/dev", "/proc", "/run", "/sys"].map(str::to_owned).into();
    folders.extend(folders_of(&entries));
    entries.extend(folders.into_iter().map(|path| own(path, 0o755, Content::Folder)));

    let files = files(inputs)?;
    let folders = folders_of(&files);
    let folders = folders.into_iter().map(|path| own(path, 0o755, Content::Folder));
    for entry in folders.chain(files) {
        let stored = |id| owner::stored(id, &entry.path, &manifest.services);
        entries.push(Entry { uid: stored(entry.uid), gid: stored(entry.gid), ..entry });
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// The files that the config adds, owned as it says.
fn files(inputs: &Inputs<'_>) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut sources = inputs.sources.iter();
    for file in &inputs.config.files {
        let content = match &file.content {
            FileContent::Contents(text) => Content::Bytes(text.clone().into_bytes()),
            FileContent::Source(path) => {
                let source = sources.next();
                let source =
                    source.ok_or_else(|| Error::new(format!("`{}` was not looked at", path.display())))?;
                Content::File(source.clone())
            }
        };
        if content.size() > MAX_INITRAMFS_FILE {
            return Err(Error::new(format!(
                "file `{}` is larger than the 4 GiB that a file of an initramfs can have",
                file.path
            )));
        }
        entries.push(Entry {
            path: file.path.clone(),
            mode: file.mode,
            uid: file.uid,
            gid: file.gid,
            content,
        });
    }
    Ok(entries)
}

/// The folders above an absolute path, the outermost first, without `/`.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(end, _)| &path[..end]).filter(|parent| !parent.is_empty())
}

#[cfg(test)]
mod tests;
