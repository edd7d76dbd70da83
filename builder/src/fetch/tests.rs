//! Claims about whole images: as the usual tools write them, and as nobody should.

use std::fs;
use std::io::Write;
use std::process::Command;

use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::oci::source::resolve;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const TAG: &str = "org.opencontainers.image.ref.name";

/// A folder with a store and whatever images a test puts there.
struct Bench {
    folder: TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("store")).unwrap();
        Self { folder, store }
    }

    fn base(&self) -> &Path {
        self.folder.path()
    }

    fn lock(&self, reference: &str) -> Result<Lock> {
        let digest = resolve(&reference.parse()?, self.base(), &self.store)?;
        Ok(Lock { images: [(reference.to_owned(), digest)].into(), kernel: None })
    }

    fn fetch(&self, reference: &str) -> Result<Image> {
        Ok(fetch(&self.lock(reference)?, self.base(), &self.store)?.remove(0))
    }

    /// The first sentence that anything has to say against an image, read to its end.
    fn objection(&self, reference: &str) -> String {
        let read = || self.fetch(reference)?.layers.iter().try_for_each(|layer| contents(layer).map(drop));
        read().expect_err("the image is refused").to_string()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).current_dir(self.base()).output().unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn skopeo(&self, from: &str, to: &str, options: &[&str]) {
        let arguments = [&["--insecure-policy", "copy", "--quiet"][..], options, &[from, to]].concat();
        self.run("skopeo", &arguments);
    }

    fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let folder = self.base().join("images/blobs/sha256");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(digest.hex()), bytes).unwrap();
        digest
    }

    fn descriptor(&self, media_type: &str, bytes: &[u8]) -> Value {
        json!({ "mediaType": media_type, "digest": self.blob(bytes), "size": bytes.len() })
    }

    fn document(&self, media_type: &str, document: &Value) -> Value {
        self.descriptor(media_type, document.to_string().as_bytes())
    }

    /// Makes `oci:images`, with these descriptors in its index.
    fn index(&self, manifests: &[Value]) {
        let index = json!({ "schemaVersion": 2, "manifests": manifests }).to_string();
        fs::write(self.base().join("images/index.json"), index).unwrap();
        fs::write(self.base().join("images/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }

    /// The descriptor of an image with one layer: its blob, media type and tar archive.
    fn image(&self, blob: &[u8], media_type: &str, tar: &[u8]) -> Value {
        self.image_of(&json!([self.descriptor(media_type, blob)]), &config_of(&[Digest::of(tar)]))
    }

    fn image_of(&self, layers: &Value, config: &Value) -> Value {
        let config = self.document(CONFIG, config);
        self.document(MANIFEST, &json!({ "schemaVersion": 2, "config": config, "layers": layers }))
    }
}

fn config_of(diff_ids: &[Digest]) -> Value {
    json!({
        "architecture": "amd64", "os": "linux", "config": { "Env": ["A=b"], "StopSignal": "SIGINT" },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
}

fn contents(layer: &Layer) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match layer.open()?.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Error::new(error.to_string())),
    }
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).unwrap()
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    object[key] = value;
    object
}

fn tagged(descriptor: Value, tag: &str) -> Value {
    with(descriptor, "annotations", json!({ TAG: tag }))
}

/// Two layers, the second over a megabyte, in `oci:images:web`, made by umoci.
fn made_by_umoci() -> Bench {
    let bench = Bench::new();
    let noise: Vec<u8> = (0..300_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(bench.base().join("small"), b"small").unwrap();
    fs::write(bench.base().join("large"), noise).unwrap();
    bench.run("umoci", &["init", "--layout", "images"]);
    bench.run("umoci", &["new", "--image", "images:web"]);
    bench
        .run("umoci", &["config", "--image", "images:web", "--config.env", "A=b", "--architecture", "amd64"]);
    bench.run("umoci", &["insert", "--rootless", "--image", "images:web", "small", "/etc/small"]);
    bench.run("umoci", &["insert", "--rootless", "--image", "images:web", "large", "/srv/large"]);
    bench
}

#[test]
fn an_image_is_the_same_in_whatever_form_the_usual_tools_write_it() {
    let bench = made_by_umoci();
    let first = bench.fetch("oci:images:web").unwrap();
    let layers: Vec<_> = first.layers.iter().map(|layer| contents(layer).unwrap()).collect();
    assert_eq!(layers.len(), 2);
    assert!(layers[1].len() > 1_200_000);
    assert_eq!(first.config.config.env.last().unwrap(), "A=b");

    bench.skopeo("oci:images:web", "oci-archive:oci.tar:web", &[]);
    bench.skopeo("oci:images:web", "oci:zstd:web", &["--dest-compress-format", "zstd"]);
    bench.skopeo("oci:images:web", "docker-archive:docker.tar:shop/web:1", &[]);
    bench.skopeo("docker-archive:docker.tar", "oci:again:web", &["--dest-compress=false"]);
    for archive in ["oci.tar", "docker.tar"] {
        let bytes = fs::read(bench.base().join(archive)).unwrap();
        fs::write(bench.base().join(format!("{archive}.gz")), gzip(&bytes)).unwrap();
    }
    for reference in [
        "oci:images",
        "oci:images:@0",
        "oci:zstd:web",
        "oci:again:web",
        "oci-archive:oci.tar:web",
        "oci-archive:oci.tar",
        "oci-archive:oci.tar.gz:web",
        "docker-archive:docker.tar:shop/web:1",
        "docker-archive:docker.tar:docker.io/shop/web:1",
        "docker-archive:docker.tar:@0",
        "docker-archive:docker.tar",
        "docker-archive:docker.tar.gz",
    ] {
        let image = bench.fetch(reference).unwrap();
        assert_eq!(image.reference, reference);
        assert_eq!(image.config.config, first.config.config, "{reference}");
        assert_eq!(image.config.rootfs, first.config.rootfs, "{reference}");
        for (layer, expected) in image.layers.iter().zip(&layers) {
            assert_eq!(layer.diff_id, Digest::of(expected));
            assert!(contents(layer).unwrap() == *expected, "{reference}: {}", layer.name);
        }
    }
}

#[test]
fn a_second_fetch_opens_no_source_until_a_layer_is_read() {
    for form in ["oci:images:web", "oci-archive:web.tar", "docker-archive:web.tar"] {
        let bench = made_by_umoci();
        if form != "oci:images:web" {
            bench.skopeo("oci:images:web", form, &[]);
        }
        let lock = bench.lock(form).unwrap();
        let first = fetch(&lock, bench.base(), &bench.store).unwrap();
        fs::remove_dir_all(bench.base().join("images")).unwrap();
        fs::remove_file(bench.base().join("web.tar")).ok();
        let second = fetch(&lock, bench.base(), &bench.store).unwrap();
        assert_eq!(first[0].config, second[0].config);
        let error = contents(&second[0].layers[0]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("layer 1 of 2 of image `{form}`: ")), "{error}");
    }
}
