//! Kernels from images in LinuxKit's layout: `/kernel` is the bzImage, `/kernel.tar` holds `lib/modules/RELEASE`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::module;
use crate::error::{Context, Error, Result};
use crate::fetch::Image;

/// Copies kernel and modules out of the layers of an image, each to a place of its own in `folder`.
pub fn unpack(image: &Image, folder: &Path) -> Result<()> {
    let modules = folder.join("modules");
    std::fs::create_dir(&modules).doing(|| format!("make `{}`", modules.display()))?;
    for layer in &image.layers {
        let mut stream = layer.open()?;
        let mut tar = tar::Archive::new(&mut stream);
        for entry in tar.entries().doing(|| "read a layer")? {
            let mut entry = entry.doing(|| "read a layer")?;
            match entry.path_bytes().strip_prefix(b"./").unwrap_or(&entry.path_bytes()) {
                b"kernel" => copy(&mut entry, &folder.join("vmlinuz"))?,
                b"kernel.tar" => unpack_modules(&mut entry, folder)?,
                b"kernel_config" => copy(&mut entry, &folder.join("config"))?,
                _ => {}
            }
        }
        // The rest of the stream carries the layer's digest.
        std::io::copy(&mut stream, &mut std::io::sink()).doing(|| "read a layer")?;
    }
    if folder.join("vmlinuz").exists() {
        return Ok(());
    }
    Err(Error::new(format!("image `{}` holds no `/kernel`", image.reference))
        .hint("a kernel image has LinuxKit's layout: /kernel is the bzImage, /kernel.tar the modules"))
}

fn unpack_modules(archive: &mut impl Read, folder: &Path) -> Result<()> {
    let mut tar = tar::Archive::new(archive);
    for entry in tar.entries().doing(|| "read `kernel.tar`")? {
        let mut entry = entry.doing(|| "read `kernel.tar`")?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some(file) = path.rsplit('/').next() else { continue };
        let useful =
            module::name(file).is_some() || file == "modules.builtin" || file == "modules.builtin.modinfo";
        if entry.header().entry_type().is_file() && useful {
            copy(&mut entry, &folder.join("modules").join(file))?;
        }
    }
    Ok(())
}

fn copy(from: &mut impl Read, to: &Path) -> Result<()> {
    let mut file = File::create(to).doing(|| format!("create `{}`", to.display()))?;
    std::io::copy(from, &mut file).doing(|| format!("unpack `{}`", to.display()))?;
    Ok(())
}
