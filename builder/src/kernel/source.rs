//! From the config's kernel to files in a folder: unpacked once into the store, or used where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Kernel, find_builtin, find_modules, image, package, parse_options};
use crate::config::KernelSource;
use crate::error::{Context, Error, Result};
use crate::fetch::Image;
use crate::lock::Lock;
use crate::progress::say;
use crate::store::Store;

/// Opens the kernel that the config names and the lock pins. `images` are the fetched ones, of which one may be the
/// kernel's.
pub fn open(source: &KernelSource, lock: &Lock, images: &[Image], store: &Store) -> Result<Kernel> {
    match source {
        KernelSource::Package(name) => {
            let locked = lock.kernel.as_ref().filter(|locked| locked.package == *name);
            let locked =
                locked.ok_or_else(|| Error::new(format!("kernel package `{name}` is not in the lock")))?;
            let label = format!("kernel package `{}` {}", locked.resolved, locked.version);
            unpacked(label, store, &locked.sha256, |folder| package::unpack(locked, folder))
        }
        KernelSource::Image(reference) => {
            let written = reference.to_string();
            let image = images.iter().find(|image| image.reference == written);
            let image =
                image.ok_or_else(|| Error::new(format!("kernel image `{written}` is not in the lock")))?;
            unpacked(format!("kernel image `{written}`"), store, &image.digest.hex(), |folder| {
                image::unpack(image, folder)
            })
        }
        KernelSource::Files { image, modules } => {
            let label = format!("kernel `{}`", image.display());
            check_image(image)?;
            let options = beside(image).and_then(|path| std::fs::read_to_string(path).ok());
            Ok(Kernel {
                label,
                image: image.clone(),
                options: options.as_deref().map(parse_options),
                modules: modules.as_deref().map_or(Ok(BTreeMap::new()), find_modules)?,
                builtin: modules.as_deref().map_or_else(BTreeSet::new, find_builtin),
                ready: None,
            })
        }
    }
}

/// The kernel in the store that is unpacked by `unpack` when it is not there yet.
fn unpacked(
    label: String,
    store: &Store,
    id: &str,
    unpack: impl FnOnce(&Path) -> Result<()>,
) -> Result<Kernel> {
    let folder = store.kernel_path(id);
    let doing = || format!("unpack a kernel into `{}`", folder.display());
    if let Err(error) = check_image(&folder.join("vmlinuz")) {
        let kernels = store.kernel_path("");
        std::fs::create_dir_all(&kernels).doing(doing)?;
        let draft = tempfile::tempdir_in(&kernels).doing(doing)?;
        if folder.exists() {
            say(format_args!("{error}; unpacking it again"));
            std::fs::rename(&folder, draft.path().join("damaged")).doing(doing)?;
        }
        let whole = draft.path().join("whole");
        std::fs::create_dir(&whole).doing(doing)?;
        unpack(&whole)?;
        check_image(&whole.join("vmlinuz"))?;
        std::fs::create_dir(whole.join("ready")).doing(doing)?;
        // The folder's name must not outlive a power failure that the files in it did not.
        rustix::fs::syncfs(File::open(&whole).doing(doing)?).doing(doing)?;
        // Another build may have been faster: its folder has the same content, and this one is dropped.
        if let Err(cause) = std::fs::rename(&whole, &folder)
            && !folder.exists()
        {
            return Err(cause).doing(doing);
        }
    }
    let modules = folder.join("modules");
    Ok(Kernel {
        label,
        image: folder.join("vmlinuz"),
        options: std::fs::read_to_string(folder.join("config")).ok().as_deref().map(parse_options),
        modules: find_modules(&modules)?,
        builtin: find_builtin(&modules),
        ready: Some(folder.join("ready")),
    })
}

/// The configuration that stands beside a kernel: `config-6.1.0` beside `vmlinuz-6.1.0`, or `config` beside any.
fn beside(image: &Path) -> Option<PathBuf> {
    let name = image.file_name()?.to_str()?;
    let release = name.split_once('-').map(|(_, release)| image.with_file_name(format!("config-{release}")));
    release.into_iter().chain([image.with_file_name("config")]).find(|path| path.exists())
}

/// Refuses what a boot loader could not start, so that it is found here and not on a silent screen.
fn check_image(path: &Path) -> Result<()> {
    let doing = || format!("read kernel `{}`", path.display());
    let mut head = Vec::new();
    File::open(path).doing(doing)?.take(0x206).read_to_end(&mut head).doing(doing)?;
    // Linux, Documentation/arch/x86/boot.rst: the setup header's magic is at 0x202.
    let is_bzimage = head.get(0x202..0x206) == Some(b"HdrS");
    if is_bzimage || head.starts_with(b"\x7fELF") {
        return Ok(());
    }
    Err(Error::new(format!(
        "`{}` is no Linux kernel for x86-64: neither a bzImage nor a vmlinux",
        path.display()
    )))
}
