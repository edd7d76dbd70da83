//! Kernels from images in LinuxKit's layout: `/kernel` is the bzImage, `/kernel.tar` holds `lib/modules/RELEASE`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::module;
use crate::archive::{Archive, EntryKind};
use crate::artifact::erofs::Kind;
use crate::error::{Context, Error, Result};
use crate::fetch::Image;

/// Copies kernel and modules out of the layers of an image, each to a place of its own in `folder`.
pub fn unpack(image: &Image, folder: &Path) -> Result<()> {
    let modules = folder.join("modules");
    std::fs::create_dir(&modules).doing(|| format!("make `{}`", modules.display()))?;
    for layer in &image.layers {
        unpack_layer(layer.open()?, folder).map_err(|error| error.within(&layer.name))?;
    }
    if folder.join("vmlinuz").exists() {
        return Ok(());
    }
    Err(Error::new(format!("image `{}` holds no `/kernel`", image.reference))
        .hint("a kernel image has LinuxKit's layout: /kernel is the bzImage, /kernel.tar the modules"))
}

fn unpack_layer(layer: impl Read, folder: &Path) -> Result<()> {
    let mut archive = Archive::new("the layer", layer);
    while let Some(entry) = archive.next()? {
        let EntryKind::Node(Kind::File { .. }) = entry.kind else { continue };
        match entry.name.strip_prefix(b"./").unwrap_or(&entry.name) {
            b"kernel" => copy(archive.contents(), &folder.join("vmlinuz"))?,
            b"kernel.tar" => unpack_modules(archive.contents(), folder)?,
            b"kernel_config" => copy(archive.contents(), &folder.join("config"))?,
            _ => {}
        }
    }
    Ok(())
}

fn unpack_modules(archive: impl Read, folder: &Path) -> Result<()> {
    let mut archive = Archive::new("`kernel.tar`", archive);
    while let Some(entry) = archive.next()? {
        let EntryKind::Node(Kind::File { .. }) = entry.kind else { continue };
        let path = String::from_utf8_lossy(&entry.name);
        if let Some(file) = path.rsplit('/').next().filter(|file| module::is_useful(file)) {
            copy(archive.contents(), &folder.join("modules").join(file))?;
        }
    }
    Ok(())
}

fn copy(mut from: impl Read, to: &Path) -> Result<()> {
    let mut file = File::create(to).doing(|| format!("create `{}`", to.display()))?;
    std::io::copy(&mut from, &mut file).doing(|| format!("unpack `{}`", to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::kernel::tests::archive;

    #[test]
    fn kernel_and_modules_are_found_in_a_layer_and_in_the_archive_inside() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("modules")).unwrap();
        let modules =
            archive(&[("lib/modules/6.12/a.ko", b"module"), ("lib/modules/6.12/modules.order", b"")]);
        let layer = archive(&[("./kernel", b"kernel"), ("kernel.tar", &modules), ("bin/sh", b"no kernel")]);
        unpack_layer(&layer[..], folder.path()).unwrap();
        assert_eq!(fs::read(folder.path().join("vmlinuz")).unwrap(), b"kernel");
        assert_eq!(fs::read(folder.path().join("modules/a.ko")).unwrap(), b"module");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        assert_eq!(fs::read_dir(folder.path().join("modules")).unwrap().count(), 1);
    }

    #[test]
    fn an_archive_that_readers_disagree_about_is_refused_inside_a_layer_too() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("modules")).unwrap();
        let mut modules = archive(&[("lib/modules/6.12/a.ko", b"module"), ("sparse", b"")]);
        modules[1024 + 156] = b'S';
        crate::fuzz::mend_sums(&mut modules);
        let layer = archive(&[("kernel", b"kernel"), ("kernel.tar", &modules)]);
        let refusal = unpack_layer(&layer[..], folder.path()).unwrap_err().to_string();
        let expected = "`kernel.tar`'s entry after `lib/modules/6.12/a.ko`: `sparse`: it is a sparse file, which \
                        layers cannot contain";
        assert_eq!(refusal, expected);
    }
}
