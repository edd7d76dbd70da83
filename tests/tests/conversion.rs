//! Layers become images side by side, once ever, in bounded memory, and are never used damaged.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use serde_json::json;
use sha2::{Digest, Sha256};
use tests::place::{Place, assert_same};
use tests::{Image, Layer, layout};

/// Bytes that no codec makes smaller.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[4]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Two images with some layers in common: every third one depends on those below it.
fn stacked(name: &str) -> String {
    let layer = |number: u64| {
        let name = number.to_string();
        let layer = Layer::new().file(&name, 0o644, &noise(700_000, number)).file("app", 0o755, b"app");
        match number {
            0 => layer.symlink("lib", "usr/lib").directory("usr/lib", 0o700, (3, 4)),
            _ if number.is_multiple_of(3) => layer
                .file(&format!("lib/{number}"), 0o644, b"below a link")
                .hard_link("copy", &(number - 1).to_string()),
            _ => layer,
        }
    };
    let image = |tag, numbers: &[u64]| Image {
        tag,
        layers: numbers.iter().map(|number| layer(*number)).collect(),
        config: json!({ "Cmd": ["/app"] }),
    };
    layout(name, vec![image("a", &[0, 1, 2, 3, 4, 5, 6]), image("b", &[0, 1, 2, 3, 8, 9, 5])])
}

fn place_of_stacked(name: &str) -> Place {
    let place = Place::new(name);
    let images = stacked(&format!("{name}-images"));
    let services = ["a", "b"].map(|tag| format!("[service.{tag}]\nimage = \"{images}:{tag}\"\n")).concat();
    place.config(&format!("[kernel]\npath = \"bzImage\"\n{services}"));
    place
}

#[test]
fn layers_are_the_same_whether_they_are_converted_side_by_side_or_one_by_one() {
    let place = place_of_stacked("side-by-side");
    let said = place.succeeds(&mut place.build());
    assert_eq!(said.matches("converting layer").count(), 9, "layers in common are converted once: {said}");
    let together = place.artifacts();
    fs::remove_dir_all(place.path("store")).unwrap();
    fs::remove_dir_all(place.path("out")).unwrap();
    let mut alone = Command::new("taskset");
    let build = place.build();
    alone.args(["-c", "0"]).arg(build.get_program()).args(build.get_args()).current_dir(&place.root);
    alone.envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))));
    place.succeeds(&mut alone);
    assert_same(&place.artifacts(), &together, "on one processor");
}

#[test]
fn builds_at_the_same_time_convert_each_layer_once() {
    let place = place_of_stacked("once");
    let spawn = || place.build().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut converted = 0;
    for child in [spawn(), spawn(), spawn()] {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        converted += said.matches("converting layer").count();
    }
    // Four of the nine ask for those below them, and hold no lock from then on.
    assert!((9..=17).contains(&converted), "{converted} conversions");
    assert!(place.stored(&["erofs", "json"]).len() >= 18);
    let locks = || place.stored(&["erofs", "lock"]).iter().filter(|path| path.ends_with(".lock")).count();
    assert_eq!(locks(), 0);
}

#[test]
fn a_bit_that_flips_in_the_store_is_noticed() {
    let place = Place::new("flipped");
    place.builds();
    let clean = place.artifacts();
    for layer in place.stored(&[".erofs"]) {
        let file = File::options().read(true).write(true).open(&layer).unwrap();
        let mut byte = [0];
        let at = file.metadata().unwrap().len() / 2;
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
    fs::remove_dir_all(place.path("out")).unwrap();
    let said = place.succeeds(&mut place.build());
    assert!(said.contains("converting layer"), "{said}");
    assert_same(&place.artifacts(), &clean, "after the flip");
}

#[test]
fn what_flipped_on_the_disk_is_found_by_cache_verify() {
    let place = Place::new("verify");
    place.builds();
    let verify = |what: &str| {
        let output = place.coracle(&["cache", "verify"]).output().unwrap();
        assert!(output.status.success(), "{what}");
        String::from_utf8(output.stdout).unwrap()
    };
    let whole = verify("whole");
    assert!(whole.starts_with("read ") && whole.lines().count() == 1, "{whole}");
    let layer = place.stored(&[".erofs"]).remove(0);
    let file = File::options().write(true).open(&layer).unwrap();
    let sealed = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"x", 5000).unwrap();
    file.set_modified(sealed).unwrap();
    let name = layer.file_name().unwrap().to_str().unwrap();
    let damaged = verify("damaged");
    assert!(damaged.starts_with("damaged and removed: layers/") && damaged.contains(name), "{damaged}");
    assert!(!layer.exists());
}

