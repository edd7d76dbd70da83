//! Kernels from Debian packages: which version there is, and its files in the store.
//!
//! apt is asked, so that its sources, keys and proxies are the user's own; `APT_CONFIG` chooses another set.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::module;
use crate::archive::{Archive, EntryKind};
use crate::artifact::erofs::Kind;
use crate::error::{Context, Error, Result, shown};
use crate::lock::Kernel as LockedKernel;
use crate::oci::descriptor::Digest;
use crate::tool::Tool;

const APT_CACHE: Tool = Tool { program: "apt-cache", package: "apt" };
const APT_GET: Tool = Tool { program: "apt-get", package: "apt" };

/// How many packages that only depend on another one are followed.
const MAX_META: usize = 4;

/// The newest version of a kernel package that apt offers; a package that only depends on the kernel's is followed.
pub fn resolve(package: &str) -> Result<LockedKernel> {
    let mut resolved = package.to_owned();
    for _ in 0..MAX_META {
        let fields = show(&resolved)?;
        let field = |name: &str| {
            let value = fields.get(name).cloned();
            value.ok_or_else(|| Error::new(format!("apt knows no {name} of package `{resolved}`")))
        };
        let depends = fields.get("Depends").map_or("", String::as_str);
        // `linux-image-cloud-amd64` depends on `linux-image-6.1.0-56-cloud-amd64`, which holds the files.
        let next = depends.split(',').filter_map(|dependency| dependency.split_whitespace().next());
        if let Some(next) = next.into_iter().find(|name| name.starts_with("linux-image-")) {
            resolved = next.to_owned();
            continue;
        }
        let sha256: Digest = format!("sha256:{}", field("SHA256")?).parse().map_err(Error::new)?;
        let (package, version) = (package.to_owned(), field("Version")?);
        return Ok(LockedKernel { package, resolved, version, sha256: sha256.hex() });
    }
    Err(Error::new(format!(
        "cannot find the kernel behind package `{package}`: its dependencies lead on and on"
    )))
}

/// The fields of a package's newest version.
fn show(package: &str) -> Result<BTreeMap<String, String>> {
    let output = APT_CACHE.output(Path::new("/"), &["show", "--no-all-versions", package]).map_err(|error| {
        error.within(format!("cannot find kernel package `{package}`")).or_hint(
            "`apt-get update` fetches the lists of packages; `apt-cache search linux-image-` prints the kernels there are",
        )
    })?;
    let text = String::from_utf8_lossy(&output);
    let first = text.split("\n\n").next().unwrap_or_default();
    let pairs = first.lines().filter(|line| !line.starts_with(' ')).filter_map(|line| line.split_once(": "));
    Ok(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

/// Downloads the locked package and unpacks what a machine may need of it into `folder`, which is empty.
pub fn unpack(locked: &LockedKernel, folder: &Path) -> Result<()> {
    let what = format!("{}={}", locked.resolved, locked.version);
    let download =
        tempfile::tempdir_in(folder).doing(|| format!("make a folder in `{}`", folder.display()))?;
    // The sandbox user of apt may not enter our folder; apt then only warns, which nobody needs to see.
    APT_GET.output(download.path(), &["-o", "APT::Sandbox::User=root", "download", &what]).map_err(|error| {
        error.within(format!("cannot download kernel package `{what}`")).or_hint(
            "when the version is no longer offered, delete the [kernel] table of the lock file to take the newest one",
        )
    })?;
    let doing = || format!("read kernel package `{what}`");
    let mut entries = std::fs::read_dir(download.path()).doing(doing)?;
    let path =
        entries.next().ok_or_else(|| Error::new(format!("apt-get downloaded no file for `{what}`")))?;
    let path = path.doing(doing)?.path();
    verify(&path, &locked.sha256).map_err(|error| error.within(format!("kernel package `{what}`")))?;
    let file = File::open(&path).doing(doing)?;
    extract(file, folder).map_err(|error| error.within(format!("kernel package `{what}`")))?;
    download.close().doing(|| format!("remove `{}`", path.display()))
}

fn verify(path: &Path, sha256: &str) -> Result<()> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path).doing(|| format!("open `{}`", path.display()))?;
    let mut chunk = vec![0; 1 << 17];
    loop {
        let count = file.read(&mut chunk).doing(|| format!("read `{}`", path.display()))?;
        if count == 0 {
            break;
        }
        hasher.update(&chunk[..count]);
    }
    let found = Digest::from_hasher(hasher);
    if found.hex() == sha256 {
        return Ok(());
    }
    Err(Error::new(format!("the lock file says sha256 {sha256}, the download has {}", found.hex())))
}

