//! Claims about whole images: as the usual tools write them, and as nobody should.

mod hostile;

use std::fs;
use std::io::Write;
use std::path::Path;
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
        let digest = resolve(&reference.parse()?, self.bounds())?;
        Ok(Lock { images: [(reference.to_owned(), digest)].into(), ..Lock::default() })
    }

    fn bounds(&self) -> Bounds<'_> {
        Bounds { base: self.base(), store: &self.store, limits: Limits::default() }
    }

    fn fetch(&self, reference: &str) -> Result<Image> {
        Ok(fetch(&self.lock(reference)?, self.bounds())?.remove(0))
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
        let first = fetch(&lock, bench.bounds()).unwrap();
        fs::remove_dir_all(bench.base().join("images")).unwrap();
        fs::remove_file(bench.base().join("web.tar")).ok();
        let second = fetch(&lock, bench.bounds()).unwrap();
        assert_eq!(first[0].config, second[0].config);
        let error = contents(&second[0].layers[0]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("layer 1 of 2 of image `{form}`: ")), "{error}");
    }
}

#[test]
fn a_layer_may_be_plain_gzip_or_zstd_and_of_many_members() {
    let tar = tar_of(&[("a", &[1; 5000]), ("b", b"b")]);
    let (one, two) = tar.split_at(700);
    for (suffix, blob) in [
        ("", tar.clone()),
        ("+gzip", gzip(&tar)),
        ("+gzip", [gzip(one), gzip(two)].concat()),
        ("+zstd", zstd(&tar)),
        ("+zstd", [zstd(one), zstd(two)].concat()),
    ] {
        let bench = Bench::new();
        bench.index(&[bench.image(&blob, &format!("{LAYER}{suffix}"), &tar)]);
        let image = bench.fetch("oci:images").unwrap();
        assert_eq!(image.config.config.stop_signal, "SIGINT");
        assert_eq!(contents(&image.layers[0]).unwrap(), tar, "{suffix}");
    }
}

#[test]
fn a_layer_that_is_not_what_the_documents_say_fails_at_its_end() {
    let tar = tar_of(&[("a", &[1; 5000])]);
    let other = tar_of(&[("a", &[2; 5000])]);
    let but = |bytes: &[u8], count: usize| bytes[..bytes.len() - count].to_vec();
    let and = |bytes: &[u8], more: &[u8]| [bytes, more].concat();
    for (suffix, blob, why) in [
        ("", but(&tar, 1), "it is not compressed, but its blob is"),
        ("+gzip", gzip(&other), "its tar archive has the digest"),
        ("+zstd", zstd(&other), "its tar archive has the digest"),
        ("+gzip", but(&gzip(&tar), 1), "its gzip stream is cut short"),
        ("+gzip", but(&gzip(&tar), 20), "its gzip stream is cut short"),
        ("+zstd", but(&zstd(&tar), 1), "its zstd stream is cut short"),
        ("+gzip", Vec::new(), "its gzip stream is cut short"),
        ("+zstd", Vec::new(), "layer 1 of 1 of image `oci:images`"),
        ("+gzip", and(&gzip(&tar), b"more"), "its gzip stream is"),
        ("+gzip", and(&gzip(&tar), &[0; 512]), "its gzip stream is"),
        ("+zstd", and(&zstd(&tar), b"more!"), "its zstd stream is"),
        ("+zstd", and(&zstd(&tar), b"x"), "its zstd stream is"),
        ("+gzip", and(&gzip(&tar), &gzip(b"x")), "its tar archive has the digest"),
        ("+gzip", zstd(&tar), "its gzip stream is damaged"),
        ("+zstd", gzip(&tar), "its zstd stream is damaged"),
    ] {
        let bench = Bench::new();
        bench.index(&[bench.image(&blob, &format!("{LAYER}{suffix}"), &tar)]);
        let error = bench.objection("oci:images");
        assert!(error.contains("layer 1 of 1 of image `oci:images`"), "{error}");
        assert!(error.contains(why), "{suffix} {}: {error}", blob.len());
    }
}

#[test]
fn a_blob_that_was_damaged_or_cut_is_named_as_such() {
    let tar = tar_of(&[("a", &[1; 5000])]);
    let blob = gzip(&tar);
    for (suffix, blob) in [("+gzip", &blob), ("", &tar)] {
        let flipped: Vec<u8> = blob.iter().map(|byte| byte ^ 1).collect();
        for (bytes, why) in [
            (flipped, "digest `sha256:"),
            (blob[1..].to_vec(), "bytes, its descriptor says"),
            ([&blob[..], b"x"].concat(), "bytes, its descriptor says"),
        ] {
            let bench = Bench::new();
            bench.index(&[bench.image(blob, &format!("{LAYER}{suffix}"), &tar)]);
            let path = bench.base().join("images/blobs/sha256").join(Digest::of(blob).hex());
            fs::write(path, bytes).unwrap();
            let error = bench.objection("oci:images");
            assert!(error.contains(why) && error.contains("layer 1 of 1"), "{error}");
        }
    }
}

