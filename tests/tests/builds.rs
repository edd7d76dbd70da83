//! What a build writes: the same bytes for the same inputs, all of them or none, whatever happens meanwhile.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use tests::demo_image;
use tests::place::{Place, assert_same, names};

#[test]
fn builds_in_different_folders_with_cold_stores_write_the_same_bytes() {
    let places = ["same-1", "same-2"].map(Place::new);
    places[0].builds();
    // The same files, made at another time and in another order.
    let other = &places[1];
    fs::remove_dir_all(other.path("image")).unwrap();
    other.image("app");
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077 && exec \"$@\"", "sh"]);
    command.arg(other.build().get_program()).args(other.build().get_args());
    command.current_dir(&other.root).env("CORACLE_CACHE", other.path("store"));
    command.env("LC_ALL", "tr_TR.UTF-8").env("TZ", "Pacific/Kiritimati").env("COLUMNS", "40");
    other.succeeds(&mut command);
    assert_same(&places[0].artifacts(), &other.artifacts(), "another folder, umask, locale and time zone");
}

#[test]
fn a_packaged_kernel_gives_the_same_bytes_from_a_cold_store() {
    let places = ["package-1", "package-2"].map(Place::empty);
    for place in &places {
        place.config(&format!("[service.a]\nimage = \"{}\"\n", demo_image("busybox")));
        place.builds();
    }
    assert_same(&places[0].artifacts(), &places[1].artifacts(), "the second store");
}

#[test]
fn a_touched_input_changes_nothing_and_a_changed_one_does() {
    let place = Place::new("touched");
    place.builds();
    let before = place.artifacts();
    place.succeeds(Command::new("touch").arg(place.path("image/bin/app")).arg(place.path("image")));
    place.builds();
    assert_same(&before, &place.artifacts(), "touched inputs");
    place.image("ape");
    place.builds();
    assert!(before[1] != place.artifacts()[1], "the image's new content is not in the initramfs");
}

#[test]
fn a_build_that_changes_nothing_writes_nothing() {
    let place = Place::new("unchanged");
    place.builds();
    let inodes = || names(&place.path("out")).iter().map(|name| inode(&place, name)).collect::<Vec<_>>();
    let before = inodes();
    let stdout = String::from_utf8(place.build().output().unwrap().stdout).unwrap();
    assert_eq!(inodes(), before);
    assert_eq!(stdout.matches("(unchanged)").count(), 3, "{stdout}");
    // A file that was taken away or changed by somebody is written again.
    let clean = place.artifacts();
    fs::write(place.path("out/m-cmdline"), "quiet\n").unwrap();
    fs::remove_file(place.path("out/m-kernel")).unwrap();
    place.builds();
    assert_same(&clean, &place.artifacts(), "after a change by hand");
}

#[test]
fn only_what_becomes_another_is_written_again() {
    let place = Place::new("partly");
    place.builds();
    let files = ["m-kernel", "m-initramfs.img", "m-cmdline"];
    let inodes = || files.map(|name| inode(&place, name));
    let before = inodes();
    place.image("another program");
    let stdout = String::from_utf8(place.build().output().unwrap().stdout).unwrap();
    let after = inodes();
    assert_eq!([0, 1, 2].map(|at| before[at] == after[at]), [true, false, true]);
    let noted: Vec<bool> = stdout.lines().map(|line| line.ends_with("(unchanged)")).collect();
    assert_eq!(noted, [true, false, true], "{stdout}");
}

fn inode(place: &Place, name: &str) -> u64 {
    fs::metadata(place.path("out").join(name)).unwrap().ino()
}

#[test]
fn a_build_that_is_killed_leaves_nothing_that_a_later_one_trips_over() {
    let place = Place::new("killed");
    let begun = Instant::now();
    place.builds();
    let whole = begun.elapsed();
    let clean = place.artifacts();
    for step in 0..10 {
        // A cold store for even steps, one that a killed build has left for odd ones.
        if step % 2 == 0 {
            fs::remove_dir_all(place.path("store")).unwrap();
        }
        let mut child = place.build().stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        thread::sleep(whole * (step + 1) / 11);
        child.kill().unwrap();
        child.wait().unwrap();
        let left = names(&place.path("out"));
        assert!(!left.iter().any(|name| name.contains("draft")), "a killed build has left {left:?}");
        place.builds();
        assert_same(&clean, &place.artifacts(), "after a kill");
    }
}

#[test]
fn artifacts_of_two_builds_are_never_taken_for_one_machine() {
    let place = Place::new("mixed");
    place.builds();
    // As a build leaves them that is killed between its first file and its last: see `artifact::write`.
    let record = place.path("out/.m-build.json");
    let text = fs::read_to_string(place.path("m.toml")).unwrap();
    fs::write(
        place.path("m.toml"),
        text + "[service.missing]\nimage = \"dir:image\"\ncommand = [\"/bin/app\"]\n",
    )
    .unwrap();
    fs::remove_file(place.path("out/m-cmdline")).unwrap();
    fs::create_dir(place.path("out/m-cmdline")).unwrap();
    place.fails(&mut place.build());
    assert!(!record.exists(), "the folder still counts as a machine");
    assert_eq!(
        place.fails(&mut place.coracle(&["run", "out"])),
        "error: there is no machine in `out`\nhint: `coracle build CONFIG -o DIR` writes one"
    );
}

