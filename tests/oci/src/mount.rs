//! Mounts: those that every container has are checked against what it has, all others become mounts of the bundle.

use init::container::{BundleMount, Source};
use manifest::mask::{MASKS, Mask};
use nix::libc;

use crate::Result;
use crate::config::{Linux, Mount};

/// A mount that the container code makes by itself, and what may be asked of it: that is so, or makes no difference.
struct Standard {
    target: &'static str,
    kind: &'static str,
    options: &'static [&'static str],
    /// Keys whose values make no difference to who may do what.
    keys: &'static [&'static str],
}

const STANDARD: [Standard; 6] = [
    Standard {
        target: "/proc",
        kind: "proc",
        options: &["nosuid", "noexec", "nodev", "hidepid=2", "hidepid=invisible"],
        keys: &[],
    },
    Standard { target: "/sys", kind: "sysfs", options: &["nosuid", "noexec", "nodev", "ro"], keys: &[] },
    Standard {
        target: "/dev",
        kind: "tmpfs",
        options: &["nosuid", "noexec", "strictatime", "mode=755", "mode=0755"],
        keys: &["size="],
    },
    Standard {
        target: "/dev/pts",
        kind: "devpts",
        options: &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        keys: &[],
    },
    Standard {
        target: "/dev/shm",
        kind: "tmpfs",
        options: &["nosuid", "noexec", "nodev", "mode=1777"],
        keys: &["size="],
    },
    Standard { target: "/dev/mqueue", kind: "mqueue", options: &["nosuid", "noexec", "nodev"], keys: &[] },
];

/// Kinds of file systems that a bundle may ask for, by OCI's names and the kernel's.
const KINDS: [(&str, &str); 6] = [
    ("tmpfs", "tmpfs"),
    ("proc", "proc"),
    ("sysfs", "sysfs"),
    ("mqueue", "mqueue"),
    ("devpts", "devpts"),
    ("cgroup", "cgroup2"),
];

/// Options that are attributes: what they add, and what they take away.
const ATTRIBUTES: [(&str, u64, u64); 15] = [
    ("ro", libc::MOUNT_ATTR_RDONLY, 0),
    ("rw", 0, libc::MOUNT_ATTR_RDONLY),
    ("nosuid", libc::MOUNT_ATTR_NOSUID, 0),
    ("suid", 0, libc::MOUNT_ATTR_NOSUID),
    ("nodev", libc::MOUNT_ATTR_NODEV, 0),
    ("dev", 0, libc::MOUNT_ATTR_NODEV),
    ("noexec", libc::MOUNT_ATTR_NOEXEC, 0),
    ("exec", 0, libc::MOUNT_ATTR_NOEXEC),
    ("relatime", libc::MOUNT_ATTR_RELATIME, libc::MOUNT_ATTR__ATIME),
    ("noatime", libc::MOUNT_ATTR_NOATIME, libc::MOUNT_ATTR__ATIME),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME, libc::MOUNT_ATTR__ATIME),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME, 0),
    ("diratime", 0, libc::MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
    ("symfollow", 0, libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// What the mounts of a config come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mounts {
    /// In their order.
    pub(crate) of_bundle: Vec<BundleMount>,
    /// Bytes of `/dev/shm`.
    pub(crate) shm_size: u64,
    /// Paths of the table of masks that are as the kernel has them.
    pub(crate) unmasked: Vec<String>,
    /// Masks beside that table.
    pub(crate) masks: Vec<(String, Mask)>,
}

/// Translates all of them, with what `linux` says of paths.
pub(crate) fn translate(mounts: &[Mount], linux: &Linux) -> Result<Mounts> {
    let mut result = Mounts { shm_size: 64 << 20, ..Mounts::default() };
    let mut asked: Vec<(&str, Mask)> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, mount) in mounts.iter().enumerate() {
        let refused = |what: String| format!("mounts[{index}]: {what}");
        if mount.uid_mappings.is_some() || mount.gid_mappings.is_some() {
            return Err(refused("uidMappings and gidMappings are for layers only".to_owned()));
        }
        if !mount.destination.starts_with('/') {
            return Err(refused(format!("destination `{}` is not absolute", mount.destination)));
        }
        let standard = STANDARD.iter().find(|standard| {
            standard.target == mount.destination
                && standard.kind == mount.kind
                && !seen.contains(&standard.target)
        });
        let Some(standard) = standard else {
            result.of_bundle.push(of_bundle(mount).map_err(refused)?);
            continue;
        };
        seen.push(standard.target);
        check(standard, mount).map_err(refused)?;
        let has = |option: &str| mount.options.iter().any(|written| written == option);
        match standard.target {
            "/proc" if has("hidepid=2") || has("hidepid=invisible") => {
                asked.push(("/proc", Mask::OwnProcesses))
            }
            "/sys" if has("ro") => asked.push(("/sys", Mask::ReadOnly)),
            "/dev/shm" => {
                if let Some(size) = mount.options.iter().find_map(|option| option.strip_prefix("size=")) {
                    result.shm_size = bytes(size).ok_or_else(|| refused(format!("`{size}` is no size")))?;
                }
            }
            _ => {}
        }
    }
    asked.extend(linux.masked_paths.iter().map(|path| (path.as_str(), Mask::Hidden)));
    asked.extend(linux.readonly_paths.iter().map(|path| (path.as_str(), Mask::ReadOnly)));
    let table = MASKS.iter().filter(|row| !asked.contains(row));
    result.unmasked = table.map(|(path, _)| (*path).to_owned()).collect();
    let further = asked.into_iter().filter(|row| !MASKS.contains(row));
    result.masks = further.map(|(path, mask)| (path.to_owned(), mask)).collect();
    Ok(result)
}