#[test]
fn an_error_of_a_stream_stays() {
    let tar = tar_of(&[("a", b"a")]);
    let bench = Bench::new();
    bench.index(&[bench.image(&gzip(b"other"), &format!("{LAYER}+gzip"), &tar)]);
    let mut stream = bench.fetch("oci:images").unwrap().layers[0].open().unwrap();
    let first = std::io::copy(&mut stream, &mut std::io::sink()).unwrap_err().to_string();
    assert_eq!(stream.read(&mut [0; 10]).unwrap_err().to_string(), first);
}

/// Makes the descriptor of an image that has something wrong about it.
type Wrong = fn(&Bench) -> Value;

fn files() -> Vec<u8> {
    tar_of(&[("a", b"a")])
}

fn good(bench: &Bench) -> Value {
    bench.image(&files(), LAYER, &files())
}

fn layers(bench: &Bench, media_type: &str) -> Value {
    json!([bench.descriptor(media_type, &files())])
}

fn config() -> Value {
    config_of(&[Digest::of(&files())])
}

fn manifest(bench: &Bench) -> Value {
    json!({ "schemaVersion": 2, "config": bench.document(CONFIG, &config()), "layers": layers(bench, LAYER) })
}

fn index(manifests: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "manifests": manifests })
}

const WRONG_DESCRIPTORS: &[(&str, Wrong)] = &[
    ("which is no image manifest", |b| with(good(b), "mediaType", json!("x/y"))),
    ("is no digest: expected", |b| with(good(b), "digest", json!("sha512:00"))),
    ("is no digest: expected", |b| with(good(b), "digest", json!("../../x"))),
    ("it has no blob", |b| with(good(b), "digest", json!(Digest::of(b"nowhere")))),
    ("bytes, its descriptor says 7", |b| with(good(b), "size", json!(7))),
    ("invalid value: integer `-1`", |b| with(good(b), "size", json!(-1))),
    ("missing field `size`", |b| json!({ "mediaType": MANIFEST, "digest": good(b)["digest"] })),
];

const WRONG_DOCUMENTS: &[(&str, Wrong)] = &[
    ("it has no images", |b| b.document(INDEX, &index(&[]))),
    ("nested deeper than 4", |b| (0..5).fold(good(b), |inner, _| b.document(INDEX, &index(&[inner])))),
    ("is both an index and a manifest", |b| b.document(INDEX, &with(manifest(b), "manifests", json!([])))),
    ("is both a manifest and an index", |b| b.document(MANIFEST, &with(manifest(b), "manifests", json!([])))),
    ("has schema version 1", |b| b.document(MANIFEST, &with(manifest(b), "schemaVersion", json!(1)))),
    ("says that it is of the type", |b| b.document(MANIFEST, &with(manifest(b), "mediaType", json!(INDEX)))),
    ("its configuration is of the type `x/y`", |b| {
        b.document(MANIFEST, &with(manifest(b), "config", b.document("x/y", &config())))
    }),
    ("more than the 4194304 allowed", |b| b.descriptor(MANIFEST, &[b' '; (4 << 20) + 1])),
    ("` is nested deeper than 64", |b| b.descriptor(MANIFEST, "[".repeat(100_000).as_bytes())),
    ("says that it is of the type `application/vnd.docker", |b| {
        let docker = "application/vnd.docker.distribution.manifest.v2+json";
        b.document(MANIFEST, &with(manifest(b), "mediaType", json!(docker)))
    }),
    ("` is nested deeper than 64", |b| {
        let deep = format!("{{\"config\":{{\"Volumes\":{{\"x\":{}", "[".repeat(1000));
        b.document(MANIFEST, &with(manifest(b), "config", b.descriptor(CONFIG, deep.as_bytes())))
    }),
];

const WRONG_IMAGES: &[(&str, Wrong)] = &[
    ("its manifest lists 1 layers, its configuration 2", |b| {
        b.image_of(&layers(b, LAYER), &config_of(&[Digest::of(&files()); 2]))
    }),
    ("its manifest lists 1 layers, its configuration 0", |b| b.image_of(&layers(b, LAYER), &config_of(&[]))),
    ("it is an image for linux/arm64, not for linux/amd64", |b| {
        b.image_of(&layers(b, LAYER), &with(config(), "architecture", json!("arm64")))
    }),
    ("it is an image for windows/amd64", |b| {
        b.image_of(&layers(b, LAYER), &with(config(), "os", json!("windows")))
    }),
    ("it has 513 layers, more than the 512 allowed", |b| {
        let many = vec![b.descriptor(LAYER, &files()); 513];
        b.image_of(&json!(many), &config_of(&[Digest::of(&files()); 513]))
    }),
    ("layer 1 of 1: it is encrypted", |b| {
        b.image_of(&layers(b, &format!("{LAYER}+gzip+encrypted")), &config())
    }),
    ("layer 1 of 1: it is to be had from its vendor only", |b| {
        b.image_of(&layers(b, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), &config())
    }),
    ("layer 1 of 1: it is of the unknown type `x/y`", |b| b.image_of(&layers(b, "x/y"), &config())),
];