#[test]
fn a_machine_whose_files_were_replaced_is_not_run() {
    let place = Place::new("replaced");
    place.builds();
    fs::write(place.path("out/m-initramfs.img"), "short").unwrap();
    let said = place.fails(&mut place.coracle(&["run", "out"]));
    assert!(said.starts_with("error: `out/m-initramfs.img` has 5 bytes, and "), "{said}");
    assert!(said.ends_with("hint: build the machine again"), "{said}");
}

#[test]
fn two_builds_at_once_share_a_store_and_a_folder() {
    let place = Place::new("at-once");
    let spawn = || place.build().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    for child in [spawn(), spawn(), spawn()] {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let together = place.artifacts();
    fs::remove_dir_all(place.path("store")).unwrap();
    fs::remove_dir_all(place.path("out")).unwrap();
    place.builds();
    assert_same(&place.artifacts(), &together, "built alone");
    assert_eq!(names(&place.path("out")), [".m-build.json", "m-cmdline", "m-initramfs.img", "m-kernel"]);
}

#[test]
fn a_damaged_layer_of_the_store_is_converted_again() {
    let place = Place::new("damaged-layer");
    place.builds();
    let clean = place.artifacts();
    let damages: [fn(&mut Vec<u8>); 3] =
        [|bytes| bytes.truncate(bytes.len() / 2), Vec::clear, |bytes| bytes[1024..1100].fill(7)];
    for damage in damages {
        for layer in place.stored(&[".erofs"]) {
            let mut bytes = fs::read(&layer).unwrap();
            damage(&mut bytes);
            fs::write(&layer, bytes).unwrap();
        }
        fs::remove_dir_all(place.path("out")).unwrap();
        place.builds();
        assert_same(&clean, &place.artifacts(), "after the damage");
    }
}

#[test]
fn damaged_blobs_of_the_store_are_fetched_again() {
    let place = Place::new("damaged-blob");
    place.builds();
    let clean = place.artifacts();
    for blob in fs::read_dir(place.path("store/blobs/sha256")).unwrap() {
        fs::write(blob.unwrap().path(), "{}").unwrap();
    }
    fs::remove_dir_all(place.path("out")).unwrap();
    fs::remove_dir_all(place.path("store/layers")).unwrap();
    place.builds();
    assert_same(&clean, &place.artifacts(), "after the damage");
}

#[test]
fn a_damaged_kernel_of_the_store_is_unpacked_again() {
    let place = Place::empty("damaged-kernel");
    place.config(&format!("[service.a]\nimage = \"{}\"\n", demo_image("busybox")));
    place.builds();
    let clean = place.artifacts();
    // As a power failure leaves files that were not on the disk yet.
    let damage = |endings: &[&str]| {
        for file in place.stored(endings) {
            fs::write(file, "").unwrap();
        }
        fs::remove_dir_all(place.path("out")).unwrap();
    };
    for ending in ["/vmlinuz", "/ready/erofs.ko"] {
        damage(&[ending]);
        place.builds();
        assert_same(&clean, &place.artifacts(), ending);
    }
    // Debian 13 compresses its modules.
    damage(&["/erofs.ko", "/erofs.ko.xz"]);
    let said = place.fails(&mut place.build());
    assert!(said.starts_with("error: cannot read kernel module `store/kernels/"), "{said}");
    let (_, hint) = said.split_once("\nhint: delete `").unwrap();
    let (kernel, _) = hint.split_once('`').unwrap();
    fs::remove_dir_all(place.path(kernel)).unwrap();
    place.builds();
    assert_same(&clean, &place.artifacts(), "/modules/erofs.ko");
}

#[test]
fn what_cannot_be_written_is_an_error_that_names_it() {
    let place = Place::new("unwritable");
    fs::write(place.path("file"), "").unwrap();
    let to = |output: &str| place.fails(&mut place.build_into(output));
    assert_eq!(to("file"), "error: cannot make the folder `file`: File exists (os error 17)");
    assert_eq!(to("file/below"), "error: cannot make the folder `file/below`: Not a directory (os error 20)");
    // Nobody can write there, not even root.
    let said = to("/proc/out");
    assert!(said.starts_with("error: cannot make the folder `/proc/out`: "), "{said}");
    assert!(!place.path("m.lock").exists(), "a build that failed has written a lock file");
}

/// Runs a build with a file system of `size` mounted on the folder `full`, and returns its code, what it says, and
/// what is left there.
fn on_a_small_disk(place: &Place, size: &str, build: &str) -> Option<(Option<i32>, String, String)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can mount a small file system to fill");
        return None;
    }
    fs::create_dir_all(place.path("full")).unwrap();
    let script = format!(
        "mount -t tmpfs -o size={size} tmpfs full || exit 99\n{build}\ncode=$?\nfind full -type f\nexit $code"
    );
    let program = place.build().get_program().to_owned();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .current_dir(&place.root)
        .env("CORACLE", program)
        .output()
        .unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_ne!(output.status.code(), Some(99), "{stderr}");
    Some((output.status.code(), stderr.replace(&format!("{}/", place.root.display()), ""), stdout))
}

