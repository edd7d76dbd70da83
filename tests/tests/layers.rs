//! What a converted layer shows is what other tools unpack from its archive: every file, mode, owner, time, attribute,
//! device and link, of real images and of generated ones, in every form that a layer can have.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

#[path = "layers/command.rs"]
mod command;
#[path = "layers/generated.rs"]
mod generated;
#[path = "layers/mount.rs"]
mod mount;

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tests::place::put_kernel;
use tests::{Image, Layer, Tree, coracle, folder, layout, made};

use mount::Mount;

/// Every form of a layer. The lowest levels: how hard a codec tries does not change what comes out.
const FORMS: [&str; 3] =
    ["compression = \"none\"", "compression = \"lz4\"\nlevel = 1", "compression = \"zstd\"\nlevel = 1"];

/// The images that `cargo xtask images` makes of Debian's packages.
const DEBIAN: [&str; 6] = ["base", "busybox", "nginx", "node", "postgresql", "redis"];

/// Images, and their layers in every form.
struct Converted {
    /// The layout that they are in.
    layout: PathBuf,
    /// A folder for what is made of them.
    place: PathBuf,
    /// By their tags, the archives of their layers, the lowest first.
    archives: BTreeMap<&'static str, Vec<PathBuf>>,
    /// In the order of [`FORMS`], by their tags, the images of their layers, the lowest first.
    layers: Vec<BTreeMap<&'static str, Vec<PathBuf>>>,
}

static REAL: LazyLock<Converted> =
    LazyLock::new(|| Converted::new("layers-debian", made("images/demo", "images"), &DEBIAN));

static GENERATED: LazyLock<Converted> = LazyLock::new(|| {
    let images = generated::images();
    let layout = layout("layers-generated-images", images);
    Converted::new("layers-generated", layout.trim_start_matches("oci:").into(), &generated::TAGS)
});

