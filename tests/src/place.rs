//! A folder of a test's own in which machines are built that nobody boots.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{coracle, demo_image, folder};

/// What a kernel must have, all built in: no build looks further into it.
const OPTIONS: &[&str] = &[
    "ACPI_BUTTON",
    "BLK_DEV_INITRD",
    "BLK_DEV_LOOP",
    "CGROUPS",
    "CGROUP_BPF",
    "CGROUP_PIDS",
    "DEVTMPFS",
    "EPOLL",
    "EROFS_FS",
    "EROFS_FS_XATTR",
    "INET",
    "INPUT_EVDEV",
    "IPC_NS",
    "MEMCG",
    "OVERLAY_FS",
    "PID_NS",
    "PROC_FS",
    "SECCOMP_FILTER",
    "SIGNALFD",
    "SYSFS",
    "TMPFS",
    "UNIX",
    "USER_NS",
    "UTS_NS",
    "VIRTIO_CONSOLE",
    "VIRTIO_NET",
    "VIRTIO_PCI",
];

/// Puts a kernel that nobody boots into a folder, as `bzImage` and `config`; it has these further options.
pub fn put_kernel(folder: &Path, further: &[&str]) {
    let mut kernel = vec![0; 8 << 20];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    fs::write(folder.join("bzImage"), kernel).unwrap();
    let options = OPTIONS.iter().chain(further).map(|option| format!("CONFIG_{option}=y\n"));
    fs::write(folder.join("config"), options.collect::<String>()).unwrap();
}

/// A config, a store and an output folder of a test's own, empty at first.
pub struct Place {
    /// The folder.
    pub root: PathBuf,
}

impl Place {
    /// A machine with an image of two layers, an image that is a folder, and a kernel that nobody boots.
    pub fn new(name: &str) -> Self {
        let place = Self::empty(name);
        put_kernel(&place.root, &[]);
        place.image("app");
        place.config(&format!(
            "[kernel]\npath = \"bzImage\"\n[service.web]\nimage = \"{}\"\n\
             [service.app]\nimage = \"dir:image\"\ncommand = [\"/bin/app\"]\ntmpfs = [\"/scratch\"]\n\
             [[file]]\npath = \"/srv/file\"\nsource = \"image/bin/app\"\n",
            demo_image("nginx")
        ));
        place
    }

    /// The same without a config.
    pub fn empty(name: &str) -> Self {
        let root = folder("builds").join(name);
        if root.exists() {
            fs::remove_dir_all(&root).unwrap();
        }
        fs::create_dir_all(&root).unwrap();
        Self { root }
    }

    /// The image that is a folder, with a program that nobody runs.
    pub fn image(&self, program: &str) {
        let path = self.path("image/bin/app");
        fs::create_dir_all(self.path("image/bin")).unwrap();
        fs::write(&path, program).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    /// Writes the config, but for the machine's name.
    pub fn config(&self, text: &str) {
        fs::write(self.path("m.toml"), format!("name = \"m\"\n{text}")).unwrap();
    }

    /// A path in this place.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// `coracle build m.toml -o out` with this place's store.
    pub fn build(&self) -> Command {
        self.build_into("out")
    }

    /// The same into another folder.
    pub fn build_into(&self, output: &str) -> Command {
        self.coracle(&["build", "m.toml", "-o", output])
    }

    /// `coracle` with this place's store.
    pub fn coracle(&self, arguments: &[&str]) -> Command {
        let mut command = coracle();
        command.current_dir(&self.root).env("CORACLE_CACHE", self.path("store")).args(arguments);
        command
    }

    /// Builds the machine.
    pub fn builds(&self) {
        self.succeeds(&mut self.build());
    }

    /// What a command says that has to succeed.
    pub fn succeeds(&self, command: &mut Command) -> String {
        let Output { status, stderr, .. } = command.output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert!(status.success(), "{command:?}: {said}");
        said
    }

    /// What a failing command says, without this place's path.
    pub fn fails(&self, command: &mut Command) -> String {
        let Output { status, stderr, .. } = command.output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{command:?}: {said}");
        let errors = said.lines().filter(|line| !line.starts_with("coracle: ")).collect::<Vec<_>>();
        errors.join("\n").replace(&format!("{}/", self.root.display()), "")
    }

    /// What was built.
    pub fn artifacts(&self) -> Artifacts {
        ["m-kernel", "m-initramfs.img", "m-cmdline"]
            .map(|file| fs::read(self.path("out").join(file)).unwrap())
    }

    /// The files in the store whose paths have one of these endings.
    pub fn stored(&self, endings: &[&str]) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.path("store")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if endings.iter().any(|ending| path.to_str().unwrap().ends_with(ending)) {
                    found.push(path);
                }
            }
        }
        found.sort();
        assert!(!found.is_empty(), "the store has no file that ends with one of {endings:?}");
        found
    }
}

/// The kernel, the initramfs and the command line.
pub type Artifacts = [Vec<u8>; 3];

/// Artifacts are too long to be printed.
pub fn assert_same(one: &Artifacts, other: &Artifacts, what: &str) {
    for (index, name) in ["kernel", "initramfs", "cmdline"].iter().enumerate() {
        assert!(one[index] == other[index], "{what}: the {name} differs");
    }
}

/// The names in a folder, hidden ones too; none of a folder that is not there.
pub fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