#[test]
fn a_full_output_disk_is_an_error_and_nothing_is_left_on_it() {
    let place = Place::new("full-output");
    let build = "CORACLE_CACHE=store \"$CORACLE\" build m.toml -o full >/dev/null";
    let Some((code, said, left)) = on_a_small_disk(&place, "4m", build) else { return };
    assert_eq!((code, left.as_str()), (Some(1), ""), "{said}");
    assert!(said.contains("error: cannot write `full/m-kernel`: "), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
}

#[test]
fn a_full_store_is_an_error_and_what_is_left_in_it_is_whole() {
    let place = Place::new("full-store");
    // The store is kept, so that the next build goes on from there.
    let build = "CORACLE_CACHE=full \"$CORACLE\" build m.toml -o out >/dev/null; cp -r full store; false";
    let Some((code, said, left)) = on_a_small_disk(&place, "4m", build) else { return };
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("error: layer 1 of 2 of image ") && said.contains("No space left on device"),
        "{said}"
    );
    assert!(!left.contains("draft"), "{left}");
    assert!(!place.path("out").exists());
    place.builds();
    let after = place.artifacts();
    fs::remove_dir_all(place.path("store")).unwrap();
    place.builds();
    assert_same(&place.artifacts(), &after, "from a store that was full");
}

#[test]
fn a_locked_build_accepts_a_fresh_lock_and_explains_a_stale_one() {
    let place = Place::new("locked");
    let locked = || place.fails(place.build().arg("--locked"));
    let hint = "hint: build once without --locked and commit the lock file";
    assert_eq!(locked(), format!("error: there is no lock file `m.lock`\n{hint}"));
    assert!(!place.path("m.lock").exists() && !place.path("out").exists());
    place.builds();
    place.succeeds(place.build().arg("--locked"));
    let before = fs::read(place.path("m.lock")).unwrap();
    place.image("other");
    let said = locked();
    assert!(
        said.starts_with("error: the lock file `m.lock` is stale: image `dir:image` was `sha256:"),
        "{said}"
    );
    assert!(said.ends_with(hint), "{said}");
    assert_eq!(fs::read(place.path("m.lock")).unwrap(), before);
}

#[test]
fn a_lock_that_gives_a_service_no_users_is_stale_and_one_that_has_more_is_not() {
    let place = Place::new("locked-users");
    place.builds();
    let path = place.path("m.lock");
    let lock = fs::read_to_string(&path).unwrap();
    assert!(lock.contains("\n[ids]\napp = 1114112\nweb = 1048576\n"), "{lock}");
    fs::write(&path, lock.replace("\nweb = 1048576\n", "\ngone = 1048576\n")).unwrap();
    let said = place.fails(place.build().arg("--locked"));
    assert!(
        said.starts_with("error: the lock file `m.lock` is stale: `web` has no user ids in the lock"),
        "{said}"
    );
    place.builds();
    let now = fs::read_to_string(&path).unwrap();
    assert!(now.contains("\n[ids]\napp = 1114112\ngone = 1048576\nweb = 1179648\n"), "{now}");
    place.succeeds(place.build().arg("--locked"));
}

#[test]
fn emptying_the_store_meanwhile_costs_a_build_time_or_one_sentence() {
    let place = Place::new("emptied");
    place.builds();
    let before = place.artifacts();
    let listed = place.coracle(&["cache", "ls", "--json"]).output().unwrap().stdout;
    let items: serde_json::Value = serde_json::from_slice(&listed).unwrap();
    let layers = items.as_array().unwrap().iter().filter(|item| item["kind"] == "layer").count();
    assert_eq!(layers, 3);
    thread::scope(|scope| {
        let builds = scope.spawn(|| {
            for number in 0..8 {
                let output = place.build_into(&format!("out-{number}")).output().unwrap();
                let said = String::from_utf8(output.stderr).unwrap();
                let errors: Vec<_> = said.lines().filter(|line| !line.starts_with("coracle: ")).collect();
                let is_plain = matches!(errors[..], [error] if error.starts_with("error: "));
                assert!(output.status.success() || is_plain, "{said}");
            }
        });
        while !builds.is_finished() {
            place.succeeds(&mut place.coracle(&["cache", "rm", "--all"]));
        }
    });
    fs::remove_dir_all(place.path("out")).unwrap();
    place.builds();
    assert_same(&before, &place.artifacts(), "a store that was emptied");
    let said = place.coracle(&["cache", "prune", "--older-than", "1d"]).output().unwrap().stdout;
    assert_eq!(String::from_utf8(said).unwrap(), "removed nothing: 0 B\n");
}