#[test]
fn documents_that_are_wrong_are_refused_with_the_reason() {
    for (why, wrong) in [WRONG_DESCRIPTORS, WRONG_DOCUMENTS, WRONG_IMAGES].concat() {
        let bench = Bench::new();
        bench.index(&[wrong(&bench)]);
        let error = bench.objection("oci:images");
        assert!(error.starts_with("image `oci:images`: ") && error.contains(why), "{why}: {error}");
        assert!(error.len() < 400, "{error}");
    }
}

#[test]
fn an_image_is_chosen_by_its_tag_and_its_platform() {
    let bench = Bench::new();
    let tar = |name: &str| tar_of(&[(name, b"")]);
    let image = |name: &str| bench.image(&tar(name), LAYER, &tar(name));
    let on = |name: &str, architecture: &str| {
        with(image(name), "platform", json!({ "architecture": architecture, "os": "linux" }))
    };
    let many = json!({ "schemaVersion": 2, "manifests": [on("arm", "arm64"), on("ours", "amd64")] });
    let deep = json!({ "schemaVersion": 2, "manifests": [bench.document(INDEX, &many)] });
    bench.index(&[
        tagged(image("web"), "web"),
        tagged(on("db-arm", "arm64"), "db"),
        tagged(on("db", "amd64"), "db"),
        tagged(bench.document(INDEX, &deep), "many"),
        tagged(on("riscv", "riscv64"), "riscv"),
    ]);
    for (tag, name) in [(":web", "web"), (":db", "db"), (":many", "ours"), (":@2", "db")] {
        let image = bench.fetch(&format!("oci:images{tag}")).unwrap();
        assert_eq!(image.layers[0].diff_id, Digest::of(&tar(name)), "{tag}");
    }
    for (tag, why, hint) in [
        ("", "it has several images, and no tag says which", "its tags are: db, many, riscv, web"),
        (":wbe", "it has no tag `wbe`", "its tags are: db, many, riscv, web"),
        (":riscv", "it has no image for linux/amd64, only for linux/riscv64", ""),
        (":@9", "it has no image at position 9, only 5 images", ""),
    ] {
        let reference = format!("oci:images{tag}");
        let error = bench.lock(&reference).unwrap_err();
        assert_eq!(error.to_string(), format!("image `{reference}`: {why}"));
        assert_eq!(error.advice().unwrap_or_default(), hint);
    }
}

#[test]
fn a_place_that_holds_no_image_is_refused_with_the_reason() {
    let bench = Bench::new();
    fs::create_dir(bench.base().join("empty")).unwrap();
    fs::write(bench.base().join("text"), "text").unwrap();
    fs::write(bench.base().join("a.tar"), tar_of(&[("a", b"")])).unwrap();
    for (reference, why) in [
        ("oci:empty", "it is no OCI image layout: it has no `oci-layout`"),
        ("oci:nowhere", "there is no folder `"),
        ("oci-archive:nowhere", "No such file or directory"),
        ("oci-archive:empty", "is no file"),
        ("oci-archive:text", "it is no tar archive, or damaged at byte 0"),
        ("oci-archive:a.tar", "it is no OCI image layout"),
        ("docker-archive:a.tar", "it is no archive of `docker save`: it has no `manifest.json`"),
        ("dir:nowhere", "No such file or directory"),
        ("dir:text", "is no folder"),
        ("redis:7", "registries are not supported yet"),
    ] {
        let error = bench.objection(reference);
        assert!(error.starts_with(&format!("image `{reference}`: ")) && error.contains(why), "{error}");
    }
}

