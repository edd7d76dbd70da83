//! Machines made in memory: what the stages before the plan would have found out.

use super::super::{ImagePlan, Inputs, plan};
use crate::artifact::erofs::{self, Kind, Metadata, Writer};
use crate::config::{self, Config};
use crate::convert::{Converted, Layer};
use crate::error::Error;
use crate::ids;
use crate::kernel::Module;
use crate::layer::{Special, Tree};
use crate::oci::descriptor::Digest;
use crate::oci::image::Process;
use crate::root;
use crate::seccomp;
use crate::source_file::SourceFile;

/// Something in a layer.
pub enum Item {
    /// A folder with its mode and its owner.
    Folder(u16, u32),
    /// A file with its contents.
    File(&'static str),
    /// A file that can be run.
    Program,
    /// A symbolic link.
    Link(&'static str),
    /// Something that nothing can be mounted on.
    Fifo,
}

/// Everything that a plan is made from.
pub struct Sample {
    pub config: String,
    pub images: Vec<Converted>,
    pub kernel: (String, SourceFile),
    pub modules: Vec<Module>,
    pub init: SourceFile,
    pub sources: Vec<SourceFile>,
    pub profiles: seccomp::Profiles,
}

pub fn file(path: &str, size: u64) -> SourceFile {
    SourceFile { path: path.into(), size, modified: 1_000_000_007 }
}

/// A layer with these entries, each below folders that stand before it.
pub fn layer(items: &[(&str, Item)]) -> Vec<u8> {
    let mut image = std::io::Cursor::new(Vec::new());
    let mut writer = Writer::new(&mut image).unwrap();
    writer.directory(b"/", Metadata::new(0o755)).unwrap();
    for (path, item) in items {
        let path = path.as_bytes();
        match item {
            Item::Folder(mode, uid) => {
                writer.directory(path, Metadata { uid: *uid, ..Metadata::new(*mode) }).unwrap();
            }
            Item::File(contents) => {
                let (metadata, size) = (Metadata::new(0o644), contents.len() as u64);
                writer.file(path, &metadata, size, contents.as_bytes()).unwrap();
            }
            Item::Program => {
                writer.file(path, &Metadata::new(0o755), 0, &b""[..]).unwrap();
            }
            Item::Link(target) => {
                let link = Kind::Symlink(target.as_bytes().to_vec());
                writer.node(path, &Metadata::new(0o777), &link).unwrap();
            }
            Item::Fifo => {
                writer.node(path, &Metadata::new(0o644), &Kind::Fifo).unwrap();
            }
        }
    }
    writer.finish().unwrap();
    image.into_inner()
}

/// What init and programs expect of every image.
pub fn base() -> Vec<u8> {
    layer(&[
        ("/app", Item::Program),
        ("/bin", Item::Folder(0o755, 0)),
        ("/bin/serve", Item::Program),
        ("/bin/tool", Item::Program),
        ("/dev", Item::Folder(0o755, 0)),
        ("/etc", Item::Folder(0o755, 0)),
        ("/etc/group", Item::File("root:x:0:\nweb:x:33:\nlog:x:4:web\n")),
        ("/etc/hosts", Item::File("")),
        ("/etc/passwd", Item::File("root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n")),
        ("/etc/resolv.conf", Item::File("")),
        ("/proc", Item::Folder(0o555, 0)),
        ("/srv", Item::Folder(0o750, 33)),
        ("/sys", Item::Folder(0o555, 0)),
        ("/var", Item::Folder(0o755, 0)),
        ("/run", Item::Folder(0o755, 0)),
        ("/var/run", Item::Link("/run")),
    ])
}

pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// An image's defaults: it runs `/app serve` as user 0.
pub fn defaults() -> Process {
    Process {
        env: words(&["PATH=/bin", "LANG=C"]),
        entrypoint: words(&["/app"]),
        cmd: words(&["serve"]),
        ..Process::default()
    }
}

/// An image of these layers, the lowest first, as if the store had it.
pub fn image(reference: &str, defaults: Process, layers: Vec<Vec<u8>>) -> Converted {
    let mut tree = Tree::default();
    let mut planned = Vec::new();
    for bytes in layers {
        let digest = Digest::of(&bytes).hex();
        let file = file(&format!("/store/{}.erofs", &digest[..8]), bytes.len() as u64);
        planned.push(Layer { digest, file });
        tree.push(erofs::Image::from_bytes(bytes).unwrap());
    }
    Converted {
        image: super::super::Image {
            reference: reference.to_owned(),
            defaults,
            layers: planned,
            special: Special::default(),
        },
        tree,
    }
}

impl Sample {
    /// A machine with this config, a kernel and an init.
    pub fn new(config: &str, images: Vec<Converted>) -> Self {
        Self {
            config: config.to_owned(),
            images,
            kernel: ("kernel `bzImage`".into(), file("/kernel/bzImage", 7_000_000)),
            modules: vec![Module { file: "erofs.ko".into(), bytes: b"module".to_vec() }],
            init: file("/dist/init", 1_300_000),
            sources: Vec::new(),
            profiles: seccomp::Profiles::new(),
        }
    }

    /// A machine with the one service `a`, which has these keys beside its image.
    pub fn of_service(keys: &str, defaults: Process, layers: Vec<Vec<u8>>) -> Self {
        Self::new(
            &format!("name = \"m\"\n[service.a]\nimage = \"oci:a\"\n{keys}\n"),
            vec![image("oci:a", defaults, layers)],
        )
    }

    fn config(&self) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.toml");
        std::fs::write(&path, &self.config).unwrap();
        config::load(&[path]).unwrap_or_else(|problems| panic!("{problems}"))
    }

    pub fn plan(&self) -> Result<ImagePlan, Vec<Error>> {
        let config = self.config();
        let images: Vec<super::super::Image> =
            self.images.iter().map(|converted| converted.image.clone()).collect();
        plan(&Inputs {
            compression: None,
            config: &config,
            images: &images,
            ids: &ids::allocate(&config, &ids::Ranges::new()).unwrap(),
            roots: &root::look(&config, &self.images),
            kernel: (&self.kernel.0, &self.kernel.1),
            release: Some((6, 1)),
            profiles: &self.profiles,
            modules: &self.modules,
            watchdogs: &["softdog"],
            init: &self.init,
            sources: &self.sources,
        })
    }

    /// The plan, of a machine that has one.
    pub fn planned(&self) -> ImagePlan {
        self.plan().unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    /// Why there is no plan: each reason with its hint.
    pub fn refused(&self) -> String {
        match self.plan() {
            Ok(_) => panic!("there is a plan of\n{}", self.config),
            Err(errors) => crate::build::Failure::from(errors).render(false),
        }
    }
}
