//! Where images come from, and how odd they can be.

use serde_json::json;
use tests::{Config, Image, Kernel, Layer, demo_image, layout, made};

#[test]
fn layouts_archives_and_folders_are_the_same_to_a_machine() {
    let archive = |transport: &str, file: &str| format!("{transport}:{}", made(file, "images").display());
    let images = [
        ("layout", demo_image("busybox")),
        ("docker", archive("docker-archive", "images/busybox.docker.tar")),
        ("oci", archive("oci-archive", "images/busybox.oci.tar")),
    ];
    let mut config = Config::new("images");
    for (name, image) in images {
        config = config.with(&format!(
            "[oneshot.{name}]\nimage = \"{image}\"\ncommand = [\"sh\", \"-c\", \"id user >/log/{name}\"]\n\
             volumes = [\"/srv/log:/log\"]\n"
        ));
    }
    // The probe's own image is a folder.
    let volumes = "volumes = [\"/srv/log:/log\", \"/coracle/layers:/layers:ro\"]";
    let machine = config.probe("witness", volumes).boot();
    let witness = machine.probe("witness");
    for name in ["layout", "docker", "oci"] {
        let id = witness.read(&format!("/log/{name}"));
        assert_eq!(id, "uid=1000(user) gid=1000(user) groups=1000(user),29(audio),44(video)\n", "{name}");
    }
    let stored = witness.list("/layers").len();
    assert!(stored <= 2 + 4, "busybox is one layer wherever it comes from, and {stored} are stored");
}

#[test]
fn an_image_with_the_same_layer_twice_boots() {
    let twice = || Layer::new().file("same", 0o644, b"same");
    let between = Layer::new().whiteout("same").file("between", 0o644, b"between");
    let layers = vec![Layer::with_probe(), twice(), between, twice()];
    let images = layout("layer-twice", vec![Image { tag: "twice", layers, config: json!({}) }]);
    let machine = Config::new("layer-twice-boot").probe_in(&format!("{images}:twice"), "a", "").boot();
    let probe = machine.probe("a");
    assert_eq!((probe.read("/same"), probe.read("/between")), ("same".to_owned(), "between".to_owned()));
}

#[test]
fn compressed_files_are_the_same_on_every_kernel() {
    // Text that compresses, more of it than a cluster holds, and an end that stands behind the inode.
    let text: String = (0..60_000).map(|line| format!("line {}\n", line * 7919 % 5003)).collect();
    for kernel in Kernel::ALL {
        // Debian 12's kernel is older than zstd in EROFS.
        let compressions: &[&str] = if kernel == Kernel::Own { &["none", "lz4"] } else { &["lz4", "zstd"] };
        for compression in compressions {
            let name = format!("compressed-{compression}");
            let layers = vec![Layer::with_probe(), Layer::new().file("text", 0o644, text.as_bytes())];
            let images = layout(&name, vec![Image { tag: "text", layers, config: json!({}) }]);
            let table = format!("[layers]\ncompression = \"{compression}\"\n");
            let config = Config::new(&name).kernel(kernel).with(&table);
            let machine = config.probe_in(&format!("{images}:text"), "a", "").boot();
            assert!(machine.probe("a").read("/text") == text, "{compression} on {kernel:?}");
        }
    }
}