fn check(standard: &Standard, mount: &Mount) -> Result<()> {
    let is_so = |option: &&String| {
        standard.options.contains(&option.as_str()) || standard.keys.iter().any(|key| option.starts_with(key))
    };
    match mount.options.iter().find(|option| !is_so(option)) {
        None => Ok(()),
        Some(option) => Err(format!("the {} that every container has is not `{option}`", standard.target)),
    }
}

fn of_bundle(mount: &Mount) -> Result<BundleMount> {
    let mut result = BundleMount {
        target: mount.destination.clone(),
        source: Source::Place { path: mount.source.clone(), recursive: false },
        add: 0,
        remove: 0,
    };
    let mut is_bind = mount.kind == "bind";
    let mut is_recursive = false;
    let mut rest = Vec::new();
    for option in &mount.options {
        if let Some((_, add, remove)) = ATTRIBUTES.iter().find(|(name, _, _)| name == option) {
            result.add = result.add & !remove | add;
            result.remove = result.remove & !add | remove;
            continue;
        }
        match option.as_str() {
            "bind" => is_bind = true,
            "rbind" => (is_bind, is_recursive) = (true, true),
            // As all mounts of a container are.
            "private" | "rprivate" => {}
            other => rest.push(other),
        }
    }
    if is_bind {
        if let Some(option) = rest.first() {
            return Err(format!("a bind mount has no option `{option}`"));
        }
        let path = std::fs::canonicalize(&mount.source)
            .map_err(|error| format!("source `{}`: {error}", mount.source))?;
        let path = path.to_str().ok_or("source is no UTF-8")?.to_owned();
        result.source = Source::Place { path, recursive: is_recursive };
        return Ok(result);
    }
    let kind = KINDS.iter().find(|(name, _)| *name == mount.kind);
    let (_, kind) = kind.ok_or_else(|| format!("type `{}` is none that a container can have", mount.kind))?;
    let option = |written: &str| match written.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (written.to_owned(), None),
    };
    result.source = Source::New { kind: (*kind).to_owned(), options: rest.into_iter().map(option).collect() };
    Ok(result)
}

/// A size as tmpfs takes it.
fn bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.char_indices().last()? {
        (end, 'k' | 'K') => (text.get(..end)?, 10),
        (end, 'm' | 'M') => (text.get(..end)?, 20),
        (end, 'g' | 'G') => (text.get(..end)?, 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_shl(shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(destination: &str, kind: &str, options: &[&str]) -> Mount {
        Mount {
            destination: destination.to_owned(),
            kind: kind.to_owned(),
            source: "/".to_owned(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            uid_mappings: None,
            gid_mappings: None,
        }
    }

    fn of(mounts: &[Mount]) -> Result<Mounts> {
        translate(mounts, &Linux::default())
    }

    #[test]
    fn what_every_container_has_is_no_mount_of_the_bundle() {
        let usual = [
            mount("/proc", "proc", &[]),
            mount("/sys", "sysfs", &["nosuid", "ro"]),
            mount("/dev/shm", "tmpfs", &["mode=1777", "size=2k"]),
        ];
        let found = of(&usual).unwrap();
        assert_eq!((found.of_bundle, found.shm_size, found.masks), (vec![], 2048, vec![]));
        assert_eq!(found.unmasked.len(), MASKS.len() - 1, "only /sys is masked");
        let message = of(&[mount("/proc", "proc", &["ro"])]).unwrap_err();
        assert_eq!(message, "mounts[0]: the /proc that every container has is not `ro`");
    }

    #[test]
    fn a_second_mount_at_the_same_place_is_one_of_the_bundle() {
        let found = of(&[mount("/dev", "tmpfs", &[]), mount("/dev", "bind", &["rbind", "rw"])]).unwrap();
        let source = Source::Place { path: "/".to_owned(), recursive: true };
        let remove = libc::MOUNT_ATTR_RDONLY;
        assert_eq!(found.of_bundle, [BundleMount { target: "/dev".to_owned(), source, add: 0, remove }]);
    }

    #[test]
    fn the_last_of_two_contrary_options_counts() {
        for (options, add, remove) in [
            (&["ro", "rw"][..], 0, libc::MOUNT_ATTR_RDONLY),
            (&["dev", "nodev"], libc::MOUNT_ATTR_NODEV, 0),
            (&["noatime", "strictatime"], libc::MOUNT_ATTR_STRICTATIME, libc::MOUNT_ATTR__ATIME),
        ] {
            let found = of(&[mount("/a", "tmpfs", options)]).unwrap();
            assert_eq!((found.of_bundle[0].add, found.of_bundle[0].remove), (add, remove), "{options:?}");
        }
    }

    #[test]
    fn what_has_no_words_is_refused_by_its_place() {
        for (mount, message) in [
            (mount("/a", "bind", &["rslave"]), "mounts[0]: a bind mount has no option `rslave`"),
            (mount("/a", "ext4", &[]), "mounts[0]: type `ext4` is none that a container can have"),
            (mount("a", "tmpfs", &[]), "mounts[0]: destination `a` is not absolute"),
        ] {
            assert_eq!(of(&[mount]).unwrap_err(), message);
        }
    }
}
