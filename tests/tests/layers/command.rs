//! What `coracle layer` says to people, terminals and programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use serde_json::{Value, json};
use tests::{Image, Layer, coracle, folder, layout};

use crate::{FORMS, archive_of, convert};

/// A layer and the store that it is in.
struct Stored {
    store: PathBuf,
    layer: PathBuf,
}

static STORED: LazyLock<Stored> = LazyLock::new(|| {
    let layer = Layer::new()
        .directory("bin", 0o755, (0, 0))
        .file("bin/true", 0o4755, b"")
        .directory("srv", 0o1777, (33, 70_000))
        .owned_file("srv/greeting", 0o640, (33, 33), b"hello\n")
        .file("srv/\u{1b}[31mred\n", 0o644, b"")
        .hard_link("srv/again", "srv/greeting")
        .symlink("etc", "srv")
        .symlink("lib", "/usr/lib")
        .symlink("loop", "loop");
    let images =
        layout("layers-command-images", vec![Image { tag: "a", layers: vec![layer], config: json!({}) }]);
    let place = folder("layers-command");
    fs::remove_dir_all(place.join("store")).unwrap_or_default();
    let layers = convert(&place, FORMS[1], Path::new(images.trim_start_matches("oci:")), &["a"]);
    Stored { store: place.join("store"), layer: layers["a"][0].clone() }
});

/// `coracle layer ARGUMENTS`, where `LAYER` is the one that is there.
fn layer(arguments: &[&str]) -> Command {
    let name = STORED.layer.to_str().unwrap();
    let arguments = arguments.iter().map(|argument| if *argument == "LAYER" { name } else { argument });
    let mut command = coracle();
    command.env("CORACLE_CACHE", &STORED.store).arg("layer").args(arguments);
    command
}

fn prints(arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = layer(arguments).output().unwrap();
    assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// What a command that fails says: nothing on stdout, and on stderr the layer's path as `LAYER`.
fn refuses(arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = layer(arguments).output().unwrap();
    assert_eq!((status.code(), stdout.as_slice()), (Some(1), b"".as_slice()), "{arguments:?}");
    String::from_utf8(stderr).unwrap().replace(STORED.layer.to_str().unwrap(), "LAYER")
}

#[test]
fn a_folder_is_listed_and_a_link_to_one_is_followed_inside_the_layer() {
    assert_eq!(
        prints(&["ls", "LAYER", "srv"]),
        "-rw-r--r--   1         0:0           0 2001-09-09 01:46:40 /srv/\\u{1b}[31mred\\n\n\
         -rw-r-----   2       33:33           6 2001-09-09 01:46:40 /srv/again\n\
         -rw-r-----   2       33:33           6 2001-09-09 01:46:40 /srv/greeting\n"
    );
    assert_eq!(prints(&["ls", "LAYER", "/etc/"]), prints(&["ls", "LAYER", "srv"]));
    assert_eq!(
        prints(&["ls", "LAYER", "lib"]),
        "lrwxrwxrwx   1         0:0           - 2001-09-09 01:46:40 /lib -> /usr/lib\n"
    );
    let all = prints(&["ls", "-R", "LAYER"]);
    assert_eq!(all.lines().count(), 10, "{all}");
    assert!(all.starts_with("drwxr-xr-x   4         0:0           - 1970-01-01 00:00:00 /\n"), "{all}");
    assert!(all.contains("-rwsr-xr-x ") && all.contains("\ndrwxrwxrwt   2    33:70000 "), "{all}");
}

#[test]
fn a_list_is_json_for_programs() {
    let list: Value = serde_json::from_str(&prints(&["ls", "--json", "LAYER", "srv"])).unwrap();
    let greeting = list.as_array().unwrap().iter().find(|file| file["path"] == "/srv/greeting").unwrap();
    assert_eq!(greeting["mode"], "0640");
    assert_eq!(
        (&greeting["kind"], &greeting["size"], &greeting["links"]),
        (&json!("file"), &json!(6), &json!(2))
    );
    assert!(list.as_array().unwrap().iter().any(|file| file["path"] == "/srv/\u{1b}[31mred\n"));
    let program = prints(&["ls", "--json", "LAYER", "bin/true"]);
    assert_eq!(serde_json::from_str::<Value>(&program).unwrap()[0]["mode"], "4755");
}

#[test]
fn a_file_is_read_through_links_that_stay_inside() {
    assert_eq!(prints(&["cat", "LAYER", "/etc/greeting"]), "hello\n");
    assert_eq!(
        refuses(&["cat", "LAYER", "lib/libc.so"]),
        "error: `LAYER`: the layer has no `lib/libc.so`\n\
         hint: a link may lead out of the layer; other layers of the image may have the file\n"
    );
    assert_eq!(
        refuses(&["cat", "LAYER", "etc"]),
        "error: `LAYER`: cannot read `/srv`: it is not a regular file\n"
    );
    assert!(refuses(&["cat", "LAYER", "loop"]).contains("more than 40 symbolic links"));
}

#[test]
fn a_layer_is_found_by_its_name_in_the_store_as_well() {
    let digest = STORED.layer.file_stem().unwrap().to_str().unwrap();
    let name = STORED.layer.strip_prefix(&STORED.store).unwrap().to_str().unwrap();
    for known in [digest, &digest[..10], name] {
        assert_eq!(prints(&["cat", known, "srv/greeting"]), "hello\n", "{known}");
    }
    assert_eq!(
        refuses(&["ls", "no-such-layer"]),
        "error: cannot open the layer `no-such-layer`: the store has nothing of this name\n\
         hint: `coracle cache ls` lists what there is\n"
    );
}

#[test]
fn what_is_no_layer_or_a_damaged_one_is_one_clear_error() {
    let place = folder("layers-command");
    let whole = fs::read(&STORED.layer).unwrap();
    let mut damaged = whole.clone();
    damaged[4096..].fill(0xa5);
    for (name, bytes, why) in [
        ("text", b"hello".to_vec(), "the layer's image is damaged: it refers to bytes beyond its end"),
        ("zeros", vec![0; 8192], "this is not a layer in Coracle's format: it has no EROFS superblock"),
        ("short", whole[..whole.len() - 4096].to_vec(), "its length is not what its superblock says"),
        ("damaged", damaged, "the layer's image is damaged: "),
    ] {
        let path = place.join(name);
        fs::write(&path, bytes).unwrap();
        for command in [["ls", "-R"].as_slice(), &["tar"]] {
            let output = layer(command).arg(&path).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{name}");
            assert!(said.starts_with("error: `") && said.contains(why), "{name}: {said}");
            assert_eq!(said.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{said}");
        }
    }
}

#[test]
fn an_archive_is_not_written_to_a_terminal() {
    let command = format!("{:?} layer tar {:?}", coracle().get_program(), STORED.layer);
    let output = Command::new("script").args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output();
    let Output { status, stdout, .. } = output.unwrap();
    let said = String::from_utf8(stdout).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write an archive to a terminal") && said.contains(">FILE"), "{said}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut process = archive_of(&STORED.layer);
    drop(process.stdout.take());
    assert!(process.wait().unwrap().success());
}