impl Converted {
    fn new(name: &str, layout: PathBuf, tags: &[&'static str]) -> Self {
        let place = folder(name);
        fs::remove_dir_all(&place).unwrap();
        let archives = tags.iter().map(|tag| (*tag, archives(&layout, tag))).collect();
        let forms = FORMS.iter().enumerate();
        let layers = forms
            .map(|(form, keys)| convert(&folder(&format!("{name}/{form}")), keys, &layout, tags))
            .collect();
        Self { layout, place, archives, layers }
    }

    /// Every layer once, with its archive.
    fn each(&self) -> impl Iterator<Item = (&PathBuf, [&PathBuf; FORMS.len()])> {
        let mut seen = HashSet::new();
        let layers = self.archives.iter().flat_map(|(tag, archives)| {
            archives
                .iter()
                .enumerate()
                .map(|(at, archive)| (archive, std::array::from_fn(|form| &self.layers[form][tag][at])))
        });
        layers.filter(move |(_, layers): &(_, [&PathBuf; FORMS.len()])| seen.insert(layers[0]))
    }
}

/// The layers of images, the lowest first, converted into a store of their own.
fn convert(
    place: &Path,
    keys: &str,
    layout: &Path,
    tags: &[&'static str],
) -> BTreeMap<&'static str, Vec<PathBuf>> {
    put_kernel(place, &["EROFS_FS_ZIP", "EROFS_FS_ZIP_ZSTD"]);
    let mut config =
        format!("name = \"layers\"\n[kernel]\npath = \"bzImage\"\n[layers]\n{keys}\nallow-devices = true\n");
    for tag in tags {
        let image = layout.display();
        config += &format!("[oneshot.{tag}]\nimage = \"oci:{image}:{tag}\"\nentrypoint = [\"/bin/true\"]\n");
    }
    fs::write(place.join("layers.toml"), config).unwrap();
    let mut plan = coracle();
    plan.current_dir(place).env("CORACLE_CACHE", place.join("store")).args(["plan", "--json", "layers.toml"]);
    let plan: Value = serde_json::from_slice(&output(&mut plan)).unwrap();
    let stored: Vec<PathBuf> = fs::read_dir(place.join("store/layers"))
        .unwrap()
        .flat_map(|format| fs::read_dir(format.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "erofs"))
        .collect();
    let path = |index: &Value| {
        let digest =
            plan["manifest"]["layers"][usize::try_from(index.as_u64().unwrap()).unwrap()].as_str().unwrap();
        // What a machine needs beside the image's own layers is not in the store.
        stored.iter().find(|path| path.file_stem().unwrap() == digest).cloned()
    };
    let services = plan["manifest"]["services"].as_array().unwrap();
    let layers = |service: &Value| {
        service["container"]["layers"].as_array().unwrap().iter().rev().filter_map(path).collect()
    };
    tags.iter()
        .map(|tag| (*tag, layers(services.iter().find(|service| service["name"] == *tag).unwrap())))
        .collect()
}

/// The archives of an image's layers, the lowest first.
fn archives(layout: &Path, tag: &str) -> Vec<PathBuf> {
    let read = |path: PathBuf| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    let blob = |descriptor: &Value| {
        layout.join("blobs").join(descriptor["digest"].as_str().unwrap().replace(':', "/"))
    };
    let index = read(layout.join("index.json"));
    let mut images = index["manifests"].as_array().unwrap().iter();
    let image =
        images.find(|image| image["annotations"]["org.opencontainers.image.ref.name"] == tag).unwrap();
    read(blob(image))["layers"].as_array().unwrap().iter().map(blob).collect()
}

/// What a command that succeeds writes.
fn output(command: &mut Command) -> Vec<u8> {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    stdout
}

/// What GNU tar unpacks from an archive, in a file or from stdin, compressed or not.
fn unpack(archive: &Path, stdin: Stdio, to: &Path) -> Tree {
    fs::create_dir_all(to).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--delay-directory-restore"]);
    output(tar.arg("-C").arg(to).arg("-f").arg(archive).stdin(stdin));
    Tree::of(to)
}

/// The paths in an archive, without the slashes that folders end with.
fn listed(archive: &Path) -> HashSet<PathBuf> {
    let names = output(Command::new("tar").args(["-t", "--quoting-style=literal", "-f"]).arg(archive));
    let names = names.split(|byte| *byte == b'\n');
    names.map(|name| Path::new(OsStr::from_bytes(name)).components().as_path()).map(Path::to_owned).collect()
}

/// Our archive of a layer, on its way.
fn archive_of(layer: &Path) -> Child {
    let mut tar = coracle();
    tar.args(["layer", "tar"]).arg(layer).stdout(Stdio::piped()).spawn().unwrap()
}

/// The digest of what a process writes.
fn digest(mut process: Child) -> Vec<u8> {
    let mut stdout = process.stdout.take().unwrap();
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match stdout.read(&mut buffer).unwrap() {
            0 => break,
            length => digest.update(&buffer[..length]),
        }
    }
    assert!(process.wait().unwrap().success());
    digest.finalize().to_vec()
}

/// Lets GNU tar compare our archive of a layer with the files that it unpacked from the layer's own archive. It does not
/// look at attributes.
fn compare(layer: &Path, unpacked: &Path) {
    let mut ours = archive_of(layer);
    let mut tar = Command::new("tar");
    tar.args(["--compare", "--numeric-owner", "-f", "-", "-C"]).arg(unpacked);
    output(tar.stdin(ours.stdout.take().unwrap()));
    assert!(ours.wait().unwrap().success());
}

