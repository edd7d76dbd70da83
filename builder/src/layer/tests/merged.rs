//! The tree that two layers make is the one that overlayfs shows, and the one that `umoci unpack` makes.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use super::{Archive, converted};
use crate::artifact::erofs::{Image, Kind};
use crate::layer::{Tree, names};

/// A tree as paths with what can be compared: type, size or target, mode.
type Shown = BTreeMap<String, String>;

fn shown(tree: &Tree) -> Shown {
    let mut found = Shown::new();
    let mut waiting = vec![tree.find(b"").unwrap().unwrap()];
    while let Some(folder) = waiting.pop() {
        for name in tree.list(&folder).unwrap() {
            let path = names::joined(&folder.path, &name);
            let child = tree.find_exactly(&path).unwrap().unwrap();
            let what = match &child.inode.kind {
                Kind::Directory => "folder".to_owned(),
                Kind::File { size } => format!("file {size}"),
                Kind::Symlink(target) => format!("link {}", target.escape_ascii()),
                other => format!("{other:?}"),
            };
            let line = format!("{what} {:o} {}", child.inode.metadata.mode, child.inode.metadata.uid);
            found.insert(String::from_utf8(path).unwrap(), line);
            if child.inode.kind == Kind::Directory {
                waiting.push(child);
            }
        }
    }
    found
}

fn shown_by_the_kernel(root: &Path) -> Shown {
    let mut found = Shown::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            let kind = metadata.file_type();
            assert!(!kind.is_char_device() || metadata.rdev() != 0);
            let what = if kind.is_dir() {
                waiting.push(path.clone());
                "folder".to_owned()
            } else if kind.is_symlink() {
                format!("link {}", std::fs::read_link(&path).unwrap().display())
            } else {
                format!("file {}", metadata.len())
            };
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.insert(name, format!("{what} {:o} {}", metadata.mode() & 0o7777, metadata.uid()));
        }
    }
    found
}

/// Two layers; the upper one has what is hard to merge.
fn archives() -> [Vec<u8>; 2] {
    let lower = Archive::default()
        .folder("usr/")
        .folder("usr/bin/")
        .file("usr/bin/sh", "shell")
        .folder("srv/")
        .folder("srv/www/")
        .file("srv/www/index.html", "1")
        .file("srv/www/other.html", "22")
        .folder("etc/")
        .file("etc/passwd", "")
        .folder("etc/deep/")
        .file("etc/deep/file", "")
        .file("becomes-folder", "")
        .folder("becomes-file/")
        .file("becomes-file/gone", "")
        .link("bin", "usr/bin");
    let upper = Archive::default()
        .file("srv/www/.wh.index.html", "")
        .file("etc/.wh..wh..opq", "")
        .file("etc/own", "own")
        .file("bin/tool", "tool")
        .folder("becomes-folder/")
        .file("becomes-folder/file", "4444")
        .file("becomes-file", "55555")
        .hard_link("copy", "srv/www/other.html");
    [lower.end(), upper.end()]
}

fn image(bytes: &[u8]) -> Image {
    Image::from_bytes(bytes.to_vec()).unwrap()
}

#[test]
fn overlayfs_shows_the_same_tree() {
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
        return eprintln!("skipped: only root with loop devices can mount");
    }
    let [lower, upper] = archives();
    // Whiteouts of nothing, where overlayfs has something to join with and where not.
    let more = Archive::default().file("srv/www/.wh.never-was", "").file("fresh/.wh.nothing", "").end();
    let upper = [&upper[..upper.len() - 1024], &more].concat();
    let lower = converted(&lower, &Tree::default()).unwrap().1;
    let mut tree = Tree::new(vec![image(&lower)]);
    let upper = converted(&upper, &tree).unwrap().1;
    tree.push(image(&upper));

    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("lower.erofs"), lower).unwrap();
    std::fs::write(at("upper.erofs"), upper).unwrap();
    let run =
        |script: &str| Command::new("sh").args(["-c", script, "sh"]).arg(folder.path()).status().unwrap();
    let mounted = run("set -e; cd \"$1\"; mkdir lower upper merged
        mount -t erofs -o loop lower.erofs lower
        mount -t erofs -o loop upper.erofs upper
        mount -t overlay -o lowerdir=upper:lower none merged");
    let found = mounted.success().then(|| std::panic::catch_unwind(|| shown_by_the_kernel(&at("merged"))));
    run("cd \"$1\"; for name in merged upper lower; do umount $name; done");
    match found {
        Some(found) => assert_eq!(found.unwrap(), shown(&tree)),
        None => eprintln!("skipped: this machine cannot mount an overlay of EROFS images"),
    }
}

#[test]
fn umoci_unpacks_the_same_tree() {
    if !rustix::process::geteuid().is_root() || Command::new("umoci").arg("--version").output().is_err() {
        return eprintln!("skipped: only root with umoci can unpack a layer with its owners");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut tree = Tree::default();
    let umoci = |arguments: &[&str]| {
        let output = Command::new("umoci").args(arguments).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    umoci(&["init", "--layout", "layout"]);
    umoci(&["new", "--image", "layout:tag"]);
    for archive in archives() {
        tree.push(image(&converted(&archive, &tree).unwrap().1));
        std::fs::write(folder.path().join("layer.tar"), archive).unwrap();
        umoci(&["raw", "add-layer", "--image", "layout:tag", "layer.tar"]);
    }
    umoci(&["unpack", "--image", "layout:tag", "bundle"]);
    assert_eq!(shown_by_the_kernel(&folder.path().join("bundle/rootfs")), shown(&tree));
}
