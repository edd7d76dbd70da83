//! What a new user gets to read for the mistakes that new users make: one clear error each, and nothing written.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tests::{coracle, folder, made};

/// A folder of this test's own that has the demo images in `images`.
fn place(name: &str) -> PathBuf {
    let place = folder("mistakes").join(name);
    if place.exists() {
        fs::remove_dir_all(&place).unwrap();
    }
    fs::create_dir_all(place.join("empty")).unwrap();
    std::os::unix::fs::symlink(made("images", "images"), place.join("images")).unwrap();
    place
}

/// Runs a command that fails, and returns its arguments and what it says, as on a terminal.
fn failure(place: &Path, expected: i32, arguments: &[&str], adjust: fn(&mut Command)) -> String {
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let before = names(place);
    let mut command = coracle();
    command.current_dir(place).args(arguments).env_remove("CLICOLOR_FORCE").env("COLUMNS", "100");
    adjust(&mut command);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(expected), "{arguments:?}: {said}");
    assert_eq!(String::from_utf8(stdout).unwrap(), "", "{arguments:?}");
    assert_eq!(names(place), before, "{arguments:?} has written something");
    // Layers that are converted on the way are no part of the failure.
    let said: String = said.split_inclusive('\n').filter(|line| !line.starts_with("coracle: ")).collect();
    format!("$ coracle {}\n{}\n\n", arguments.join(" "), said.trim_end())
}

/// Each a mistake in the config.
const CONFIGS: &[(&str, &str)] = &[
    ("empty", ""),
    ("not-toml", "name = \"x\"\n[service.a\nimage = \"oci:images/demo:busybox\"\n"),
    ("unknown-keys", "name = \"x\"\nversion = \"3\"\n[service.a]\nimage = \"BUSYBOX\"\nprivilged = true\n"),
    (
        "keys-of-compose",
        "name = \"x\"\n[service.a]\nimage = \"BUSYBOX\"\nworking_dir = \"/\"\nenv = {}\nread_only = true\n\
         stop_grace_period = \"1s\"\npublish = [80]\n",
    ),
    (
        "keys-of-systemd",
        "name = \"x\"\n[service.a]\nimage = \"BUSYBOX\"\nExecStart = \"x\"\nRestart = \"always\"\nUser = \"1\"\n\
         WorkingDirectory = \"/\"\nTimeoutStopSec = 5\n",
    ),
    (
        "types",
        "name = \"x\"\n[service.a]\nimage = \"BUSYBOX\"\ncommand = \"sh\"\nread-only = \"yes\"\nports = 80\n\
         environment = [\"A=b\"]\n",
    ),
    ("two-kernels", "name = \"x\"\n[kernel]\npath = \"a\"\npackage = \"linux-image-amd64\"\n"),
    ("no-kernel-package", "name = \"x\"\n[kernel]\npackage = \"bash\"\n"),
    ("no-kernel-file", "name = \"x\"\n[kernel]\npath = \"bzImage\"\n"),
    ("no-kernel", "name = \"x\"\n[kernel]\npath = \"no-kernel.toml\"\n"),
    ("no-kernel-in-image", "name = \"x\"\n[kernel]\nimage = \"BUSYBOX\"\n"),
    ("no-image-folder", "name = \"x\"\n[service.a]\nimage = \"oci:imags/demo:busybox\"\n"),
    ("no-layout", "name = \"x\"\n[service.a]\nimage = \"oci:empty\"\n"),
    ("no-tag", "name = \"x\"\n[service.a]\nimage = \"oci:images/demo:busybx\"\n"),
    ("which-tag", "name = \"x\"\n[service.a]\nimage = \"oci:images/demo\"\n"),
    ("no-archive", "name = \"x\"\n[service.a]\nimage = \"docker-archive:no-archive.toml\"\n"),
    (
        "registry",
        "name = \"x\"\n[service.a]\nimage = \"nginx:1.25\"\n[service.b]\nimage = \"docker://redis\"\n",
    ),
    ("no-user", "name = \"x\"\n[service.a]\nimage = \"BUSYBOX\"\nuser = \"usr\"\n"),
    ("no-command", "name = \"x\"\n[service.a]\nimage = \"dir:empty\"\n"),
    ("no-program", "name = \"x\"\n[service.a]\nimage = \"BUSYBOX\"\ncommand = [\"/bin/bash\"]\n"),
    ("one-word", "name = \"x\"\n[service.a]\nimage = \"BUSYBOX\"\ncommand = [\"sh -c ls\"]\n"),
    (
        "mounts",
        "name = \"x\"\n[service.a]\nimage = \"BUSYBOX\"\ntmpfs = [\"/a\", \"/proc\"]\n\
         volumes = [\"data:/b\", \"/x:/a\"]\n",
    ),
    ("inner-mount", "name = \"x\"\n[service.a]\nimage = \"BUSYBOX\"\ntmpfs = [\"/a\", \"/a/b\"]\n"),
    (
        "several",
        "name = \"x\"\n[service.a]\nimage = \"dir:missing\"\n[service.b]\nimage = \"oci:nowhere:tag\"\n\
         [[file]]\npath = \"/etc/a\"\nsource = \"missing.conf\"\n[[file]]\npath = \"/etc/b\"\nsource = \"empty\"\n",
    ),
    (
        "ports",
        "name = \"x\"\n[service.a]\nimage = \"BUSYBOX\"\nports = [\"80:80\"]\n\
         [service.b]\nimage = \"BUSYBOX\"\nports = [\"80:81\", \"http\"]\n",
    ),
];