/// A store that went through an archive, as those that keep caches between builds make them.
#[test]
fn a_restored_store_is_used() {
    let place = Place::new("restored");
    place.builds();
    for layer in place.stored(&[".erofs"]) {
        let bytes = fs::read(&layer).unwrap();
        fs::remove_file(&layer).unwrap();
        fs::write(&layer, bytes).unwrap();
    }
    let said = place.succeeds(&mut place.build());
    assert!(!said.contains("converting"), "{said}");
}

/// A layer of 4 GiB in a file with holes, of which a part does not get smaller.
#[test]
fn a_layer_of_four_gibibytes_is_converted_in_64_mebibytes_of_memory() {
    let place = Place::new("large");
    let blobs = place.path("large/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let size: u64 = (4 << 30) + 12_345;
    let mut header = tar::Header::new_gnu();
    header.set_path("large").unwrap();
    header.set_size(size);
    header.set_mode(0o755);
    header.set_mtime(0);
    header.set_cksum();
    let draft = blobs.join("draft");
    let mut blob = File::options().create(true).truncate(true).read(true).write(true).open(&draft).unwrap();
    blob.write_all(header.as_bytes()).unwrap();
    for at in (0..size - (1 << 20)).step_by(128 << 20) {
        blob.write_all_at(&noise(600_000, at + 1), 512 + at).unwrap();
    }
    blob.set_len(512 + size.next_multiple_of(512) + 1024).unwrap();
    blob.seek(SeekFrom::Start(0)).unwrap();
    let (digest, length) = digest(&mut blob);
    fs::rename(draft, blobs.join(&digest)).unwrap();
    let insert = |media_type: &str, document: serde_json::Value| {
        let bytes = document.to_string();
        let name = hex(&Sha256::digest(&bytes));
        fs::write(blobs.join(&name), &bytes).unwrap();
        json!({ "mediaType": media_type, "digest": format!("sha256:{name}"), "size": bytes.len() })
    };
    let layer = json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": format!("sha256:{digest}"), "size": length,
    });
    let config = insert(
        "application/vnd.oci.image.config.v1+json",
        json!({
            "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/large"] },
            "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
        }),
    );
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let mut manifest = insert(
        manifest_type,
        json!({
            "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer],
        }),
    );
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "large" });
    fs::write(place.path("large/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(place.path("large/index.json"), index.to_string()).unwrap();
    let mut options = File::options().append(true).open(place.path("config")).unwrap();
    options.write_all(b"CONFIG_EROFS_FS_ZIP=y\n").unwrap();
    place.config("[kernel]\npath = \"bzImage\"\n[layers]\ncompression = \"lz4\"\n[service.a]\nimage = \"oci:large:large\"\n");

    // RLIMIT_DATA counts all that a process writes to but files: what it allocates and its threads' stacks.
    let mut limited = Command::new("prlimit");
    let plan = place.coracle(&["plan", "m.toml"]);
    limited.arg(format!("--data={}", 64 << 20)).arg(plan.get_program()).args(plan.get_args());
    limited.envs(plan.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(&place.root);
    let said = place.succeeds(&mut limited);
    assert!(said.contains("converting layer 1 of 1"), "{said}");
    let length = place.stored(&[".erofs"])[0].metadata().unwrap().len();
    assert!((20_000_000..100_000_000).contains(&length), "{length} bytes");
    // It holds 4 GiB of the disk.
    fs::remove_dir_all(&place.root).unwrap();
}

/// The digest and the length of what is left of a file.
fn digest(file: &mut File) -> (String, u64) {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let length = file.read(&mut buffer).unwrap();
        if length == 0 {
            return (hex(&hasher.finalize()), total);
        }
        hasher.update(&buffer[..length]);
        total += u64::try_from(length).unwrap();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