/// An archive as old versions of `docker save` wrote it: a folder for each layer, equal ones linked.
fn docker_archive(config: &Value, layers: &[&str], files: &[(&str, &[u8])]) -> Vec<u8> {
    let config = config.to_string();
    let name = format!("{}.json", Digest::of(config.as_bytes()).hex());
    let manifest = json!([{ "Config": name, "RepoTags": ["web:1"], "Layers": layers }]).to_string();
    let documents = [(name.as_str(), config.as_bytes()), ("manifest.json", manifest.as_bytes())];
    let mut builder = tar::Builder::new(Vec::new());
    let bytes = tar_of(&[files, &documents[..]].concat());
    builder.get_mut().extend(&bytes[..bytes.len() - 1024]);
    for (name, target) in [("b/layer.tar", "../a/layer.tar"), ("out/layer.tar", "../../../etc/passwd")] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, name, target).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn an_old_docker_archive_with_linked_layers_is_read() {
    let bench = Bench::new();
    let tar = tar_of(&[("a", b"a")]);
    for blob in [tar.clone(), gzip(&tar), zstd(&tar)] {
        let archive = docker_archive(
            &config_of(&[Digest::of(&tar); 2]),
            &["a/layer.tar", "b/layer.tar"],
            &[("a/layer.tar", &blob)],
        );
        fs::write(bench.base().join("a.tar"), archive).unwrap();
        let image = bench.fetch("docker-archive:a.tar:web:1").unwrap();
        assert_eq!(image.layers.len(), 2);
        for layer in &image.layers {
            assert_eq!(contents(layer).unwrap(), tar);
        }
    }
}

#[test]
fn a_new_docker_archive_with_blobs_is_read() {
    let bench = Bench::new();
    let tar = tar_of(&[("a", b"a")]);
    let config = config_of(&[Digest::of(&tar)]).to_string();
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let (config_name, layer_name) = (blob(config.as_bytes()), blob(&tar));
    let item = json!({ "Config": config_name, "RepoTags": null, "Layers": [layer_name], "LayerSources": {} });
    let manifest = json!([item]).to_string();
    let archive = |config: &str| {
        tar_of(&[
            (&layer_name, &tar[..]),
            (&config_name, config.as_bytes()),
            ("manifest.json", manifest.as_bytes()),
        ])
    };
    fs::write(bench.base().join("a.tar"), archive(&config)).unwrap();
    let image = bench.fetch("docker-archive:a.tar").unwrap();
    assert_eq!(image.digest, Digest::of(config.as_bytes()));
    assert_eq!(contents(&image.layers[0]).unwrap(), tar);

    fs::write(bench.base().join("a.tar"), archive(&config.replace("A=b", "A=c"))).unwrap();
    let error = bench.objection("docker-archive:a.tar");
    assert!(error.contains("` is damaged: its bytes have the digest `sha256:"), "{error}");
}

#[test]
fn a_hostile_docker_archive_is_refused_with_the_reason() {
    let tar = tar_of(&[("a", b"a")]);
    let one = config_of(&[Digest::of(&tar)]);
    let files: &[(&str, &[u8])] = &[("a/layer.tar", &tar), ("other", b"x")];
    for (config, layers, why) in [
        (&one, &["../../etc/passwd"][..], "`../../etc/passwd` leads out of the archive"),
        (&one, &["/etc/passwd"], "`/etc/passwd` leads out of the archive"),
        (&one, &["out/layer.tar"], "`out/layer.tar` is a link that leads out of the archive"),
        (&one, &["c/layer.tar"], "`c/layer.tar` is missing"),
        (&one, &["other"], "its tar archive has the digest"),
        (&one, &[], "`manifest.json` lists 0 layers, the image's configuration 1"),
        (
            &one,
            &["a/layer.tar", "a/layer.tar"],
            "`manifest.json` lists 2 layers, the image's configuration 1",
        ),
        (
            &with(one.clone(), "architecture", json!("s390x")),
            &["a/layer.tar"],
            "it is an image for linux/s390x",
        ),
    ] {
        let bench = Bench::new();
        fs::write(bench.base().join("a.tar"), docker_archive(config, layers, files)).unwrap();
        let error = bench.objection("docker-archive:a.tar");
        assert!(error.contains(why) && error.contains("image `docker-archive:a.tar`"), "{error}");
    }
    let bench = Bench::new();
    fs::write(bench.base().join("a.tar"), docker_archive(&one, &["a/layer.tar"], files)).unwrap();
    let error = bench.lock("docker-archive:a.tar:db").unwrap_err();
    assert_eq!(error.advice(), Some("its images are: docker.io/library/web:1"));
}

#[test]
fn a_folder_is_an_image_pinned_by_its_content() {
    let bench = Bench::new();
    fs::create_dir(bench.base().join("root")).unwrap();
    fs::write(bench.base().join("root/a"), "a").unwrap();
    let image = bench.fetch("dir:root").unwrap();
    assert_eq!(image.config.config, ImageConfig::default().config);
    assert_eq!(image.digest, image.layers[0].diff_id);
    assert_eq!(image.digest, Digest::of(&contents(&image.layers[0]).unwrap()));
    fs::write(bench.base().join("root/a"), "b").unwrap();
    let error = contents(&image.layers[0]).unwrap_err().to_string();
    assert!(error.starts_with("layer 1 of 1 of image `dir:root`: its tar archive has the digest"), "{error}");
}
