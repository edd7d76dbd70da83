//! The machine in which all of this happens, and the image of the hostile program.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde_json::json;
use tar::EntryType;
use tests::{Abi, Config, Entry, Image, Kernel, Layer, Machine, caller, demo_image, folder, layout, made};

use crate::contexts::CONTEXTS;

/// CAP_SETUID and CAP_SYS_ADMIN, permitted and effective, as the second version of the attribute has them.
const WITH_SETUID: &[u8] = b"\x01\0\0\x02\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const WITH_SYS_ADMIN: &[u8] = b"\x01\0\0\x02\0\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Nodes that an image should not have.
const NODES: [(&str, EntryType, (u32, u32)); 4] = [
    ("nodes/mem", EntryType::Char, (1, 1)),
    ("nodes/disk", EntryType::Block, (254, 0)),
    ("nodes/console", EntryType::Char, (5, 1)),
    ("nodes/null", EntryType::Char, (1, 3)),
];

fn program() -> Vec<u8> {
    fs::read(made("dist-test/hostile", "dist")).unwrap()
}

fn image() -> String {
    let program = program();
    let mut layer = Layer::with_probe()
        .file("hostile", 0o755, &program)
        .file("call", 0o755, &caller(Abi::Native))
        .file("call-i386", 0o755, &caller(Abi::I386))
        .file("set-user-id", 0o4755, &program)
        .attribute("security.capability", WITH_SETUID)
        .file("with-setuid", 0o755, &program)
        .attribute("security.capability", WITH_SYS_ADMIN)
        .file("with-sys-admin", 0o755, &program)
        .file("shared", 0o644, b"shared by all")
        .directory("tmp", 0o1777, (0, 0))
        .directory("etc", 0o755, (0, 0))
        .directory("nodes", 0o755, (0, 0));
    for (name, kind, device) in NODES {
        layer = layer.any(&Entry {
            kind,
            name: name.as_bytes().to_vec(),
            link: vec![],
            mode: 0o666,
            records: vec![],
            device,
            contents: vec![],
        });
    }
    let config = json!({ "Entrypoint": ["/probe"], "Cmd": ["agent"], "WorkingDir": "/" });
    layout("hostile-image", vec![Image { tag: "hostile", layers: vec![layer], config }]) + ":hostile"
}

/// Files for containers that others start.
fn files(kernel: Kernel) -> String {
    let folder = folder("hostile-image");
    // Each test has its own: they run at the same time, and what one writes the other's build may be reading.
    let native = folder.join(format!("call-{kernel:?}"));
    let i386 = folder.join(format!("call-i386-{kernel:?}"));
    fs::write(&native, caller(Abi::Native)).unwrap();
    fs::write(&i386, caller(Abi::I386)).unwrap();
    let mut tables = String::new();
    let sources: [(&str, PathBuf); 4] = [
        ("probe", made("dist-test/probe", "dist")),
        ("hostile", made("dist-test/hostile", "dist")),
        ("call", native),
        ("call-i386", i386),
    ];
    for (name, source) in sources {
        let source = source.display();
        write!(tables, "[[file]]\npath = \"/srv/guest/{name}\"\nmode = 0o755\nsource = \"{source}\"\n")
            .unwrap();
    }
    tables
}

pub fn boot(kernel: Kernel) -> Machine {
    let image = image();
    let mut config =
        Config::new("hostile").kernel(kernel).memory("1GiB").with("[layers]\nallow-devices = true");
    for context in CONTEXTS {
        let keys = format!("command = [\"agent\"]\nvolumes = []\n{}", context.keys);
        config = config.probe_in(&image, context.name, &keys);
    }
    let plain = "command = [\"agent\"]\nvolumes = []";
    config
        .probe_in(&image, "watcher", &format!("{plain}\nprivileged = true\npid = \"host\"\nipc = \"host\""))
        .probe_in(&image, "neighbour", plain)
        .probe_in(&image, "bomber", plain)
        .probe_in(
            &demo_image("runtimes"),
            "runtimes",
            "entrypoint = [\"/srv/guest/probe\", \"agent\"]\nvolumes = [\"/srv/guest:/srv/guest:ro\"]\n\
             privileged = true\npids-limit = 5000\nulimits = { nofile = 1048576, memlock = -1, core = -1 }",
        )
        .with(&files(kernel))
        .with(&format!(
            "[service.victim]\nimage = \"{image}\"\nentrypoint = [\"/hostile\", \"victim\"]\nipc = \"host\"\n\
             environment = {{ SECRET = \"of the victim\" }}"
        ))
        .boot()
}