#[test]
fn each_mistake_in_a_config_has_its_answer() {
    let place = place("configs");
    for (name, text) in CONFIGS {
        let text = text.replace("BUSYBOX", "oci:images/demo:busybox");
        fs::write(place.join(format!("{name}.toml")), text).unwrap();
    }
    // With a lock that pins the kernel, apt is not asked every time.
    fs::write(place.join("good.toml"), "name = \"x\"\n").unwrap();
    let built = coracle().current_dir(&place).args(["build", "good.toml", "-o", "good"]).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let mut said = String::new();
    for (name, _) in CONFIGS {
        let file = format!("{name}.toml");
        let checked = failure(&place, 1, &["check", &file], |_| ());
        // A build says the same, and writes as little.
        let built = failure(&place, 1, &["build", &file, "-o", "out"], |_| ());
        let without_command = |text: &str| text.split_once('\n').unwrap().1.to_owned();
        assert_eq!(without_command(&checked), without_command(&built));
        said += &checked;
    }
    insta::assert_snapshot!(said);
}

#[test]
fn each_mistake_on_the_command_line_has_its_answer() {
    let place = place("command-line");
    let image = "oci:images/demo:busybox";
    fs::write(place.join("good.toml"), format!("name = \"x\"\n[service.a]\nimage = \"{image}\"\n")).unwrap();
    fs::create_dir(place.join("two")).unwrap();
    for name in ["one", "other"] {
        fs::write(place.join(format!("two/.{name}-build.json")), "{}").unwrap();
    }
    let mut said = String::new();
    for (expected, arguments) in [
        (1, &["build", "missing.toml"][..]),
        (1, &["build", "empty"]),
        (1, &["check", "good.toml", "--locked"]),
        (1, &["build", "good.toml", "--init", "missing/init"]),
        (1, &["build", "good.toml", "-o", "good.toml"]),
        (1, &["run", "empty"]),
        (1, &["run", "two"]),
        (1, &["run", "missing"]),
        (2, &["bild", "good.toml"]),
        (2, &["run"]),
        (2, &["run", "empty", "--memory", "1"]),
        (2, &["run", "empty", "--memory", "lots"]),
        (2, &["run", "empty", "--publish", "x"]),
        (2, &["run", "empty", "--cpus", "0"]),
        (2, &["run", "empty", "--timeout", "5"]),
        (2, &["run", "empty", "--accel", "warp"]),
    ] {
        said += &failure(&place, expected, arguments, |_| ());
    }
    said += "# without apt\n";
    said += &failure(&place, 1, &["check", "good.toml"], |command| {
        command.env("PATH", "/missing");
    });
    insta::assert_snapshot!(said);
}
