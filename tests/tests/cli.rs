//! What `coracle` says, to people who made a mistake and to those who did not.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use tests::{coracle, demo_image, folder};

fn config(name: &str, text: &str) -> PathBuf {
    let path = folder("cli").join(format!("{name}.toml"));
    fs::write(&path, text).unwrap();
    path
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = coracle().args(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn every_problem_is_reported_at_once_with_its_place() {
    let path = config(
        "problems",
        "name = \"Shop\"\n\n[service.web]\nimage = \"oci:x:y\"\nenviroment = { A = \"1\" }\nrestart = \"sometimes\"\n",
    );
    let (code, stdout, stderr) = run(&["check", path.to_str().unwrap()]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    for part in ["problems.toml:1", "service.web.enviroment", "did you mean `environment`?", "`sometimes`"] {
        assert!(stderr.contains(part), "{part} is missing in\n{stderr}");
    }
}

#[test]
fn mistakes_end_with_one_sentence() {
    let image = demo_image("busybox");
    let valid = format!("name = \"x\"\n[service.a]\nimage = \"{image}\"\n");
    let valid = config("valid", &valid);
    let no_tag = config("no-tag", &format!("name = \"x\"\n[service.a]\nimage = \"{image}-not-there\"\n"));
    let no_layout = config("no-layout", "name = \"x\"\n[service.a]\nimage = \"oci:not-there:tag\"\n");
    let valid = valid.to_str().unwrap();
    for (arguments, expected, part) in [
        (&["build", "not-there.toml"][..], 1, "not-there.toml"),
        (&["check", no_tag.to_str().unwrap()], 1, "busybox-not-there"),
        (&["check", no_layout.to_str().unwrap()], 1, "not-there"),
        (&["build", valid, "--init", "not-there/init", "-o", "target/tmp/cli/out"], 1, "not-there/init"),
        (&["run", "target/tmp/not-there"], 1, "target/tmp/not-there"),
        (&["build"], 2, "CONFIG"),
        (&["bild"], 2, "build"),
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stdout.as_str()), (Some(expected), ""), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(part), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_plan_is_json_and_a_build_is_the_same_bytes_again() {
    let image = demo_image("busybox");
    let path = config("same", &format!("name = \"same\"\n[service.a]\nimage = \"{image}\"\n"));
    let path = path.to_str().unwrap();
    let (code, stdout, stderr) = run(&["plan", "--json", path]);
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str::<serde_json::Value>(&stdout).unwrap();
    let outputs = ["one", "two"].map(|name| {
        let output = folder("cli").join(name);
        let (code, _, stderr) = run(&["build", path, "-o", output.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{stderr}");
        ["same-kernel", "same-initramfs.img", "same-cmdline"].map(|file| fs::read(output.join(file)).unwrap())
    });
    assert!(outputs[0] == outputs[1], "two builds of the same inputs differ");
}