#[test]
fn a_machine_sees_what_umoci_unpacks() {
    for images in [&*GENERATED, &*REAL] {
        for (number, tag) in images.archives.keys().enumerate() {
            let bundle = images.place.join("umoci").join(tag);
            fs::create_dir_all(bundle.parent().unwrap()).unwrap();
            let image = format!("{}:{tag}", images.layout.display());
            output(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle));
            let unpacked = Tree::of(&bundle.join("rootfs"));
            // One form: each layer alone is looked at in every form below.
            let form = number % FORMS.len();
            if let Some(mount) = Mount::all(&images.layers[form][tag], FORMS[form]) {
                unpacked.assert_same(&Tree::of(mount.path()), &format!("{tag}, {}", FORMS[form]), |_| false);
            }
            fs::remove_dir_all(bundle).unwrap();
        }
    }
}

#[test]
fn a_layer_alone_is_what_gnu_tar_unpacks_from_its_archive_and_from_ours() {
    for images in [&*GENERATED, &*REAL] {
        for (archive, layers) in images.each() {
            let listed = listed(archive);
            if listed
                .iter()
                .any(|path| path.file_name().is_some_and(|name| name.as_bytes().starts_with(b".wh.")))
            {
                continue;
            }
            let place = images.place.join("gnu").join(layers[0].file_stem().unwrap());
            let unpacked = unpack(archive, Stdio::null(), &place.join("archive"));
            // Folders that are not listed look as they do in the layer below.
            let is_implied = |path: &Path| !listed.contains(path);
            for (form, layer) in FORMS.iter().zip(layers) {
                let Some(mount) = Mount::all(std::slice::from_ref(layer), form) else { continue };
                unpacked.assert_same(&Tree::of(mount.path()), &format!("{archive:?}, {form}"), is_implied);
            }
            compare(layers[0], &place.join("archive"));
            if images.place == GENERATED.place {
                let mut ours = archive_of(layers[0]);
                let again = unpack(Path::new("-"), ours.stdout.take().unwrap().into(), &place.join("ours"));
                assert!(ours.wait().unwrap().success());
                unpacked.assert_same(&again, &format!("our archive of {archive:?}"), is_implied);
            }
            fs::remove_dir_all(place).unwrap();
        }
    }
}

#[test]
fn fsck_finds_nothing_wrong_with_any_layer() {
    for images in [&*GENERATED, &*REAL] {
        for (_, layers) in images.each() {
            // erofs-utils knows zstd from 1.8 on.
            for layer in &layers[..2] {
                output(Command::new("fsck.erofs").arg("--extract").arg(layer));
            }
        }
    }
}

#[test]
fn an_archive_is_the_same_of_every_form() {
    for images in [&*GENERATED, &*REAL] {
        for (_, layers) in images.each() {
            let [none, lz4, zstd] = layers.map(|layer| digest(archive_of(layer)));
            assert!(none == lz4 && none == zstd, "the archives of {layers:?} differ");
        }
    }
}

#[test]
fn our_archives_make_the_same_layers_again() {
    let again = |images: &Converted, tags: &[&'static str], form: usize| {
        let archive = |layer: &PathBuf| Layer::from_tar(output(coracle().args(["layer", "tar"]).arg(layer)));
        let image = |tag: &&'static str| Image {
            tag,
            layers: images.layers[form][tag].iter().map(archive).collect(),
            config: json!({}),
        };
        let name = format!("{}-again/{form}", images.place.file_name().unwrap().display());
        let layout = layout(&name, tags.iter().map(image).collect());
        convert(&folder(&name), FORMS[form], Path::new(layout.trim_start_matches("oci:")), tags)
    };
    // The larger ones of Debian's would add nothing but time.
    for (images, tags, forms) in
        [(&*GENERATED, &generated::TAGS[..], 0..3), (&*REAL, &["busybox", "nginx"], 1..2)]
    {
        for form in forms {
            for (tag, layers) in again(images, tags, form) {
                assert_eq!(layers.len(), images.layers[form][tag].len());
                for (layer, again) in images.layers[form][tag].iter().zip(&layers) {
                    let same = fs::read(layer).unwrap() == fs::read(again).unwrap();
                    assert!(same, "{layer:?} and {again:?} differ ({tag}, {})", FORMS[form]);
                }
            }
        }
    }
}