/// Copies kernel, configuration and modules out of a package, each to a place of its own in `folder`.
fn extract(deb: impl Read, folder: &Path) -> Result<()> {
    let modules = folder.join("modules");
    std::fs::create_dir(&modules).doing(|| format!("make `{}`", modules.display()))?;
    let mut archive = Archive::new("`data.tar`", super::deb::data(deb)?);
    while let Some(entry) = archive.next()? {
        let EntryKind::Node(Kind::File { .. }) = entry.kind else { continue };
        let Some(target) = place(&String::from_utf8_lossy(&entry.name)) else { continue };
        let target = folder.join(target);
        let mut file = File::create(&target).doing(|| format!("create `{}`", target.display()))?;
        std::io::copy(&mut archive.contents(), &mut file)
            .doing(|| format!("unpack `{}`", shown(&entry.name)))?;
    }
    if folder.join("vmlinuz").exists() { Ok(()) } else { Err(Error::new("it holds no /boot/vmlinuz-*")) }
}

/// Where a file of the package goes, if it is of use: the last component is all that is taken from its name.
fn place(path: &str) -> Option<String> {
    // Packages are made with `./` in front, and need not be.
    let path = format!("/{path}");
    let file = path.rsplit('/').next()?;
    if path.contains("/boot/") {
        return match file.split_once('-')?.0 {
            "vmlinuz" => Some("vmlinuz".to_owned()),
            "config" => Some("config".to_owned()),
            _ => None,
        };
    }
    (path.contains("/lib/modules/") && module::is_useful(file)).then(|| format!("modules/{file}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::mend_sums;
    use crate::kernel::deb::tests::member;
    use crate::kernel::tests::archive;

    #[test]
    fn only_what_a_machine_needs_is_unpacked_and_never_outside_the_folder() {
        for (path, expected) in [
            ("./boot/vmlinuz-6.1.0-56-cloud-amd64", Some("vmlinuz")),
            ("./boot/config-6.12.117+deb13-cloud-amd64", Some("config")),
            ("boot/vmlinuz-6.1", Some("vmlinuz")),
            ("./boot/System.map-6.1.0", None),
            ("./lib/modules/6.1/kernel/fs/erofs/erofs.ko", Some("modules/erofs.ko")),
            ("./usr/lib/modules/6.12/kernel/fs/erofs/erofs.ko.xz", Some("modules/erofs.ko.xz")),
            ("./lib/modules/6.1/modules.builtin", Some("modules/modules.builtin")),
            ("./lib/modules/6.1/modules.order", None),
            ("./lib/modules/../../..", None),
            ("./usr/share/doc/boot/copyright", None),
        ] {
            assert_eq!(place(path).as_deref(), expected, "{path}");
        }
    }

    fn package(data: &[u8]) -> Vec<u8> {
        [b"!<arch>\n".to_vec(), member("debian-binary", b"2.0\n"), member("data.tar", data)].concat()
    }

    #[test]
    fn kernel_configuration_and_modules_are_unpacked_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let mut data = archive(&[
            ("./boot/config-6.12", b"CONFIG_A=y"),
            ("./boot/vmlinuz-6.12", b"kernel"),
            ("./usr/lib/modules/6.12/kernel/a.ko.xz", b"module"),
            ("./boot/config-link", b""),
        ]);
        // The last one becomes a link, which says nothing of what was there before.
        data[3 * 1024 + 156] = b'2';
        data[3 * 1024 + 157..][..11].copy_from_slice(b"/etc/passwd");
        mend_sums(&mut data);
        extract(&package(&data)[..], folder.path()).unwrap();
        for (file, contents) in
            [("config", "CONFIG_A=y"), ("vmlinuz", "kernel"), ("modules/a.ko.xz", "module")]
        {
            assert_eq!(std::fs::read_to_string(folder.path().join(file)).unwrap(), contents, "{file}");
        }
    }

    #[test]
    fn no_header_of_a_package_takes_gibibytes_of_memory() {
        for (kind, limit) in [(b'L', "4097"), (b'K', "4097"), (b'x', "1048576"), (b'g', "1048576")] {
            let folder = tempfile::tempdir().unwrap();
            let mut data = archive(&[("./boot/vmlinuz-6.12", b"")]);
            data[124..136].copy_from_slice(b"77777777777\0");
            data[156] = kind;
            mend_sums(&mut data);
            let refusal = extract(&package(&data)[..], folder.path()).unwrap_err().to_string();
            let expected = format!(
                "`data.tar`'s first entry: an extended header has 8589934591 bytes, more than {limit}"
            );
            assert_eq!(refusal, expected);
        }
    }
}
